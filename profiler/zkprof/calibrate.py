# SPDX-License-Identifier: MIT OR Apache-2.0
"""What things cost on this machine, measured rather than assumed.

A first touch of a page costs 0.25 us on bare metal and more than 2 us in a
nested virtual machine.  Where the kernel does not say how long faults took,
their number times this cost does (`measure`).  All times are CPU times of the
calibrating thread, so a busy machine disturbs them little.
"""

from __future__ import annotations

import mmap
import os
import resource
import time
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import TYPE_CHECKING

from ._native import ffi, lib
from .sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from .classify import Classifier

_PAGES = 1024
_BUDGET_S = 0.1
_MIN_ROUNDS, _MAX_ROUNDS = 8, 1000
# What a sample costs is measured over so many pairs, of some 20 ms each, in parts
# so short that the samples of one fit into the ring, with all of their stacks.
_PAIRS = 7
_PARTS = 8
_SPIN_ROUNDS = 1_000_000
_COST_RATE_HZ = 4999.0
_HUGE_PAGES, _HUGE_ROUNDS = 16, 5


@dataclass(frozen=True, slots=True)
class PageCost:
    """Nanoseconds of CPU time per 4 KiB page, and how much they vary."""

    touch_ns: float
    touch_low: float
    touch_high: float
    unmap_ns: float
    unmap_low: float
    unmap_high: float


class PageTimer:
    """Measures the cost of pages, in rounds of some milliseconds.

    On a busy or virtual machine the cost changes from second to second, so a
    round is worth taking now and then while a target is measured.
    """

    def __init__(self) -> None:
        self._touches: list[float] = []
        self._unmaps: list[float] = []
        self._out = ffi.new("zkp_page_cost_t *")

    def round(self) -> None:
        """Touch and unmap 4 MiB."""
        if rc := lib.zkp_calibrate_pages(_PAGES, self._out):
            raise OSError(-rc, "cannot map memory to calibrate with")
        self._touches.append(self._out.touch_ns)
        self._unmaps.append(self._out.unmap_ns)

    def cost(self) -> PageCost:
        """Return the median, the first and the last tenth of all rounds."""
        touches, unmaps = sorted(self._touches), sorted(self._unmaps)
        n = len(touches)
        low, mid, high = n // 10, n // 2, n - 1 - n // 10
        return PageCost(
            touch_ns=touches[mid],
            touch_low=touches[low],
            touch_high=touches[high],
            unmap_ns=unmaps[mid],
            unmap_low=unmaps[low],
            unmap_high=unmaps[high],
        )


@cache
def page_cost() -> PageCost:
    """Measure the cost of touching and of unmapping a page (a tenth of a second, once)."""
    # The first rounds find cold caches and page tables.
    for _ in range(2):
        PageTimer().round()
    timer = PageTimer()
    end = time.monotonic() + _BUDGET_S
    for taken in range(_MAX_ROUNDS):
        if taken >= _MIN_ROUNDS and time.monotonic() >= end:
            break
        timer.round()
    return timer.cost()


@cache
def huge_page_ns(page_bytes: int) -> float:
    """Measure what the first touch of a huge page costs (some milliseconds, once).

    Returns
    -------
    float
        Nanoseconds of CPU time; 0 where this process got none.
    """
    taken: list[float] = []
    with mmap.mmap(-1, (_HUGE_PAGES + 1) * page_bytes, mmap.MAP_PRIVATE) as region:
        region.madvise(mmap.MADV_HUGEPAGE)
        with ffi.from_buffer("char[]", region) as memory:
            first = -int(ffi.cast("uintptr_t", memory)) % page_bytes
        starts = range(first, first + _HUGE_PAGES * page_bytes, page_bytes)
        for _ in range(_HUGE_ROUNDS):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            began = time.thread_time_ns()
            for start in starts:
                region[start] = 1
            taken_ns = time.thread_time_ns() - began
            for start in starts:
                region[start + page_bytes - 1] = 1
            faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
            if faults < 2 * _HUGE_PAGES:  # else small ones came
                taken.append(taken_ns / _HUGE_PAGES)
            region.madvise(mmap.MADV_DONTNEED)
    return median(taken) if taken else 0.0


@dataclass(frozen=True, slots=True)
class SampleCost:
    """CPU seconds that one sample costs its target, by where it hits."""

    user_s: float
    kernel_s: float

    def overhead(self, rate_hz: float, user: float) -> float:
        """Return the share of its CPU time that a target loses.

        Parameters
        ----------
        rate_hz
            Samples per second of CPU time.
        user
            The share of that time in user mode, 0 to 1.
        """
        return rate_hz * (user * self.user_s + (1 - user) * self.kernel_s)


@cache
def sample_cost(classifier: Classifier | None, copied: int) -> SampleCost:
    """Measure what samples cost (half a second, once).

    The same work is timed with and without being sampled, in turns. Arithmetic stands for user
    mode. For the kernel it is page faults: there a sample has two call chains, and costs half as
    much again.

    Parameters
    ----------
    classifier
        What the samples are classified by; None for samples of user mode only.
    copied
        How many bytes of the stack each brings along.
    """
    return SampleCost(_extra_s(_spin, classifier, copied), _extra_s(_fault, classifier, copied))


def _spin() -> float:
    return float(lib.zkp_calibrate_spin(_SPIN_ROUNDS)) / 1e9


def _fault() -> float:
    out = ffi.new("zkp_page_cost_t *")
    if lib.zkp_calibrate_pages(_PAGES, out):
        return 0.0
    return float(out.touch_ns + out.unmap_ns) * _PAGES / 1e9


def _extra_s(work: Callable[[], float], classifier: Classifier | None, copied: int) -> float:
    """Return the CPU seconds that work takes longer for each sample that is due in it."""
    work()
    extra = []
    for _ in range(_PAIRS):
        plain = sum(work() for _ in range(_PARTS))
        spent = 0.0
        try:
            with Sampler(os.getpid(), _COST_RATE_HZ, classifier=classifier, copied=copied) as s:
                for _ in range(_PARTS):
                    spent += work()
                    s.drain()
        except PerfUnavailableError:
            return 0.0
        if spent:
            extra.append((spent - plain) / (spent * _COST_RATE_HZ))
    return max(0.0, median(extra)) if extra else 0.0
