# SPDX-License-Identifier: MIT OR Apache-2.0
"""Files that a target shows to a zkprof that is root: they cost little and say little."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkprof import perf_map
from zkprof.procfs import Mapping, Process
from zkprof.symbols import Module
from zkprof.target import inspect_elf

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = b"\0.shstrtab\0.dynsym\0.dynstr\0.strtab\0.other\0"
NAMES_AT, TABLE_AT, CONTENT_AT = 2048, 4096, 8192
SHT_STRTAB, SHT_HASH, SHT_DYNSYM, SHT_GNU_HASH = 3, 5, 11, 0x6FFFFFF6
COMPRESSED = 0x800


def file_with(kind: int, name: bytes, content: bytes, flags: int = 0) -> bytes:
    """Return a 64-bit ELF file: a symbol table, a section as described, the names."""
    place = NAMES.index(name)
    sections = [
        (0,) * 10,
        (NAMES.index(b".dynsym"), SHT_DYNSYM, 0, 0, CONTENT_AT, 24, 3, 0, 8, 24),
        (place, kind, flags, 0, CONTENT_AT, len(content), 1, 0, 1, 0),
        (NAMES.index(b".shstrtab"), SHT_STRTAB, 0, 0, NAMES_AT, len(NAMES), 0, 0, 1, 0),
    ]
    table = b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)
    numbers = (3, 62, 1, 0, 64, TABLE_AT, 0, 64, 56, 0, 64, len(sections), len(sections) - 1)
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *numbers)
    return (
        (header.ljust(NAMES_AT, b"\0") + NAMES).ljust(TABLE_AT, b"\0")
        + table.ljust(CONTENT_AT - TABLE_AT, b"\0")
        + content
    )


def symbols_of(file: io.BytesIO) -> None:
    module = Module("hostile", file)
    module.has_symbols()
    module.function(0x1000)


READERS = [inspect_elf, symbols_of]


def peak(read: Callable[[io.BytesIO], object], file: bytes) -> int:
    """Return the bytes that Python had to allocate to read that file."""
    tracemalloc.start()
    try:
        read(io.BytesIO(file))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", [b".strtab", b".dynstr", b".dynsym"])
def test_a_compressed_section_does_not_grow(
    read: Callable[[io.BytesIO], object], name: bytes
) -> None:
    """A hundred kilobytes that would be a hundred megabytes are read as none."""
    header = struct.pack("<IIQQ", 1, 0, 100 << 20, 1)
    file = file_with(SHT_STRTAB, name, header + zlib.compress(bytes(100 << 20), 1), COMPRESSED)
    assert len(file) < 1 << 20
    assert peak(read, file) < 8 << 20


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", [SHT_HASH, SHT_GNU_HASH])
def test_a_hash_table_is_not_read(read: Callable[[io.BytesIO], object], kind: int) -> None:
    """A few megabytes that would be a list of a million numbers are not read."""
    numbers = (1_000_000, 1_000_000, 1, 1)
    content = struct.pack("<IIII", *numbers) + bytes(9_000_000)
    assert peak(read, file_with(kind, b".other", content)) < 8 << 20


PROGRAM = Path(sys.executable).resolve().read_bytes()[: 256 << 10]


@given(
    st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), max_size=12),
    st.integers(0, len(PROGRAM)),
    st.integers(0, 1 << 48),
)
def test_any_file_has_functions_or_none(
    changes: list[tuple[int, int]], length: int, address: int
) -> None:
    data = bytearray(PROGRAM)
    for place, value in changes:
        data[place] = value
    module = Module("any", io.BytesIO(bytes(data[:length])))
    assert module.has_symbols() in {True, False}
    for place in (address, 0x1000, 0x401000):
        found = module.function(place)
        assert found is None or (found.start <= place < found.end and found.name.isprintable())
        bias = module.bias(place, place)
        assert bias is None or isinstance(bias, int)


lines = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.builds("{:x} {:x} {}".format, st.integers(-9, 1 << 70), st.integers(), st.text()),
    )
).map("\n".join)


@given(lines)
def test_any_perf_map_is_names_or_nothing(text: str) -> None:
    found = perf_map._parse(text)
    assert all(name.isprintable() for _, _, name in found)
    assert len(found) <= text.count("\n") + 1 + len(text)


def test_a_perf_map_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_map, "_MAX_FUNCTIONS", 1000)
    found = perf_map._parse("1000 10 " + "x" * 100_000 + "\n" + "2000 10 y\n" * 5000)
    assert len(found) == 1000
    assert max(len(name) for _, _, name in found) == 4096


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "other file"])
def test_what_is_no_mapped_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    """What a path in /proc/PID/maps leads to by now need not be what is mapped."""
    real = tmp_path / "real"
    real.write_bytes(PROGRAM)
    inode = real.stat().st_ino
    path = tmp_path / "shown"
    if kind == "link":
        path.symlink_to(real)
    elif kind == "pipe":
        os.mkfifo(path)
        inode = path.stat().st_ino  # the number alone is not enough
    elif kind == "folder":
        path.mkdir()
        inode = path.stat().st_ino
    else:
        path.write_bytes(PROGRAM)
    with Process(os.getpid()) as process:
        mapping = Mapping(0x1000, 0x2000, "r-xp", inode, str(path), 0)
        assert process.open_mapped(mapping) is None
        found = process.open_mapped(Mapping(0x1000, 0x2000, "r-xp", inode, str(real), 0))
        assert (found is not None) == (kind in {"link", "other file"})
        if found is not None:
            found.close()
