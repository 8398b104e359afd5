# SPDX-License-Identifier: MIT OR Apache-2.0
"""Traces of large requests, as `zk-nalloc record` writes them.

A trace is CSV text, compressed where its first bytes say so, with the columns
``t_us,tid,op,size,aux,id`` and one line for each call on a block of 64 KiB or
more: ``m`` malloc, ``c`` calloc, ``a`` aligned_alloc (aux: the alignment),
``r`` realloc, ``g`` realloc of a block that had been smaller, ``f`` free.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ZkprofError

if TYPE_CHECKING:
    from pathlib import Path

NO_COPIES = "--no-copies"
"""Tells `replay` to replace blocks rather than to resize them."""

_COLUMNS = ["t_us", "tid", "op", "size", "aux", "id"]
_GZIP = b"\x1f\x8b"


class TraceError(ZkprofError):
    """A file that is no trace, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call on one block."""

    op: str
    block: int
    size: int
    alignment: int
    """Of ``a``; 0 for the others."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Calls in the order in which they were made."""

    calls: tuple[Call, ...]
    live_peak: int
    """The most bytes in use at once."""

    @property
    def requests(self) -> int:
        """Calls that ask for memory."""
        return sum(call.op != "f" for call in self.calls)


def load(path: Path) -> Trace:
    """Read a trace.

    Raises
    ------
    TraceError
        The file cannot be read or is no trace; the text says where.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(_GZIP) else data).decode("ascii")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or 'it is damaged'}"
        raise TraceError(message) from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        message = f"{path} is no trace: record one with `zk-nalloc record`"
        raise TraceError(message) from error
    rows = csv.reader(io.StringIO(text))
    if next(rows, None) != _COLUMNS:
        message = (
            f"{path} is no trace: its first line is not {','.join(_COLUMNS)}; "
            "record one with `zk-nalloc record`"
        )
        raise TraceError(message)
    live: dict[int, int] = {}
    calls: list[Call] = []
    now = peak = 0
    for number, row in enumerate(rows, start=2):
        try:
            call = _call(row, live)
        except ValueError as error:
            message = f"{path}, line {number}: {error}"
            raise TraceError(message) from None
        now += call.size * (call.op != "f") - live.pop(call.block, 0)
        if call.op != "f":
            live[call.block] = call.size
        peak = max(peak, now)
        calls.append(call)
    if not calls:
        message = f"{path} holds no calls"
        raise TraceError(message)
    return Trace(tuple(calls), peak)


def _call(row: list[str], live: dict[int, int]) -> Call:
    """Read a line, and check it against the blocks that live at that moment."""
    if len(row) != len(_COLUMNS):
        message = f"{len(row)} columns, not {len(_COLUMNS)}"
        raise ValueError(message)
    op = row[2]
    try:
        size, aux, block = (int(row[i]) for i in (3, 4, 5))
    except ValueError:
        message = "sizes and blocks must be whole numbers"
        raise ValueError(message) from None
    if op not in tuple("mcagrf"):
        message = f"no operation is spelled {op!r}"
        raise ValueError(message)
    if (op in "rf") != (block in live):
        message = f"block {block} is {'not' if op in 'rf' else 'already'} in use"
        raise ValueError(message)
    if op != "f" and not 0 < size < 2**63:
        message = f"a request of {size} bytes"
        raise ValueError(message)
    if op == "a" and (aux <= 0 or aux & (aux - 1)):
        message = f"{aux} is no alignment"
        raise ValueError(message)
    return Call(op, block, size, aux if op == "a" else 0)
