# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a recycling allocator would save, and the verdict.

A page fault can be saved when it brings back memory that the process had
before and gave away; the fault on memory it never had must be paid once, by
any allocator.  The process's high-water mark tells the two apart:

    g     = growth of the high-water mark / bytes faulted in        in [0, 1]
    saved = (anonymous faults + prefaults) * (1 - g)
            + (unmap + madvise + mmap) * a                          CPU seconds

where `a` is the share of anonymous faults in those on memory and on files: a
mapped file is not the allocator's to keep.

Two things make it a range.  The kernel's zeroing returns as a `memset` in the
allocator where a buffer is asked for by `calloc`: the low end assumes that it
always does.  And the times are samples: each class has an interval, and those
of the classes are independent.

CPU time is not wall time: a saving in one thread of many shortens the run only
if the others do not have to wait for something else.  From the time slices:

    low    only slices in which a single thread ran count
    mid    every slice shrinks by its threads' average (a balanced pool)
    high   every slice shrinks by its most affected thread (a barrier)

Both are shares of the time in which the process ran; waiting is not shortened.

Verdicts, by the wall time saved (`mid`), in this order:

    ====================== ===================================================
    inconclusive           < 300 samples (< 1.5 s of CPU time where none are
                           taken), > 5 % of them lost, or a CPU saving that
                           the samples place anywhere from < 5 % to >= 15 %
    allocation-bound       >= 15 %
    growth-bound           memory management >= 10 % of CPU time, g >= 0.7
    allocation-heavy       >= 5 %
    not allocation-bound   < 5 %
    ====================== ===================================================
"""

from __future__ import annotations

import math
import resource
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from .curve import CachePoint, fluid_curve
from .model import Bin, Kind, Tier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .model import Measurement, MemoryPoint

BOUND = 0.15
HEAVY = 0.05
GROWTH_SHARE = 0.10
GROWTH = 0.7
MIN_SAMPLES = 300
MIN_CPU_S = 1.5
MAX_LOST = 0.05
NEAR = 0.02
"""A saving so near to a threshold may get the other verdict in the next window."""

PAGES_IN = (Kind.FAULT_ANON, Kind.PREFAULT)
"""Kinds that bring pages in, and are savable as far as memory does not grow."""
PAGES_OUT = (Kind.UNMAP, Kind.MADVISE, Kind.MMAP)
"""Kinds that a process with kept pages does not need at all."""

# Where zeroing was not measured: the share of a first touch that it takes.
# 13 % under nested virtualisation, up to half of it on bare metal.
ZEROING_SHARE = 0.3
# A thread counts as one that the others may wait for when it ran at least
# half as long as the busiest one in a slice of so many seconds.
_BARRIER_S = 0.5
_BARRIER_SHARE = 0.5
# A slice is serial when one thread used nearly all of its CPU time.
_SERIAL_SHARE = 0.9

_PAGE = resource.getpagesize()


class Verdict(StrEnum):
    """The answer; see the table at the top of this module."""

    BOUND = "allocation-bound"
    HEAVY = "allocation-heavy"
    NOT_BOUND = "not allocation-bound"
    GROWTH = "growth-bound"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Range:
    """A share between 0 and 1, with the ends that it may lie between."""

    low: float
    mid: float
    high: float


@dataclass(frozen=True, slots=True)
class Growth:
    """How much of the memory faulted in was new to the process."""

    faulted: int
    """Bytes faulted in during the window."""
    grown: int
    """Bytes by which the high-water mark of anonymous memory rose."""
    swing: int
    """Bytes between the least and the most anonymous memory: the cache needed."""

    @property
    def share(self) -> float:
        """The `g` of the estimator."""
        return min(1.0, self.grown / self.faulted) if self.faulted else 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What recycling would save in the measured window."""

    verdict: Verdict
    why: str
    saving_cpu: Range
    """Shares of the CPU time."""
    saving_wall: Range
    """Shares of the wall time in which the process ran."""
    growth: Growth
    mm_share: float
    """Memory management's share of the CPU time, growth included."""
    running: float
    """Share of the window in which any thread ran."""
    cache_curve: tuple[CachePoint, ...] = ()
    """Hit rate by size of the cache; empty where memory never came back."""

    @property
    def speed_up(self) -> Range:
        """How many times faster the process would be."""
        wall = self.saving_wall
        return Range(1 / (1 - wall.low), 1 / (1 - wall.mid), 1 / (1 - wall.high))


