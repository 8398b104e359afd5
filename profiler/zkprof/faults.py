# SPDX-License-Identifier: MIT OR Apache-2.0
"""Samples of page faults in user mode, which every user may take of his own.

They say where in the program the faults are, and by their addresses whether a
file was mapped there.  While they are on, each fault of the target takes longer
(by a tenth, measured), so they are on for a small part of the time only, in
bursts that come too often to miss a phase.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

from .calibrate import PageTimer, page_cost
from .model import Kind
from .sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from .procfs import Family

_PERIOD = 199
_STACK_RATE_HZ = 997.0
_ON_SHARE = 0.05
_CYCLE_S = 0.05
# Turning an event on or off takes a system call, and interrupts its CPU.
_MAX_SWITCHES = 2000.0
_FEWEST = 20


class FaultSampler:
    """Samples the page faults of a process, in bursts.

    Parameters
    ----------
    family
        The target, with or without its children.
    clock
        Samples its CPU time, and knows what is mapped where.

    Raises
    ------
    PerfUnavailableError
        Sampling is not permitted or not possible.
    """

    def __init__(self, family: Family, clock: Sampler) -> None:
        self._clock = clock
        self.sampler = Sampler(
            family.process.pid,
            _STACK_RATE_HZ,
            faults=_PERIOD,
            follow=family.follow,
            maps_of=clock,
        )
        self.sampler.enable(on=False)
        self._cycle_s = max(_CYCLE_S, 2 * self.sampler.counts.events / _MAX_SWITCHES)
        self._next = time.monotonic()
        self._counts: Counter[Kind] = Counter()

    def close(self) -> None:
        """Stop sampling."""
        self.sampler.close()

    def burst(self) -> float:
        """Sample for a moment if it is time to; return how long that took."""
        began = time.monotonic()
        if began < self._next:
            return 0.0
        self._next = began + self._cycle_s
        self.sampler.enable(on=True)
        time.sleep(_ON_SHARE * self._cycle_s)
        self.sampler.enable(on=False)
        self._clock.drain()  # tells of new mappings
        self.sampler.drain()
        for cell in self.sampler.take():
            self._counts[cell.kind] += cell.count
        return time.monotonic() - began

    @property
    def overhead(self) -> float:
        """What it costs, as a share of the time that faults take."""
        return _ON_SHARE * _slowdown()

    def kinds(self) -> dict[Kind, float]:
        """Return how faults divide into kinds; empty where too few were seen."""
        known = {kind: n for kind, n in self._counts.items() if kind is not Kind.FAULT_OTHER}
        total = sum(known.values())
        return {kind: n / total for kind, n in known.items()} if total >= _FEWEST else {}


@cache
def _slowdown() -> float:
    """Measure by how much faults take longer while they are sampled, 0 to 1."""
    timer = PageTimer()
    try:
        with Sampler(os.getpid(), _STACK_RATE_HZ, faults=_PERIOD):
            for _ in range(5):
                timer.round()
    except PerfUnavailableError:
        return 0.0
    return max(0.0, timer.cost().touch_ns / page_cost().touch_ns - 1)
