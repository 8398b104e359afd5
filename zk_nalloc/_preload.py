# SPDX-License-Identifier: MIT OR Apache-2.0
"""What it takes to run a command on the cache: its environment, and warnings.

`LD_PRELOAD` fails silently: the loader skips it for programs that gain
privileges, a statically linked program has no loader, and a path with a space
or colon is taken for two.  `environment` refuses the last, `warn_about` tells
of the others before the command starts.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["environment", "find_command", "warnings_about"]

# ld.so(8): the list is separated by spaces or colons.
_SEPARATORS: Final = re.compile(r"[\s:]+")
_BITS: Final = 8 * struct.calcsize("P")


def environment(
    preload: Path, environ: Mapping[str, str], *, cache: str | None = None, stats: bool = False
) -> dict[str, str]:
    """Return `environ` with `preload` first in `LD_PRELOAD`.

    Parameters
    ----------
    preload
        libzknalloc_preload.so.
    environ
        The environment to start from.  Other libraries in its `LD_PRELOAD`
        stay, in their order; other copies of `preload` go.
    cache
        A value for `ZK_NALLOC_CACHE_BYTES`.
    stats
        Whether each process is to print its statistics on stderr at exit.

    Returns
    -------
    dict
        The new environment.

    Raises
    ------
    ValueError
        The path of `preload` cannot be written in `LD_PRELOAD`.
    """
    if _SEPARATORS.search(str(preload)):
        raise ValueError(
            f"cannot preload {preload}: LD_PRELOAD allows no space or colon in a path; "
            "install zk-nalloc under another directory"
        )
    others = [
        entry
        for entry in _SEPARATORS.split(environ.get("LD_PRELOAD", ""))
        if entry and Path(entry).name != preload.name
    ]
    result = {**environ, "LD_PRELOAD": ":".join([str(preload), *others])}
    if cache is not None:
        result["ZK_NALLOC_CACHE_BYTES"] = cache
    if stats:
        result["ZK_NALLOC_STATS_FILE"] = "/dev/stderr"
    return result


def find_command(name: str) -> Path:
    """Find a command as the shell does.

    Raises
    ------
    FileNotFoundError
        There is no such command.
    PermissionError
        There is, but it is a directory or not executable.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    if "/" in name:
        places = [Path(name)]
    else:
        places = [Path(place or ".") / name for place in os.get_exec_path()]
    for place in places:
        if place.is_dir() and "/" in name:
            raise PermissionError(f"{place} is a directory")
        if place.is_file():
            raise PermissionError(f"{place} is not executable; try chmod +x")
    raise FileNotFoundError(f"{name}: command not found")


def warnings_about(command: Path) -> Iterator[str]:
    """Say why the loader will not preload anything into `command`.

    A script is judged by its interpreter.  What cannot be read, or is of an
    unknown format, is given the benefit of the doubt.

    Yields
    ------
    str
        One sentence a reason.
    """
    program = _interpreter(command) or command
    try:
        mode = program.stat().st_mode
        if mode & (stat.S_ISUID | stat.S_ISGID) or _has_capabilities(program):
            yield (
                f"{program} gains privileges when it starts (setuid, setgid or capabilities), "
                "so the loader ignores LD_PRELOAD"
            )
        with program.open("rb") as file:
            elf = ELFFile(file)
            if next(elf.iter_segments("PT_INTERP"), None) is None:
                yield (
                    f"{program} is statically linked, so LD_PRELOAD has no effect; "
                    "link it with libzknalloc instead"
                )
            elif elf.elfclass != _BITS:
                yield f"{program} is a {elf.elfclass}-bit program; libzknalloc is not"
    except (OSError, ELFError):
        return


def _has_capabilities(program: Path) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _interpreter(script: Path) -> Path | None:
    """Return the program named by the script's `#!` line, if it has one."""
    try:
        with script.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return None
    words = first[2:].split() if first.startswith(b"#!") else []
    if not words:
        return None
    interpreter = Path(os.fsdecode(words[0]))
    if interpreter.name == "env":
        # `#!/usr/bin/env -S python3 -u`: the first word that is no option.
        names = [os.fsdecode(word) for word in words[1:] if not word.startswith(b"-")]
        found = shutil.which(names[0]) if names else None
        return Path(found) if found else None
    return interpreter
