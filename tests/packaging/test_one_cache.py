# SPDX-License-Identifier: MIT OR Apache-2.0
"""One process, one cache: whoever brings the library in first, all share it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zk_nalloc
from zk_nalloc._lib import mapped_libraries
from zk_nalloc._native import lib

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Python = Callable[..., CompletedProcess[str]]

# malloc() is the preload library's, alloc() the extension's.
COUNT = """if True:
    import ctypes, pathlib, zk_nalloc
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def requests():
        stats = zk_nalloc.stats()
        return stats.hits + stats.misses

    zk_nalloc.release_cache()
    before = requests()
    for _ in range(5):
        libc.free(libc.malloc(9 << 20))
    by_malloc = requests() - before
    hits = zk_nalloc.stats().hits
    zk_nalloc.alloc(9 << 20).close()      # what malloc() left behind
    print(by_malloc, requests() - before - by_malloc, zk_nalloc.stats().hits - hits)
    maps = pathlib.Path("/proc/self/maps").read_text().split()
    print(*sorted({word for word in maps if "libzknalloc.so" in word}))
"""


@pytest.fixture(params=["the same", "byte-equal copy", "another build"])
def preload(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a preload library with a libzknalloc beside it."""
    own = zk_nalloc.preload_path()
    if request.param == "the same":
        return own
    if request.param == "byte-equal copy":
        return Path(shutil.copytree(own.parent, tmp_path / "lib"), own.name)
    return Path(request.getfixturevalue("installed"), "lib", own.name)


def test_preload_and_import_share_one_cache(python: Python, preload: Path) -> None:
    done = python("-W", "error", code=COUNT, LD_PRELOAD=str(preload))
    assert done.stderr == ""
    counts, library = done.stdout.splitlines()
    assert counts == "5 1 1"
    # One file, the one beside the preload library.
    assert library == str((preload.parent / "libzknalloc.so.0").resolve())


def test_without_preload_malloc_is_not_counted(python: Python) -> None:
    done = python("-W", "error", code=COUNT)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "0 1 0"


def test_second_copy_is_reported(python: Python, tmp_path: Path) -> None:
    """What wheel repair would do: a copy under another SONAME."""
    library = zk_nalloc.preload_path().parent / "libzknalloc.so.0"
    copy = tmp_path / "libzknalloc-1a2b3c4d.so.0"
    content = library.read_bytes()
    assert content.count(b"libzknalloc.so.0\0") == 1
    copy.write_bytes(content.replace(b"libzknalloc.so.0\0", b"libzknallox.so.0\0"))
    code = f"import ctypes; ctypes.CDLL({str(copy)!r}); import zk_nalloc"
    done = python(code=code)
    assert done.returncode == 0
    assert "RuntimeWarning: this process has 2 copies of libzknalloc" in done.stderr
    assert ", ".join(sorted([str(copy), str(library)])) in done.stderr


def test_mapped_libraries() -> None:
    maps = (
        "7f0000000000-7f0000001000 r--p 00000000 08:01 11 /a/libzknalloc.so.0\n"
        "7f0000001000-7f0000002000 r-xp 00001000 08:01 11 /a/libzknalloc.so.0\n"
        "7f0000002000-7f0000003000 r-xp 00000000 08:01 11 /same file/libzknalloc.so.0.1.0\n"
        "7f0000003000-7f0000004000 r-xp 00000000 08:01 12 /b c/libzknalloc-0af.so.0 (deleted)\n"
        "7f0000004000-7f0000005000 r-xp 00000000 08:01 13 /a/libzknalloc_preload.so\n"
        "7f0000005000-7f0000006000 rw-p 00000000 00:00 0 \n"
        "7f0000006000-7f0000007000 rw-p 00000000 00:00 0 [stack]\n"
    )
    assert mapped_libraries(maps) == {
        ("08:01", "11"): "/a/libzknalloc.so.0",
        ("08:01", "12"): "/b c/libzknalloc-0af.so.0 (deleted)",
    }


def test_older_library_is_refused(python: Python, tmp_path: Path) -> None:
    """LD_LIBRARY_PATH wins over RUNPATH, so an old copy can get in."""
    names = [name for name in dir(lib) if name.startswith("zkn_") and name != "zkn_version"]
    source = tmp_path / "old.c"
    source.write_text(
        'const char *zkn_version(void) { return "0.0.9"; }\n'
        + "".join(f"void {name}(void) {{}}\n" for name in names)
    )
    node = tmp_path / "old.map"
    node.write_text("ZKN_0.1 { global: zkn_*; local: *; };\n")
    library = tmp_path / "libzknalloc.so.0"
    flags = ["-shared", "-fPIC", "-Wl,-soname,libzknalloc.so.0", f"-Wl,--version-script={node}"]
    subprocess.run(["cc", *flags, "-o", library, source], check=True)
    done = python(code="import zk_nalloc", LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode == 1
    assert (
        f"ImportError: libzknalloc 0.0.9 was loaded from {library}, "
        f"but zk_nalloc was compiled against {zk_nalloc.version}"
    ) in done.stderr


def test_checkout_uses_what_is_installed(python: Python, root: Path) -> None:
    code = "import zk_nalloc; print(zk_nalloc.__file__); print(zk_nalloc.preload_path())"
    done = python(code=code, PYTHONPATH=str(root))
    expected = [str(root / "zk_nalloc/__init__.py"), str(zk_nalloc.preload_path())]
    assert done.stdout.splitlines() == expected


def test_checkout_alone_says_what_to_do(python: Python, root: Path) -> None:
    done = python("-S", code="import zk_nalloc", PYTHONPATH=str(root))
    assert done.returncode == 1
    assert "where zk_nalloc is not installed, run `pip install .`" in done.stderr
