# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where the installed C library lies, for builds and for LD_PRELOAD.

The directory of the extension is an installation prefix: `include/`, `lib/`,
`lib/cmake/` and `lib/pkgconfig/` are in it.  (Not that of this file: the two
differ in editable installations and in a checkout.)
"""

from __future__ import annotations

import shlex
from pathlib import Path

from zk_nalloc import _native

__all__ = [
    "cflags",
    "cmake_dir",
    "libs",
    "pkgconfig_dir",
    "prefix",
    "preload_path",
    "record_path",
]


def prefix() -> Path:
    """Return the prefix under which the C library is installed."""
    return Path(_native.__file__).parent


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
    return prefix() / "lib" / "libzknalloc_preload.so"


def record_path() -> Path:
    """Return the library that records a program's requests."""
    return prefix() / "lib" / "libzknalloc_record.so"


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
