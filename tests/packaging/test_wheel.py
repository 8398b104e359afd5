# SPDX-License-Identifier: MIT OR Apache-2.0
"""The wheel: its files, how they find each other, what it says of itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from importlib import metadata, resources
from typing import TYPE_CHECKING

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

import zk_nalloc

if TYPE_CHECKING:
    from pathlib import Path

# Everything in zk_nalloc/.  A second file with the library's code would be a
# second cache in some process, so additions are made here by hand.
ZK_NALLOC = {
    "__init__.py",
    "_arrays.py",
    "_buffer.py",
    "_config.py",
    "_control.py",
    "_lib.py",
    "_memory.abi3.so",
    "_memory.pyi",
    "_native.abi3.so",
    "_native.pyi",
    "_numpy.abi3.so",
    "_numpy.pyi",
    "_preload.py",
    "_record.py",
    "_stats.py",
    "cli.py",
    "include/zknalloc.h",
    "include/zknalloc.hpp",
    "include/zknalloc_block.h",
    "lib/cmake/zknalloc/zknallocConfig.cmake",
    "lib/cmake/zknalloc/zknallocConfigVersion.cmake",
    "lib/cmake/zknalloc/zknallocTargets-release.cmake",
    "lib/cmake/zknalloc/zknallocTargets.cmake",
    "lib/libzknalloc.so",
    "lib/libzknalloc.so.0",
    "lib/libzknalloc_preload.so",
    "lib/libzknalloc_record.so",
    "lib/pkgconfig/zknalloc.pc",
    "numpy.py",
    "py.typed",
}


def is_elf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def dynamic(library: Path) -> dict[str, list[str]]:
    """Return SONAME, NEEDED and RUNPATH (or RPATH) of a library."""
    found: dict[str, list[str]] = {}
    with library.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, DynamicSection):
                for tag in section.iter_tags():
                    for name in ("soname", "needed", "runpath", "rpath"):
                        if hasattr(tag, name):
                            found.setdefault(name, []).append(getattr(tag, name))
    return found


def has_block(path: Path) -> bool:
    """Say whether a file holds the statistics block, and so a cache."""
    with path.open("rb") as file:
        return ELFFile(file).get_section_by_name(".zknalloc_stats") is not None


def test_file_list(unpacked: Path) -> None:
    package = unpacked / "zk_nalloc"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert files == ZK_NALLOC
    tops = {path.name for path in unpacked.iterdir()}
    name = f"zk_nalloc-{zk_nalloc.version}"
    assert tops == {"zk_nalloc", "zkprof", f"{name}.data", f"{name}.dist-info"}
    data = unpacked / f"{name}.data" / "data"
    files = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert files == {"share/man/man1/zkprof.1"}


def test_zkprof_is_complete(wheel: Path, unpacked: Path) -> None:
    for file in (
        "cli.py",
        "py.typed",
        "_native.abi3.so",
        "data/zkprof-1.schema.json",
        "data/report.html",
        "data/page.css",
        "data/flame.js",
    ):
        assert (unpacked / "zkprof" / file).is_file()
    demo = "zkprof/bin/zkprof-demo-prover"
    assert is_elf(unpacked / demo)
    with zipfile.ZipFile(wheel) as archive:
        mode = archive.getinfo(demo).external_attr >> 16
    assert mode & 0o111, "pip keeps the mode, so it must be executable here"


def test_zkprof_holds_no_c_sources(unpacked: Path) -> None:
    suffixes = {path.suffix for path in (unpacked / "zkprof").rglob("*") if path.is_file()}
    assert ".py" in suffixes
    assert not suffixes & {".c", ".h", ".txt", ".cmake", ".o", ".a"}


def test_one_file_has_the_soname_and_the_cache(unpacked: Path) -> None:
    elves = [path for path in unpacked.rglob("*") if is_elf(path)]
    sonames = [path.name for path in elves if dynamic(path).get("soname") == ["libzknalloc.so.0"]]
    assert sonames == ["libzknalloc.so.0"]
    # The profiler's demo may run without it, but nothing may carry another.
    assert [path.name for path in elves if has_block(path)] == ["libzknalloc.so.0"]


def test_libraries_find_each_other(unpacked: Path) -> None:
    native = dynamic(unpacked / "zk_nalloc/_native.abi3.so")
    numpy = dynamic(unpacked / "zk_nalloc/_numpy.abi3.so")
    preload = dynamic(unpacked / "zk_nalloc/lib/libzknalloc_preload.so")
    library = dynamic(unpacked / "zk_nalloc/lib/libzknalloc.so.0")
    assert "libzknalloc.so.0" in native["needed"]
    assert "libzknalloc.so.0" in numpy["needed"]
    assert "libzknalloc.so.0" in preload["needed"]
    assert native["runpath"] == numpy["runpath"] == ["$ORIGIN/lib"]
    assert preload["runpath"] == ["$ORIGIN"]
    assert "runpath" not in library
    assert not [found for found in (native, numpy, preload, library) if "rpath" in found]


def test_no_build_path_is_left(unpacked: Path, root: Path, dist: Path) -> None:
    for path in unpacked.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(root).encode() not in content, path
            assert str(dist).encode() not in content, path


def test_linker_script(unpacked: Path) -> None:
    text = (unpacked / "zk_nalloc/lib/libzknalloc.so").read_text()
    assert text == "INPUT(libzknalloc.so.0)\n"


def test_tags_and_metadata(wheel: Path, root: Path) -> None:
    version = re.escape(zk_nalloc.version)
    assert re.fullmatch(rf"zk_nalloc-{version}-cp311-abi3-linux_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        info = f"zk_nalloc-{zk_nalloc.version}.dist-info"
        fields = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
        entries = archive.read(f"{info}/entry_points.txt").decode().replace(" ", "")
        licences = [name for name in archive.namelist() if f"{info}/licenses/" in name]
    assert fields["Name"] == "zk-nalloc"
    assert fields["Version"] == zk_nalloc.version
    assert fields["License-Expression"] == "MIT OR Apache-2.0"
    assert len(licences) == 2
    header = (root / "libzknalloc/include/zknalloc.h").read_text()
    for part, number in zip(("MAJOR", "MINOR", "PATCH"), zk_nalloc.version.split("."), strict=True):
        assert f"#define ZKN_VERSION_{part} {number}\n" in header
    assert "zk-nalloc=zk_nalloc.cli:main" in entries
    assert "zkprof=zkprof.cli:main" in entries


def test_sdist_is_complete(dist: Path) -> None:
    """The wheel was built from it; what no build needs is there too."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for file in ("LICENSE-MIT", "README.md", "tests/conftest.py", "libzknalloc/libzknalloc.map"):
        assert file in names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


