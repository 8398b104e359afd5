# SPDX-License-Identifier: MIT OR Apache-2.0
"""zkprof may run as root; whatever a target shows it, it neither falls nor believes."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zkprof._native import ffi, lib
from zkprof.library import MAGIC, BadBlockError, UnreadableError, read_block
from zkprof.procfs import parse_maps, parse_stat, parse_status, printable
from zkprof.target import inspect_elf

BLOCK = ffi.sizeof("zkn_block_t")
HEADER = BLOCK - ffi.sizeof("zkn_shard_counters_t")
relaxed = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def sound_block(shards: object, count: int) -> bytearray:
    """Return the bytes of a block that is as it should be."""
    block = ffi.new("zkn_block_t *")
    ffi.memmove(block.magic, MAGIC, len(MAGIC))
    block.abi_major = lib.ZKN_BLOCK_ABI_MAJOR
    block.header_size, block.total_size = HEADER, BLOCK
    block.version = b"1.2.3"
    block.state = lib.ZKN_BLOCK_READY
    block.n_counters = 3
    block.n_classes = lib.ZKN_STATS_CLASSES
    block.shards_addr = int(ffi.cast("uintptr_t", shards))
    block.shard_stride = ffi.sizeof("zkn_shard_counters_t")
    block.n_shards = count
    return bytearray(ffi.buffer(block))


words = st.one_of(
    st.integers(0, 200), st.integers(0, (1 << 64) - 1), st.sampled_from([1 << s for s in range(64)])
)


@relaxed
@given(st.lists(st.tuples(st.integers(0, HEADER // 8 - 1), words), max_size=4))
def test_any_block_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    shards = ffi.new("zkn_shard_counters_t[2]")
    data = sound_block(shards, 2)
    for word, value in changes:
        data[word * 8 : word * 8 + 8] = struct.pack("<Q", value)
    memory = ffi.from_buffer(data)
    problem, snapshot = "", None
    try:
        snapshot = read_block(os.getpid(), int(ffi.cast("uintptr_t", memory)))
    except (BadBlockError, UnreadableError) as error:
        problem = str(error)
    assert problem.isprintable()
    if snapshot:
        assert snapshot.version == printable(snapshot.version)
        assert len(snapshot.counters) <= lib.ZKN_BLOCK_COUNTERS
        assert all(0 <= value < 1 << 64 for value in snapshot.counters)


def test_a_sound_block_is_read() -> None:
    shards = ffi.new("zkn_shard_counters_t[2]")
    shards[1].counters[2] = 77
    memory = ffi.from_buffer(sound_block(shards, 2))
    snapshot = read_block(os.getpid(), int(ffi.cast("uintptr_t", memory)))
    assert (snapshot.version, snapshot.counters) == ("1.2.3", (0, 0, 77))


PROGRAM = Path(sys.executable).resolve().read_bytes()[: 64 << 10]


@relaxed
@given(
    st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), max_size=12),
    st.integers(0, len(PROGRAM)),
)
def test_any_file_is_an_elf_file_or_none(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(PROGRAM)
    for place, value in changes:
        data[place] = value
    elf = inspect_elf(io.BytesIO(bytes(data[:length])))
    assert elf is None or elf.interpreter.isprintable() or elf.interpreter == ""


def elf(
    sections: int = 0, section: tuple[int, ...] = (0,) * 10, *, interpreter: int = 0
) -> tuple[bytes, bytes]:
    """Return header and program header of a 64-bit ELF file, and one section header."""
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 4096 if sections else 0, 0, 64, 56, 1, 64, sections, 0
    )
    program = struct.pack("<IIQQQQQQ", 3, 4, 8192, 0, 0, interpreter, interpreter, 1)
    return ident + header + program, struct.pack("<IIQQQQIIQQ", *section)


def peak_while_inspecting(path: Path) -> int:
    """Return the bytes that Python had to allocate."""
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            inspect_elf(file)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_endless_interpreter_is_not_read(tmp_path: Path) -> None:
    """A sparse file of a TiB costs its owner nothing; it must cost root nothing."""
    path = tmp_path / "sparse"
    path.write_bytes(elf(interpreter=1 << 39)[0])
    os.truncate(path, 1 << 40)
    assert peak_while_inspecting(path) < 64 << 20


@pytest.mark.parametrize("count", [65_000, 1 << 40])
def test_countless_sections_are_not_read(tmp_path: Path, count: int) -> None:
    """Of 65 000 tables of 200 MiB, that all lie in one place, few are read."""
    extended = count >= 0xFF00
    table = (0, 3, 0, 0, 1 << 20, count if extended else 200 << 20, 0, 0, 1, 0)
    first, section = elf(0 if extended else count, table)
    first = bytearray(first)
    first[40:48] = struct.pack("<Q", 4096)
    path = tmp_path / "sections"
    path.write_bytes(bytes(first).ljust(4096, b"\0") + section)
    os.truncate(path, 1 << 40)
    assert peak_while_inspecting(path) < 64 << 20


comm = st.text(st.characters(min_codepoint=1, exclude_characters="\n"), max_size=15)


@given(comm)
def test_a_name_cannot_forge_its_stat(name: str) -> None:
    fields = " ".join(str(n) for n in range(3, 53))
    stat = parse_stat(f"1 ({name}) S {fields}\n")
    assert (stat.state, stat.comm) == ("S", printable(name))
    assert stat.comm.isprintable()


@given(comm)
def test_a_name_cannot_forge_its_status(name: str) -> None:
    escaped = name.replace("\\", "\\\\")
    status = parse_status(f"Name:\t{escaped}\nVmRSS:\t 5 kB\n")
    assert status.keys() == {"Name", "VmRSS"}


path_text = st.text(st.characters(min_codepoint=1, exclude_characters="\n"), max_size=80)


@given(path_text)
def test_a_path_cannot_forge_a_mapping(text: str) -> None:
    line = f"1000-2000 rw-p 00000000 08:01 7 /{text}"
    last = "2000-3000 r--p 00000000 08:01 8 /other\n"
    found = parse_maps(f"{line}\n{last}")
    assert [(m.start, m.end) for m in found] == [(0x1000, 0x2000), (0x2000, 0x3000)]


def test_a_form_feed_in_a_path_is_no_line() -> None:
    forged = "x\x0c5000-6000 rw-p 00000000 08:01 9 /forged"
    assert len(parse_maps(f"1000-2000 rw-p 00000000 08:01 7 /{forged}\n")) == 1
    assert parse_status("Name:\tx\x0cVmRSS: 1 kB\n").keys() == {"Name"}
