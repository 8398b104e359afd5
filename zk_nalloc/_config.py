# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where the installed C library lies, for builds and for LD_PRELOAD.

The package directory is an installation prefix: `include/`, `lib/`,
`lib/cmake/` and `lib/pkgconfig/` are in it.
"""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["cflags", "cmake_dir", "libs", "pkgconfig_dir", "prefix", "preload_path"]


def _installed(*parts: str) -> Path:
    """Return a file or directory that the wheel has installed in the package."""
    import importlib.resources  # noqa: PLC0415 - slow, and provers never need it

    return Path(str(importlib.resources.files("zk_nalloc").joinpath(*parts)))


def prefix() -> Path:
    """Return the prefix under which the C library is installed."""
    return preload_path().parents[1]


def preload_path() -> Path:
    """Return the library that puts a whole process on the cache.

    Returns
    -------
    pathlib.Path
        What to put into `LD_PRELOAD`, as `zk-nalloc run` does.

    Examples
    --------
    >>> preload_path().name
    'libzknalloc_preload.so'
    """
    return _installed("lib", "libzknalloc_preload.so")


def cmake_dir() -> Path:
    """Return the directory for CMake's `zknalloc_DIR`."""
    return prefix() / "lib" / "cmake" / "zknalloc"


def pkgconfig_dir() -> Path:
    """Return the directory for `PKG_CONFIG_PATH`."""
    return prefix() / "lib" / "pkgconfig"


def cflags() -> str:
    """Return the compiler's flags, quoted for a shell."""
    return shlex.quote(f"-I{prefix() / 'include'}")


def libs() -> str:
    """Return the linker's flags, quoted for a shell.

    They hold a run path, because no loader looks into a Python package by
    itself.
    """
    lib = prefix() / "lib"
    return shlex.join([f"-L{lib}", "-lzknalloc", f"-Wl,-rpath,{lib}"])
