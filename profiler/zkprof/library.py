# SPDX-License-Identifier: MIT OR Apache-2.0
"""libzknalloc's counters in another process, read from outside.

The library keeps a block of counters in a section of its own
(``zknalloc_block.h`` says how it is laid out).  It is found by its first 16
bytes in the file-backed, writable, private mappings, so no symbols, no files
and no help of the target are needed.

zkprof may run as root and the target may be anybody's: every number read is
checked before it is used as an address, a length or a count.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ._native import ffi, lib
from .model import LibraryCounters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .procfs import Mapping

MAGIC = b"ZKNALLOC-STATS\0\1"

# Bounds for what we are ready to believe.
_MAX_COPIES = 16
_MAX_MAPPING = 16 << 20  # .data of a library; not a database mapped privately
_MAX_SCAN = 256 << 20
_MAX_SHARDS = 65_536
_MAX_STRIDE = 1 << 20
_MAX_SHARD_BYTES = 64 << 20
_USER_SPACE = 1 << 56  # five-level page tables
_MASK = (1 << 64) - 1
_STEP = 64

_COUNTERS = lib.ZKN_BLOCK_COUNTERS
_CLASSES = lib.ZKN_STATS_CLASSES
_BLOCK_BYTES = ffi.sizeof("zkn_block_t")
_SHARD_BYTES = ffi.sizeof("zkn_shard_counters_t")


class BadBlockError(Exception):
    """The block found is not one that this version can trust."""


class UnreadableError(Exception):
    """The target's memory may not be read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The totals of one block at one moment."""

    version: str
    cache_bytes: int
    counters: tuple[int, ...]
    """In the order of ZKN_STATS_LIST, as many as that version has."""
    class_hits: tuple[int, ...]
    class_misses: tuple[int, ...]


@cache
def counter_rows() -> tuple[tuple[str, str], ...]:
    """Return name and kind ("c", "g" or "p") of every counter, from the C header."""
    kind = ffi.new("char *")
    rows: list[tuple[str, str]] = []
    while (name := lib.zkp_counter_name(len(rows), kind)) != ffi.NULL:
        rows.append((ffi.string(name).decode(), ffi.string(kind[0:1], 1).decode()))
    return tuple(rows)


def find_blocks(pid: int, mappings: Iterable[Mapping]) -> list[int]:
    """Return the addresses of what looks like statistics blocks.

    Raises
    ------
    UnreadableError
        This user may not read that process's memory.
    """
    found: list[int] = []
    out = ffi.new("uint64_t[]", _MAX_COPIES)
    left = _MAX_SCAN
    for m in mappings:
        size = m.end - m.start
        if not (m.file_backed and m.perms == "rw-p" and size <= min(_MAX_MAPPING, left)):
            continue
        left -= size
        n = lib.zkp_target_find(
            pid, m.start, m.end, _STEP, MAGIC, len(MAGIC), out, _MAX_COPIES - len(found)
        )
        if n < 0:
            raise UnreadableError(_why_unreadable(-n))
        found += [out[i] for i in range(n)]
    return found


def read_block(pid: int, address: int) -> Snapshot:
    """Read one block and add up its shards.

    Raises
    ------
    BadBlockError
        Its numbers contradict the layout.
    UnreadableError
        This user may not read that process's memory, or it is gone.
    """
    block = ffi.new("zkn_block_t *")
    _read(pid, address, block, _BLOCK_BYTES)
    _check(block)
    n_counters = block.n_counters
    counters = list(block.heap.counters)
    hits = list(block.heap.class_hits)
    misses = list(block.heap.class_misses)
    shard = ffi.new("zkn_shard_counters_t *")
    for i in range(block.n_shards):
        _read(pid, block.shards_addr + i * block.shard_stride, shard, _SHARD_BYTES)
        _add(counters, shard.counters)
        _add(hits, shard.class_hits)
        _add(misses, shard.class_misses)
    version = bytes(ffi.buffer(block.version)).split(b"\0", 1)[0]
    return Snapshot(
        version=version.decode("ascii"),
        cache_bytes=block.cache_bytes,
        counters=tuple(counters[:n_counters]),
        class_hits=tuple(hits),
        class_misses=tuple(misses),
    )


def difference(
    before: Sequence[Snapshot | None], after: Sequence[Snapshot]
) -> LibraryCounters | None:
    """Return what happened between two readings of the same blocks.

    None in `before` stands for a block that was not there yet.

    Counters are differences; gauges and peaks are as they were at the end.  A
    process with several copies of the library gets their sums.
    """
    if not after:
        return None
    rows = counter_rows()
    counters = dict.fromkeys((name for name, _ in rows), 0)
    hits = [0] * _CLASSES
    misses = [0] * _CLASSES
    for start, end in zip(before, after, strict=True):
        for row, ((name, kind), value) in enumerate(zip(rows, end.counters, strict=False)):
            if kind == "c":
                counters[name] += _minus(value, start.counters[row] if start else 0)
            else:
                # A gauge is a sum over shards that were not read at the same
                # instant, and may come out just below zero.
                counters[name] += value if value < 1 << 63 else 0
        for c in range(_CLASSES):
            hits[c] += _minus(end.class_hits[c], start.class_hits[c] if start else 0)
            misses[c] += _minus(end.class_misses[c], start.class_misses[c] if start else 0)
    return LibraryCounters(
        version=after[0].version,
        cache_bytes=sum(snapshot.cache_bytes for snapshot in after),
        copies=len(after),
        counters=counters,
        class_hits=tuple(hits),
        class_misses=tuple(misses),
    )


