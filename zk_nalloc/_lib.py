# SPDX-License-Identifier: MIT OR Apache-2.0
"""Loads libzknalloc and makes sure that it is the right one, and the only one.

The loader finds the library by its SONAME: next to this file unless
`LD_LIBRARY_PATH` or a preloaded libzknalloc_preload.so has brought in another
copy first.  Sharing that copy is the point, two caches in one process would
each hold half of the memory, so this module never opens the library by path.
What it checks instead is that the copy is not older than the header that
`_native` was compiled against, and that no second copy is mapped.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Final

try:
    from zk_nalloc._native import ffi, lib
except ImportError as error:
    raise ImportError(
        f"cannot load libzknalloc ({error}); where zk_nalloc is not installed, run "
        "`pip install .`; where it is, look for an older copy in LD_LIBRARY_PATH or LD_PRELOAD",
        name="zk_nalloc._native",
    ) from error

__all__ = ["ffi", "lib", "text", "version"]

# libzknalloc.so.0, libzknalloc.so.0.1.0, and names such as
# libzknalloc-1a2b3c4d.so.0 that wheel repair tools make up.
_LIBRARY: Final = re.compile(r"libzknalloc(?:-[0-9a-f]+)?\.so(?:\.[0-9.]+)?(?: \(deleted\))?")


def text(pointer: object) -> str:
    """Return the C string at `pointer`."""
    found = ffi.string(pointer)
    return found.decode() if isinstance(found, bytes) else str(found)


def mapped_libraries(maps: str) -> dict[tuple[str, str], str]:
    """Find the files with libzknalloc's code in the text of /proc/PID/maps.

    Parameters
    ----------
    maps
        The text.

    Returns
    -------
    dict
        Paths by (device, inode), so that one file under two names counts once.
    """
    found: dict[tuple[str, str], str] = {}
    for line in maps.splitlines():
        # address perms offset dev inode path, the path being the rest
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and _LIBRARY.fullmatch(fields[5].rpartition("/")[2]):  # noqa: PLR2004
            found.setdefault((fields[3], fields[4]), fields[5])
    return found


def _parts(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split("."))


def _check() -> str:
    """Return the version of the library loaded, or say why it will not do."""
    try:
        # Paths may be any bytes; none of ours needs to be valid UTF-8.
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no /proc: nothing to compare, which is no fault
        maps = ""
    paths = sorted(mapped_libraries(maps).values())
    loaded = text(lib.zkn_version())
    compiled = text(lib.ZKN_VERSION_STRING)
    if _parts(loaded) < _parts(compiled):
        raise ImportError(
            f"libzknalloc {loaded} was loaded from {', '.join(paths) or 'an unknown place'}, "
            f"but zk_nalloc was compiled against {compiled}; "
            "remove the older copy from LD_LIBRARY_PATH or LD_PRELOAD",
            name="zk_nalloc._native",
        )
    if len(paths) > 1:
        warnings.warn(
            f"this process has {len(paths)} copies of libzknalloc, each with a cache of its own: "
            f"{', '.join(paths)}; load one of them only",
            RuntimeWarning,
            stacklevel=2,
        )
    return loaded


version: Final[str] = _check()
"""The version of the libzknalloc that this process has loaded."""
