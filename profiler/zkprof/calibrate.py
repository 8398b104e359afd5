# SPDX-License-Identifier: MIT OR Apache-2.0
"""What things cost on this machine, measured rather than assumed.

A first touch of a page costs 0.25 us on bare metal and more than 2 us in a
nested virtual machine.  Where the kernel does not say how long faults took,
their number times this cost does (`measure`).  All times are CPU times of the
calibrating thread, so a busy machine disturbs them little.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ._native import ffi, lib
from .sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from .classify import Classifier

_PAGES = 1024
_BUDGET_S = 0.1
_MIN_ROUNDS, _MAX_ROUNDS = 8, 1000
_SPIN_ROUNDS = 20_000_000
_SPIN_RATE_HZ = 4999.0


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
def sample_cost_s(classifier: Classifier | None) -> float:
    """Measure the CPU seconds that one sample costs its target (a fifth of a second, once).

    The same arithmetic is timed with and without being sampled; the least of
    several times is the one that was disturbed least.
    """
    tid = threading.get_native_id()
    plain, sampled = [], []
    for _ in range(3):
        plain.append(lib.zkp_calibrate_spin(_SPIN_ROUNDS))
        try:
            with Sampler(os.getpid(), _SPIN_RATE_HZ, classifier=classifier) as sampler:
                spent = lib.zkp_calibrate_spin(_SPIN_ROUNDS)
                sampler.drain()
                count = sum(cell.count for cell in sampler.take() if cell.tid == tid)
        except PerfUnavailableError:
            return 0.0
        if count:
            sampled.append((spent - min(plain)) / count)
    return max(0.0, min(sampled, default=0.0)) / 1e9