def percent(share: float) -> str:
    """Write a share of 0 to 1, with a decimal only where it is small."""
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def estimate(m: Measurement) -> Estimate:
    """Estimate what an allocator that keeps its pages would save.

    Parameters
    ----------
    m
        What was measured, in any tier.

    Returns
    -------
    Estimate
        Savings, verdict and the reason for it.
    """
    growth = growth_of(m.memory)
    sampled = _saved_seconds(m, growth.share)
    saved = _zeroing_returns(m, growth, sampled)
    pages_in = sum(_seconds(m, kind) for kind in PAGES_IN)
    pages_out = sum(_seconds(m, kind) for kind in PAGES_OUT)
    mm_s = pages_in + pages_out
    saving_cpu = _shares(saved, m.cpu_s)
    saving_wall, running = _wall(m, saved, pages_in + _anonymous(m) * pages_out)
    mm_share = mm_s / m.cpu_s if m.cpu_s > 0 else 0.0
    in_doubt = _shares(sampled, m.cpu_s)
    verdict = _verdict(m, in_doubt, saving_wall, mm_share, growth.share)
    return Estimate(
        verdict=verdict,
        why=_why(m, verdict, in_doubt, growth, mm_share) + _near(verdict, saving_wall.mid),
        saving_cpu=saving_cpu,
        saving_wall=saving_wall,
        growth=growth,
        mm_share=mm_share,
        running=running,
        cache_curve=fluid_curve(m.memory, growth.faulted),
    )


def growth_of(memory: tuple[MemoryPoint, ...]) -> Growth:
    """Compare what was faulted in with what the process grew by.

    A fault on a huge page counts once but brings 512 pages, so the faulted
    bytes are at least what anonymous memory visibly rose by, reading by
    reading.
    """
    if len(memory) < 2:
        return Growth(0, 0, 0)
    first, last = memory[0], memory[-1]
    counted = (last.minor_faults - first.minor_faults) * _PAGE
    rises = sum(max(0, after.rss_anon - before.rss_anon) for before, after in pairwise(memory))
    anon = [point.rss_anon for point in memory]
    # Mapped files raise the high-water mark, too, but not by recyclable pages.
    files = max(0, (last.rss - last.rss_anon) - (first.rss - first.rss_anon))
    return Growth(
        faulted=max(counted, rises),
        grown=max(0, last.hwm - first.hwm - files),
        swing=max(anon) - min(anon),
    )


def _seconds(m: Measurement, kind: Kind) -> float:
    share = m.classes.get(kind)
    return share.seconds if share else 0.0


def _anonymous(m: Measurement) -> float:
    """Return how much of what is given back is an allocator's: not mapped files.

    A call chain of munmap does not show what it unmaps, so go by what is mapped.
    """
    anon, file = _seconds(m, Kind.FAULT_ANON), _seconds(m, Kind.FAULT_FILE)
    return anon / (anon + file) if file > 0 else 1.0


def _saved_seconds(m: Measurement, g: float) -> Range:
    """Return the CPU seconds saved, as far as the samples know them."""
    weights = dict.fromkeys(PAGES_IN, 1 - g) | dict.fromkeys(PAGES_OUT, _anonymous(m))
    mid = below = above = 0.0
    for kind, weight in weights.items():
        share = m.classes.get(kind)
        if share:
            mid += weight * share.seconds
            below += (weight * (share.seconds - share.low)) ** 2
            above += (weight * (share.high - share.seconds)) ** 2
    return Range(max(0.0, mid - math.sqrt(below)), mid, mid + math.sqrt(above))


def _zeroing_returns(m: Measurement, growth: Growth, saved: Range) -> Range:
    """Lower the low end by the zeroing that the allocator may have to do itself."""
    zeroing = m.overlays.get("zeroing")
    if zeroing is None:
        zeroing = ZEROING_SHARE * _seconds(m, Kind.FAULT_ANON)
    if m.traffic and growth.faulted:
        # The kernel clears what is touched, a memset all that was asked for.
        zeroing *= max(1.0, m.traffic.mapped / growth.faulted)
    return Range(max(0.0, saved.low - (1 - growth.share) * zeroing), saved.mid, saved.high)


def _shares(seconds: Range, whole_s: float) -> Range:
    if whole_s <= 0:
        return Range(0.0, 0.0, 0.0)
    return Range(
        _capped(seconds.low / whole_s),
        _capped(seconds.mid / whole_s),
        _capped(seconds.high / whole_s),
    )


def _capped(share: float) -> float:
    """Keep a share below 1, so that a speed-up exists."""
    return min(max(share, 0.0), 0.99)


# ------------------------------------------------------------------ wall time


def _wall(m: Measurement, saved: Range, mm_s: float) -> tuple[Range, float]:
    """Return the share of running time saved, and that of the window spent running."""
    total = sum(_ran(b) for b in m.bins)
    running = min(1.0, total / m.duration_s) if m.duration_s > 0 else 0.0
    if total <= 0 or mm_s <= 0:
        return _shares(saved, m.cpu_s), running
    serial = sum(_share(b) * _ran(b) for b in m.bins if _is_serial(b))
    pooled = sum(_share(b) * _ran(b) for b in m.bins)
    slices = list(_merged(m.bins, _BARRIER_S))
    barrier = sum(_worst_share(b) * _ran(b) for b in slices)
    # The slices know all of memory management; only a part of it is saved.
    wall = Range(
        low=_capped(serial / total * saved.low / mm_s),
        mid=_capped(pooled / total * saved.mid / mm_s),
        high=_capped(max(barrier, pooled) / total * saved.high / mm_s),
    )
    return wall, running