class Library:
    """The copies of libzknalloc in one process, from a first reading on.

    Parameters
    ----------
    pid
        The process.
    mappings
        Its mappings at the start of the window.
    """

    def __init__(self, pid: int, mappings: Iterable[Mapping]) -> None:
        self._pid = pid
        self._before: dict[int, Snapshot | None] = {}
        self._after: dict[int, Snapshot] = {}
        self.problems: list[str] = []
        """Why blocks were passed over."""
        self._find(mappings)
        self._before.update(self._after)

    def look_again(self, mappings: Iterable[Mapping]) -> None:
        """Look for copies loaded since: all that they counted is new."""
        self._find(mappings)

    def read(self) -> LibraryCounters | None:
        """Return what happened since the first reading, or None without the library.

        When the process has ended, this is the last reading before.
        """
        gone = [address for address in self._after if self._update(address)]
        if len(gone) < len(self._after):
            # The others are still there, so the process is: it runs another
            # program now, and these belonged to the one before.
            for address in gone:
                del self._after[address], self._before[address]
        return difference([self._before[a] for a in self._after], list(self._after.values()))

    def _find(self, mappings: Iterable[Mapping]) -> None:
        try:
            addresses = find_blocks(self._pid, mappings)
        except UnreadableError as error:
            self._problem(str(error))
            return
        for address in addresses:
            if address not in self._before and (problem := self._update(address)):
                self._problem(f"statistics block at {address:#x} ignored: {problem}")

    def _update(self, address: int) -> str | None:
        try:
            self._after[address] = read_block(self._pid, address)
        except (BadBlockError, UnreadableError) as error:
            return str(error)
        self._before.setdefault(address, None)
        return None

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def _read(pid: int, address: int, into: Any, size: int) -> None:  # noqa: ANN401  (CFFI)
    rc = lib.zkp_target_read(pid, address, into, size)
    if rc == -errno.EFAULT:
        msg = f"it refers to {address:#x}, where nothing is mapped"
        raise BadBlockError(msg)
    if rc:
        raise UnreadableError(_why_unreadable(-rc))


def _why_unreadable(code: int) -> str:
    if code == errno.EPERM:
        return (
            "libzknalloc's counters need permission to read the target's memory: "
            "run zkprof as root, or start the program with `zkprof run`"
        )
    return f"the target's memory cannot be read: {os.strerror(code)}"


def _check(block: Any) -> None:  # noqa: ANN401  (CFFI)
    """Refuse a block whose numbers we must not act on."""

    def require(what: str, *, ok: bool) -> None:
        if not ok:
            raise BadBlockError(what)

    major = block.abi_major
    require("its first bytes have changed", ok=bytes(ffi.buffer(block.magic)) == MAGIC)
    require(
        f"its layout is version {major}, this zkprof knows {lib.ZKN_BLOCK_ABI_MAJOR}",
        ok=major == lib.ZKN_BLOCK_ABI_MAJOR,
    )
    require("its header has the wrong size", ok=block.header_size == _BLOCK_BYTES - _SHARD_BYTES)
    require("it is too small", ok=block.total_size >= _BLOCK_BYTES)
    require(
        "its state is unknown",
        ok=block.state in (lib.ZKN_BLOCK_INIT, lib.ZKN_BLOCK_READY, lib.ZKN_BLOCK_OFF),
    )
    version = bytes(ffi.buffer(block.version)).split(b"\0", 1)[0]
    require(
        "its version is not text", ok=version.isascii() and version.decode("latin-1").isprintable()
    )
    require("it has too many counters", ok=block.n_counters <= _COUNTERS)
    require("it has other size classes", ok=block.n_classes == _CLASSES)
    if block.n_shards:
        stride, start, count = block.shard_stride, block.shards_addr, block.n_shards
        require("it has too many shards", ok=count <= _MAX_SHARDS)
        require(
            "its shards overlap or are misplaced",
            ok=_SHARD_BYTES <= stride <= _MAX_STRIDE and stride % 8 == 0 and start % 8 == 0,
        )
        require("its shards are too large", ok=count * _SHARD_BYTES <= _MAX_SHARD_BYTES)
        require(
            "its shards are outside of user memory",
            ok=start > 0 and start + count * stride <= _USER_SPACE,
        )


def _add(totals: list[int], values: Iterable[int]) -> None:
    for i, value in enumerate(values):
        if value:
            totals[i] = (totals[i] + value) & _MASK


def _minus(end: int, start: int) -> int:
    """Return a counter's difference; 0 where shards were read at odd moments."""
    d = (end - start) & _MASK
    return d if d < 1 << 63 else 0
