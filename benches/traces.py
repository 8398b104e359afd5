# SPDX-License-Identifier: MIT OR Apache-2.0
"""Recorded allocations of real provers, made ready for replay.

A recording (traces/README.md) is a (compressed) CSV file with one line for each call:
``t_us,tid,op,size,aux,id``, where op is m (malloc), c (calloc), a (aligned; aux is the
alignment), r (realloc; aux is the old size), g (realloc of a block that had been smaller
than 64 KiB; aux is its old size) and f (free).

The benchmark program wants no parsing, no names to look up and, on its limit, no decisions
either. So every call gets the slot of its block in a table, and a *plan* gives each block a
place in one piece of memory: first fit, with each block's final size known beforehand, which
is what an allocator that saw the future would do. ``c/replay.c`` describes the file.
"""

from __future__ import annotations

import bisect
import csv
import gzip
import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Call", "Trace", "TraceError", "load", "plan", "recorded", "write"]

MAGIC = 0x31454341525A4B5A
HEADER = struct.Struct("=8Q")
CALL = struct.Struct("=BBHIQQQ")

_COLUMNS = ["t_us", "tid", "op", "size", "aux", "id"]
_PAGE = 4096


class TraceError(ValueError):
    """A file that is no recording, or one that contradicts itself."""


@dataclass(frozen=True)
class Call:
    """One recorded call: what, on which thread, on which block.

    Attributes
    ----------
    op
        The operation's letter.
    thread, slot
        Threads and blocks numbered from 0 in order of appearance.
    size
        The size asked for; for a free, the size given back.
    extra
        The alignment (a) or the old size (r, g), else 0.
    """

    op: str
    thread: int
    slot: int
    size: int
    extra: int


@dataclass(frozen=True)
class Trace:
    """A recording, completed so that it can be replayed in a loop.

    Attributes
    ----------
    name
        The short name under which benchmarks know it.
    calls
        All calls in order; blocks that were never freed are freed at the end.
    threads, slots
        How many threads and blocks there are.
    live_peak
        The most bytes that were in use at once.
    never_freed
        How many frees were added at the end.
    """

    name: str
    calls: list[Call]
    threads: int
    slots: int
    live_peak: int
    never_freed: int = 0
    requests: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the calls that ask for memory."""
        object.__setattr__(self, "requests", sum(call.op != "f" for call in self.calls))


def recorded() -> list[Path]:
    """Return the recordings that come with the benchmarks."""
    return sorted((Path(__file__).parent / "traces").glob("*.csv.gz"))


def short_name(path: Path) -> str:
    """Return the name of a recording: its file's name up to the first dash or dot."""
    return path.name.partition(".")[0].partition("-")[0]


def load(path: Path) -> Trace:
    """Read a recording.

    Parameters
    ----------
    path
        A CSV file, compressed if its name ends in ``.gz``.

    Raises
    ------
    TraceError
        If the file is not a recording, or if it uses a block before it exists.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("ascii")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read as a recording: {error}") from error
    if not rows or list(rows[0]) != _COLUMNS:
        raise TraceError(f"{path}: the first line must be {','.join(_COLUMNS)}, calls follow")
    return _Reader(path).read(rows)


class _Reader:
    """Turns rows into calls, checking each against what lives at that moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.threads: dict[str, int] = {}
        self.slots = 0
        self.live: dict[str, tuple[int, int, int]] = {}  # id: slot, size, thread
        self.live_bytes = 0
        self.live_peak = 0

    def read(self, rows: list[dict[str, str]]) -> Trace:
        for number, row in enumerate(rows, start=2):
            try:
                self._call(row)
            except (KeyError, ValueError, TypeError) as error:
                raise TraceError(f"{self.path}, line {number}: {error}") from error
        never_freed = len(self.live)
        for slot, size, thread in list(self.live.values()):
            self.calls.append(Call("f", thread, slot, size, 0))
        return Trace(
            short_name(self.path),
            self.calls,
            len(self.threads),
            self.slots,
            self.live_peak,
            never_freed,
        )

    def _call(self, row: dict[str, str]) -> None:
        op, block = row["op"], row["id"]
        size, extra = int(row["size"]), int(row["aux"])
        thread = self.threads.setdefault(row["tid"], len(self.threads))
        if op in ("m", "c", "a", "g"):
            if block in self.live:
                raise ValueError(f"block {block} is allocated a second time")
            slot = self.slots
            self.slots += 1
        elif op in ("r", "f"):
            if block not in self.live:
                raise ValueError(f"block {block} is used but was never allocated, or freed")
            slot, old_size, _ = self.live.pop(block)
            self.live_bytes -= old_size
            extra = old_size if op == "r" else 0
            size = old_size if op == "f" else size
        else:
            raise ValueError(f"no operation is spelled {op!r}")
        if op != "f":
            if size <= 0:
                raise ValueError("a request of no bytes")
            self.live[block] = slot, size, thread
            self.live_bytes += size
            self.live_peak = max(self.live_peak, self.live_bytes)
        if op != "a" and op not in ("r", "g"):
            extra = 0
        self.calls.append(Call(op, thread, slot, size, extra))


def plan(trace: Trace) -> tuple[list[int], int]:
    """Place every block, knowing the future.

    Parameters
    ----------
    trace
        What to place.

    Returns
    -------
    tuple of list of int, int
        The offset of each slot's block, a multiple of the page size, and the size of the
        memory that all of them need. Blocks that live at the same time never overlap.
    """
    room = [0] * trace.slots
    for call in trace.calls:
        room[call.slot] = max(room[call.slot], -(-max(call.size, call.extra) // _PAGE) * _PAGE)
    places = [0] * trace.slots
    placed = [False] * trace.slots
    live: list[tuple[int, int]] = []  # start and end of what lives, by address
    span = 0
    for call in trace.calls:
        slot = call.slot
        if call.op == "f":
            at = bisect.bisect_left(live, (places[slot], 0))
            del live[at]
            continue
        if placed[slot]:
            continue
        start = 0
        for begin, end in live:
            if begin - start >= room[slot]:
                break
            start = end
        bisect.insort(live, (start, start + room[slot]))
        places[slot] = start
        placed[slot] = True
        span = max(span, start + room[slot])
    return places, span


def write(trace: Trace, path: Path) -> None:
    """Write `trace` as the file that the benchmark program maps.

    Parameters
    ----------
    trace
        What to write.
    path
        Where; overwritten.
    """
    places, span = plan(trace)
    out = bytearray(
        HEADER.pack(
            MAGIC,
            len(trace.calls),
            trace.slots,
            trace.threads,
            trace.live_peak,
            span,
            trace.requests,
            0,
        )
    )
    for call in trace.calls:
        place = places[call.slot]
        out += CALL.pack(ord(call.op), call.thread, 0, call.slot, call.size, call.extra, place)
    path.write_bytes(out)
