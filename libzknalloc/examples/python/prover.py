# SPDX-License-Identifier: MIT OR Apache-2.0
"""Columns from the cache, round after round, through the buffer protocol."""

from __future__ import annotations

import sys

import zk_nalloc

ROWS = 1 << 20
ROUNDS = 5


def prove() -> int:
    """Fill a column, fold it, and give its memory back to the cache."""
    with (
        zk_nalloc.alloc(8 * ROWS) as buffer,
        memoryview(buffer) as bytes_,
        bytes_.cast("Q") as column,  # numpy.frombuffer(buffer, "u8") works, too
    ):
        column[0] = 1
        column[ROWS - 1] = 3
        return column[0] + column[ROWS - 1]


def main() -> None:
    """Prove in a loop; all rounds but the first must be hits."""
    results = {prove() for _ in range(ROUNDS)}
    stats = zk_nalloc.stats()
    if results != {4} or stats.hits < ROUNDS - 1:
        sys.exit(f"{stats.hits} hits in {ROUNDS} rounds")
    print(f"{ROUNDS} rounds on zknalloc {zk_nalloc.version}")
    zk_nalloc.stage_boundary()  # the proof is out: give the memory back


if __name__ == "__main__":
    main()
