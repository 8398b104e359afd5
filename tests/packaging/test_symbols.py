# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the libraries export: header == symbol map == cdef == type stub == file."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from pathlib import Path

FUNCTION = re.compile(r"\b(zkn_\w+)\(")

# The statistics block is exported for debuggers; profilers find it without.
BLOCK = "zknalloc_stats_v1"

MALLOC_FAMILY = {
    *("malloc", "calloc", "realloc", "reallocarray", "free", "cfree"),
    *("memalign", "aligned_alloc", "posix_memalign", "valloc", "pvalloc"),
    *("malloc_usable_size", "free_sized", "free_aligned_sized"),
}

# What may lower RLIMIT_AS: preload/limit.c.
LIMITS = {"setrlimit", "setrlimit64", "prlimit", "prlimit64"}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def in_header(root: Path) -> set[str]:
    """Return the functions that zknalloc.h declares as API."""
    text = without_comments((root / "libzknalloc/include/zknalloc.h").read_text())
    declarations = re.findall(r"^ZKN_API\b.*?;", text, flags=re.DOTALL | re.MULTILINE)
    return {name for declaration in declarations for name in FUNCTION.findall(declaration)}


def in_cdef(root: Path) -> set[str]:
    text = without_comments((root / "zk_nalloc/_native.cdef.txt").read_text())
    return set(FUNCTION.findall(text))


def in_map(root: Path) -> dict[str, set[str]]:
    """Return the global names of the map by version node."""
    text = without_comments((root / "libzknalloc/libzknalloc.map").read_text())
    nodes = re.findall(r"(\w[\w.]*)\s*\{\s*global:(.*?)(?:local:.*?)?\}", text, flags=re.DOTALL)
    return {node: set(re.findall(r"(\w+);", names)) for node, names in nodes}


def exported(library: Path) -> set[str]:
    """Return the names that a library defines for others."""
    with library.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym")
        return {
            symbol.name
            for symbol in symbols.iter_symbols()
            if symbol["st_shndx"] not in {"SHN_UNDEF", "SHN_ABS"}
            and symbol["st_info"]["bind"] in {"STB_GLOBAL", "STB_WEAK"}
        }


def test_map_is_the_header(root: Path) -> None:
    names = in_header(root)
    assert len(names) > 10
    assert in_map(root)["ZKN_0.1"] == names | {BLOCK}


def test_cdef_is_the_header(root: Path) -> None:
    assert in_cdef(root) == in_header(root)


def test_stub_is_the_cdef(root: Path) -> None:
    text = without_comments((root / "zk_nalloc/_native.cdef.txt").read_text())
    declared = in_cdef(root) | set(re.findall(r"\bZKN_\w+\b", text)) | {"memset"}
    tree = ast.parse((root / "zk_nalloc/_native.pyi").read_text())
    (stub,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "_Lib")
    described = {
        node.target.id if isinstance(node, ast.AnnAssign) else node.name for node in stub.body
    }
    assert described == declared


def test_library_exports_the_map(prefix: Path, root: Path) -> None:
    assert exported(prefix / "lib/libzknalloc.so.0") == set.union(*in_map(root).values())


def test_preload_exports_the_malloc_family_and_no_cache(prefix: Path) -> None:
    preload = prefix / "lib/libzknalloc_preload.so"
    names = exported(preload)
    assert names >= MALLOC_FAMILY | LIMITS
    # Besides those, C++'s operators new and delete alone, by their mangled names.
    assert [name for name in names - MALLOC_FAMILY - LIMITS if name[:3] not in {"_Zn", "_Zd"}] == []
    with preload.open("rb") as file:
        assert ELFFile(file).get_section_by_name(".zknalloc_stats") is None


def test_recorder_exports_the_malloc_family_and_needs_no_cache(prefix: Path) -> None:
    recorder = prefix / "lib/libzknalloc_record.so"
    assert exported(recorder) == MALLOC_FAMILY
    with recorder.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        needed = {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")}
    assert not [name for name in needed if "zknalloc" in name]


@pytest.mark.parametrize("name", ["_native", "_memory"])
def test_extensions_export_no_allocator(unpacked: Path, name: str) -> None:
    names = exported(unpacked / f"zk_nalloc/{name}.abi3.so")
    assert f"PyInit_{name}" in names
    assert not [symbol for symbol in names if symbol.startswith("zkn") or symbol in MALLOC_FAMILY]


def test_secret_comparison_has_no_branch_on_data(prefix: Path) -> None:
    """Only the length may decide where the comparison goes."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("no objdump")
    text = subprocess.run(
        [objdump, "--disassemble=zkn_secret_equal", prefix / "lib/libzknalloc.so.0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = re.findall(r"^ +[0-9a-f]+:\t(?:[0-9a-f]{2,8} )+\s*\t(\S+)\s*(.*)$", text, re.MULTILINE)
    assert lines, text
    # No memcmp(), which stops at the first difference ...
    assert not [line for line in lines if line[0].startswith(("call", "bl"))]
    # ... and nothing but the loop: is there a byte at all, is there another.
    jumps = [name for name, _ in lines if re.fullmatch(r"j(?!mp)\w+|b\.\w+|cbn?z|tbn?z", name)]
    assert 1 <= len(jumps) <= 2, text
