# SPDX-License-Identifier: MIT OR Apache-2.0
"""The requests of a trace, made to the library in this process.

`simulate` runs this once for each size of the cache: options are read once in a
process.  No memory is touched, so a trace of a large prover can be replayed on
a small machine: what the library counts as a hit depends on which pages it
believes to be resident, and those are the ones that it handed out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from zk_nalloc import stats
from zk_nalloc._native import ffi, lib

from .trace import NO_COPIES, Call, Trace, load

if TYPE_CHECKING:
    from typing import Any


class OutOfMemoryError(Exception):
    """The library refused a request."""


def replay(trace: Trace, *, copies: bool = True) -> dict[str, Any]:
    """Make all requests of a trace twice, and count the second time.

    The first time is the process's start, in which all memory is new.  Zeroed
    memory is asked for as any other, for clearing would touch it.

    Parameters
    ----------
    trace
        The requests.
    copies
        Whether a block is resized as such, which copies what it holds where it
        has to move; otherwise it is replaced by another.
    """
    _once(trace.calls, copies=copies)
    before = stats()
    _once(trace.calls, copies=copies)
    after = stats()
    return {
        "cache_bytes": after.cache_bytes,
        "bytes_hit": after.bytes_hit - before.bytes_hit,
        "bytes_missed": after.bytes_missed - before.bytes_missed,
        "committed_peak": after.committed_peak,
        "classes": [
            {"size": new.size, "hits": new.hits - old.hits, "misses": new.misses - old.misses}
            for old, new in zip(before.classes, after.classes, strict=True)
        ],
    }


def _once(calls: tuple[Call, ...], *, copies: bool) -> None:
    live: dict[int, Any] = {}
    for call in calls:
        old = live.pop(call.block, None)
        if call.op == "f":
            lib.zkn_free(old)
            continue
        if call.op == "a":
            new = lib.zkn_aligned_alloc(call.alignment, call.size)
        elif call.op == "r" and copies:
            new = lib.zkn_realloc(old, call.size)
        else:
            new = lib.zkn_alloc(call.size)
            if old is not None:
                lib.zkn_free(old)
        if new == ffi.NULL:
            raise OutOfMemoryError
        live[call.block] = new
    for block in live.values():
        lib.zkn_free(block)


def main(argv: list[str]) -> int:
    """Replay the trace named and print what was counted as JSON."""
    sys.stdout.write(json.dumps(replay(load(Path(argv[0])), copies=NO_COPIES not in argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
