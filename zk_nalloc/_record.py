# SPDX-License-Identifier: MIT OR Apache-2.0
"""Record what a program asks of malloc, as a trace that can be replayed.

`libzknalloc_record.so` is preloaded into the program and its children.  Each
process that makes a large request leaves a file in a temporary folder
(libzknalloc/preload/journal.h describes it); the one with the most requests,
the prover, becomes the trace.

A trace is CSV text, compressed where the file's name ends in `.gz`, with one
line for each call that concerns a block of 64 KiB or more, in the order in
which the calls took effect:

=======  =============================================================
column   meaning
=======  =============================================================
t_us     microseconds since the first line
tid      thread, numbered from 1 in order of appearance
op       m malloc; c calloc; a aligned_alloc and its kin; r realloc;
         g realloc of a block that had been smaller than 64 KiB; f free
size     bytes asked for; for f, those of the block
aux      a: the alignment; r, g: the old size; otherwise 0
id       the block, numbered in order of appearance; r keeps the number
=======  =============================================================

A block that realloc makes smaller than 64 KiB leaves the trace: that is an f.
Blocks without an f lived to the end.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DIRECTORY", "Journal", "JournalError", "Summary", "journals", "write_trace"]

#: The variable that tells the library where to write; an absolute path.
DIRECTORY: Final = "ZK_NALLOC_RECORD_DIR"

_COLUMNS: Final = "t_us,tid,op,size,aux,id\n"
_MAGIC: Final = b"ZKNALLOC-RECORD\0"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("=16s4IQ256s")
_RECORD: Final = struct.Struct("=QQQII")
_FIRST: Final = 4096


class JournalError(ValueError):
    """A file that this version of the library did not write."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded call."""

    ns: int
    tid: int
    op: str
    size: int
    aux: int
    block: int


@dataclass(frozen=True, slots=True)
class Journal:
    """What one process asked for.

    Attributes
    ----------
    pid, program
        The process and the path of its executable.
    start_s
        The moment of the first call, on the clock of `time.monotonic`.
    rows
        Its calls, in the order in which they took effect.
    """

    pid: int
    program: str
    start_s: float
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read a file of the recording library.

        Raises
        ------
        JournalError
            The file is none, or of another version.
        """
        data = path.read_bytes()
        try:
            magic, version, record_size, pid, _, start_ns, program = _HEADER.unpack_from(data)
        except struct.error as error:
            raise JournalError(f"{path} is too short") from error
        if (magic, version, record_size) != (_MAGIC, _VERSION, _RECORD.size):
            raise JournalError(f"{path} is not of this version's libzknalloc_record.so")
        rows = []
        for ns, size, aux, block, tid_op in _RECORD.iter_unpack(memoryview(data)[_FIRST:]):
            if tid_op == 0:
                break
            rows.append(Row(ns, tid_op >> 8, chr(tid_op & 0xFF), size, aux, block))
        name = program.partition(b"\0")[0].decode(errors="replace")
        return cls(pid, name, start_ns / 1e9, rows)

    def after(self, seconds: float) -> Journal:
        """Return the calls made later than `seconds` after the first.

        Blocks that live at that moment come first, as if asked for then.
        """
        cut = round(seconds * 1e9)
        live: dict[int, Row] = {}
        later = []
        for row in self.rows:
            if row.ns > cut:
                later.append(row)
            elif row.op == "f":
                live.pop(row.block, None)
            else:
                had = live.get(row.block, row)
                op, aux = ("m", 0) if had.op == "g" else (had.op, had.aux)
                live[row.block] = Row(cut, had.tid, op, row.size, aux, row.block)
        return Journal(self.pid, self.program, self.start_s, [*live.values(), *later])


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written.

    Attributes
    ----------
    requests
        Calls that asked for memory.
    threads
        Threads that made any call.
    live_peak
        The most bytes that were in use at once.
    """

    requests: int
    threads: int
    live_peak: int


def journals(folder: Path) -> list[Journal]:
    """Return what the processes left in `folder`, that with the most calls first."""
    found = [Journal.read(path) for path in folder.iterdir()]
    return sorted(found, key=lambda journal: len(journal.rows), reverse=True)


def write_trace(journal: Journal, path: Path) -> Summary:
    """Write a process's calls as a trace.

    Parameters
    ----------
    journal
        The calls.
    path
        Where; compressed if the name ends in `.gz`.

    Returns
    -------
    Summary
        Its figures.
    """
    threads: dict[int, int] = {}
    blocks: dict[int, int] = {}
    sizes: dict[int, int] = {}
    live = peak = requests = 0

    def lines() -> Iterator[str]:
        nonlocal live, peak, requests
        start = journal.rows[0].ns if journal.rows else 0
        yield _COLUMNS
        for row in journal.rows:
            tid = threads.setdefault(row.tid, len(threads) + 1)
            block = blocks.setdefault(row.block, len(blocks) + 1)
            live -= sizes.pop(row.block, 0)
            if row.op != "f":
                requests += 1
                sizes[row.block] = row.size
                live += row.size
                peak = max(peak, live)
            yield f"{(row.ns - start) // 1000},{tid},{row.op},{row.size},{row.aux},{block}\n"

    text = "".join(lines()).encode("ascii")
    # No time stamp: the same calls give the same file.
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return Summary(requests, len(threads), peak)
