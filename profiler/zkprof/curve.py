# SPDX-License-Identifier: MIT OR Apache-2.0
"""How much a cache of a given size would serve: the cache-size curve.

Where every request was recorded, `simulate` finds the curve by letting the
library itself serve them.  Where only a process was measured, this module reads
it off the rise and fall of its memory, as if memory were a fluid: what is given
back fills the cache up to its size, what is asked for empties it, and the rest
of what is asked for comes from the kernel.  What comes and goes between two
readings of /proc does not show; it counts as the rest does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .model import MemoryPoint

MIB = 1 << 20
SMALLEST = 64 * MIB
_ENOUGH = 0.01
"""A hit rate this near to the best is as good as the best."""


@dataclass(frozen=True, slots=True)
class CachePoint:
    """What a cache of one size would have done."""

    bytes: int
    """Free memory that the cache may keep."""
    hit_rate: float
    """Bytes served from the cache over bytes asked for, 0 to 1."""
    bytes_missed: int
    """Bytes that had to come from the kernel."""


def enough(curve: Sequence[CachePoint]) -> CachePoint | None:
    """Return the smallest cache that is as good as any, None without a curve."""
    best = max((point.hit_rate for point in curve), default=0.0)
    good = (point for point in curve if point.hit_rate >= best - _ENOUGH)
    return min(good, key=lambda point: point.bytes, default=None)


def sizes_up_to(most: int) -> list[int]:
    """Return the cache sizes to look at: none, then doubling up to `most` and once beyond."""
    sizes = [0, SMALLEST]
    while sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return sizes


def fluid_curve(memory: Sequence[MemoryPoint], faulted: int) -> tuple[CachePoint, ...]:
    """Read the curve off a series of memory readings.

    Parameters
    ----------
    memory
        The readings.
    faulted
        Bytes faulted in during the window, to scale what was missed.

    Returns
    -------
    tuple of CachePoint
        By size; empty where memory never came back.
    """
    steps = [after.rss_anon - before.rss_anon for before, after in pairwise(memory)]
    asked = sum(step for step in steps if step > 0)
    fallen = sum(-step for step in steps if step < 0)
    if min(asked, fallen) < SMALLEST:
        return ()
    # What the process had once had and given back before the window began.
    before = max(0, memory[0].hwm - memory[0].rss)
    anon = [point.rss_anon for point in memory]
    return tuple(
        CachePoint(size, hits / asked, round(faulted * (1 - hits / asked)))
        for size in sizes_up_to(max(anon) - min(anon))
        for hits in (_served(steps, size, before),)
    )


def _served(steps: Iterable[int], size: int, cached: int) -> int:
    """Return how many bytes a cache of `size` serves."""
    cached = min(size, cached)
    served = 0
    for step in steps:
        if step < 0:
            cached = min(size, cached - step)
        else:
            taken = min(cached, step)
            cached -= taken
            served += taken
    return served