@pytest.mark.parametrize(
    ("group", "file"),
    [("cmake.root", "lib/cmake/zknalloc/zknallocConfig.cmake"), ("pkg_config", "zknalloc.pc")],
)
def test_entry_points_for_other_builds(group: str, file: str) -> None:
    (entry,) = metadata.entry_points(group=group, name="zknalloc")
    assert resources.files(entry.value).joinpath(file).is_file()


def test_extensions_keep_to_the_stable_abi(unpacked: Path) -> None:
    extensions = sorted(unpacked.rglob("*.abi3.so"))
    assert {path.name for path in extensions} >= {"_native.abi3.so", "_memory.abi3.so"}
    command = [sys.executable, "-m", "abi3audit", "--strict", "--assume-minimum-abi3", "3.11"]
    done = subprocess.run([*command, *extensions], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_repair_grafts_nothing(wheel: Path, unpacked: Path, tmp_path: Path) -> None:
    """A library that auditwheel copied would get a new SONAME: a second cache."""
    command = [sys.executable, "-m", "auditwheel", "repair", "-w", tmp_path, wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (repaired,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(repaired) as archive:
        names = archive.namelist()
        assert not [name for name in names if ".libs/" in name]
        for path in unpacked.rglob("*"):
            if is_elf(path):
                assert archive.read(str(path.relative_to(unpacked))) == path.read_bytes()