def _ran(b: Bin) -> float:
    """Return for how long any thread ran, at most."""
    return min(b.width_s, sum(b.cpu_s.values()))


def _share(b: Bin) -> float:
    cpu_s = sum(b.cpu_s.values())
    return sum(b.mm_s.values()) / cpu_s if cpu_s > 0 else 0.0


def _is_serial(b: Bin) -> bool:
    return max(b.cpu_s.values(), default=0.0) >= _SERIAL_SHARE * sum(b.cpu_s.values())


def _worst_share(b: Bin) -> float:
    busiest = max(b.cpu_s.values(), default=0.0)
    return max(
        (
            b.mm_s.get(tid, 0.0) / cpu_s
            for tid, cpu_s in b.cpu_s.items()
            if cpu_s > 0 and cpu_s >= _BARRIER_SHARE * busiest
        ),
        default=0.0,
    )


def _merged(bins: tuple[Bin, ...], width_s: float) -> Iterable[Bin]:
    """Join neighbours to slices of at least `width_s`: a share of few samples is noise."""
    t, width = 0.0, 0.0
    cpu_s: defaultdict[int, float] = defaultdict(float)
    mm_s: defaultdict[int, float] = defaultdict(float)
    for b in bins:
        t = b.t if width == 0.0 else t
        width += b.width_s
        for tid, seconds in b.cpu_s.items():
            cpu_s[tid] += seconds
            mm_s[tid] += b.mm_s.get(tid, 0.0)
        if width >= width_s:
            yield Bin(t, width, dict(cpu_s), dict(mm_s))
            width = 0.0
            cpu_s.clear()
            mm_s.clear()
    if width > 0.0:
        yield Bin(t, width, dict(cpu_s), dict(mm_s))


# -------------------------------------------------------------------- verdict


def too_little(m: Measurement) -> str:
    """Say why the measurement carries no verdict; "" where it may."""
    method = m.method
    if method.lost > MAX_LOST * (method.lost + method.samples):
        return (
            f"{method.lost} of {method.lost + method.samples} samples were lost, "
            "so the shares are not to be trusted"
        )
    used = f"it used {m.cpu_s:.2f} s of CPU time in {m.duration_s:.1f} s"
    if m.cpu_s <= 0:
        return used
    if method.tier is Tier.KERNEL:
        if method.samples < MIN_SAMPLES:
            return f"{used}: {method.samples} samples, and a verdict needs {MIN_SAMPLES}"
    elif m.cpu_s < MIN_CPU_S:
        return f"{used}, and a verdict needs {MIN_CPU_S} s"
    return ""


def _verdict(
    m: Measurement, in_doubt: Range, saving_wall: Range, mm_share: float, g: float
) -> Verdict:
    if too_little(m) or (in_doubt.low < HEAVY and in_doubt.high >= BOUND):
        return Verdict.INCONCLUSIVE
    if saving_wall.mid >= BOUND:
        return Verdict.BOUND
    if mm_share >= GROWTH_SHARE and g >= GROWTH:
        return Verdict.GROWTH
    if saving_wall.mid >= HEAVY:
        return Verdict.HEAVY
    return Verdict.NOT_BOUND


def _near(verdict: Verdict, saved: float) -> str:
    """Say so where the verdict hangs by a thread."""
    if verdict not in (Verdict.BOUND, Verdict.HEAVY, Verdict.NOT_BOUND):
        return ""
    for threshold in (BOUND, HEAVY):
        if abs(saved - threshold) < NEAR:
            return f"; near the threshold of {percent(threshold)}, so another run may cross it"
    return ""


def _why(m: Measurement, verdict: Verdict, in_doubt: Range, growth: Growth, mm_share: float) -> str:
    if verdict is Verdict.INCONCLUSIVE:
        low, high = percent(in_doubt.low), percent(in_doubt.high)
        return too_little(m) or f"between {low} and {high} of its CPU time would be saved"
    pages_in = sum(_seconds(m, kind) for kind in PAGES_IN) / m.cpu_s
    pages_out = sum(_seconds(m, kind) for kind in PAGES_OUT) / m.cpu_s
    if verdict is Verdict.NOT_BOUND:
        return (
            f"{percent(mm_share)} of its CPU time goes into getting memory from the kernel and "
            "giving it back; the rest is its own work"
        )
    spent = (
        f"{percent(pages_in)} of its CPU time goes into page faults and {percent(pages_out)} "
        "into giving memory back"
    )
    if verdict is Verdict.GROWTH:
        return (
            f"{spent}, but {percent(growth.share)} of the memory was new to it: "
            "that has to be faulted in once, by any allocator"
        )
    return f"{spent}; {percent(1 - growth.share)} of what it faulted in, it had had before"
