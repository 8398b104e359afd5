# SPDX-License-Identifier: MIT OR Apache-2.0
"""The allocators that are compared, each at its default and its best setting.

An allocator is nothing but environment variables, so every prover runs as it
was built.  The base line that has to be beaten is `glibc-keep`: glibc told
never to give memory back.  A peer that this machine lacks is an error with the
command that installs it, never a row that silently is not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .tools import InstallFailed, Missing, Pip

Find = Callable[[Path], str | None]
"""Given the cache, return the library to preload, None for glibc itself."""

HUGE = 1 << 40
OURS = "zknalloc"

_FOREIGN = (
    "LD_PRELOAD",
    "GLIBC_TUNABLES",
    "MALLOC_",
    "_RJEM_MALLOC_CONF",
    "MIMALLOC_",
    "TCMALLOC_",
    "ZK_NALLOC_STATS_FILE",
)


@dataclass(frozen=True, slots=True)
class Allocator:
    """One setting of one allocator."""

    name: str
    title: str
    find: Find
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the variables to set; raise Missing where the peer is not here."""
        library = self.find(cache)
        return {"LD_PRELOAD": library, **self.variables} if library else dict(self.variables)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any allocator setting.

    `ZK_NALLOC_*` variables stay: they are how a user tries another setting of
    libzknalloc, and the report records them.
    """
    return {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}


def _glibc(_cache: Path) -> None:
    return None


def _system(soname: str, package: str) -> Find:
    """Find a shared library that the loader knows by its name."""

    def find(_cache: Path) -> str:
        ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin:" + os.defpath)
        listing = subprocess.run(
            [ldconfig or "ldconfig", "-p"], text=True, capture_output=True, check=False
        ).stdout
        for line in listing.splitlines():
            name, arrow, path = line.strip().partition(" => ")
            if arrow and name.split()[0] == soname:
                return path
        raise Missing(f"{soname} is not installed: on Debian, apt-get install {package}")

    return find


def _mimalloc3(cache: Path) -> str:
    try:
        python = Path(Pip(("cmeel-mimalloc==3.4.3",)).install(cache).command[0])
    except InstallFailed as error:
        raise Missing(f"mimalloc 3: {error}") from error
    pattern = "lib/python3*/site-packages/cmeel.prefix/lib/libmimalloc.so.3"
    for library in python.parents[1].glob(pattern):
        return str(library)
    raise Missing("the wheel cmeel-mimalloc holds no libmimalloc.so.3")


def preload(path: Path | None) -> Find:
    """Find libzknalloc: the given file, or what `zk-nalloc config` names."""

    def find(_cache: Path) -> str:
        if path is not None:
            if not path.is_file():
                raise Missing(f"no such file: {path}")
            return str(path.resolve())
        beside = Path(sys.executable).with_name("zk-nalloc")
        command = str(beside) if beside.exists() else shutil.which("zk-nalloc")
        if command is None:
            raise Missing("zk-nalloc is not installed: pip install . or give --preload PATH")
        asked = subprocess.run(
            [command, "config", "--preload"], text=True, capture_output=True, check=False
        )
        if asked.returncode != 0:
            raise Missing(f"zk-nalloc config --preload failed: {asked.stderr.strip()}")
        return asked.stdout.strip()

    return find


def allocators(ours: Path | None = None) -> dict[str, Allocator]:
    """Return every setting by name; `ours` is a built preload library."""
    jemalloc = _system("libjemalloc.so.2", "libjemalloc2")
    mimalloc2 = _system("libmimalloc.so.2", "libmimalloc2.0")
    tcmalloc = _system("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4")
    # Version 2.0 spells the first two in its own way; an unknown name is no error.
    mimalloc_best = {
        "MIMALLOC_ALLOW_DECOMMIT": "0",
        "MIMALLOC_LARGE_OS_PAGES": "1",
        "MIMALLOC_PURGE_DELAY": "-1",
        "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1",
        "MIMALLOC_ALLOW_THP": "1",
    }
    settings = (
        Allocator("glibc", "glibc", _glibc),
        Allocator(
            "glibc-keep",
            "glibc told never to trim",
            _glibc,
            {
                "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
                "MALLOC_TRIM_THRESHOLD_": str(HUGE),
                "MALLOC_TOP_PAD_": str(64 << 20),
            },
        ),
        Allocator(
            "glibc-huge",
            "glibc, never trim, huge pages",
            _glibc,
            {
                "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"
                f":glibc.malloc.mmap_threshold={HUGE}:glibc.malloc.trim_threshold={HUGE}"
            },
        ),
        Allocator("jemalloc", "jemalloc", jemalloc),
        Allocator(
            "jemalloc-tuned",
            "jemalloc, keeps all, huge pages",
            jemalloc,
            {
                "MALLOC_CONF": "thp:always,metadata_thp:auto,retain:true,dirty_decay_ms:-1,"
                "muzzy_decay_ms:-1,oversize_threshold:0"
            },
        ),
        Allocator("mimalloc2", "mimalloc 2", mimalloc2),
        Allocator("mimalloc2-tuned", "mimalloc 2, keeps all", mimalloc2, mimalloc_best),
        Allocator("mimalloc3", "mimalloc 3", _mimalloc3),
        Allocator("mimalloc3-tuned", "mimalloc 3, keeps all", _mimalloc3, mimalloc_best),
        Allocator("tcmalloc", "tcmalloc", tcmalloc),
        Allocator(
            "tcmalloc-tuned", "tcmalloc, keeps all", tcmalloc, {"TCMALLOC_RELEASE_RATE": "0"}
        ),
        Allocator(OURS, "libzknalloc", preload(ours)),
    )
    return {allocator.name: allocator for allocator in settings}
