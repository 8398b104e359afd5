# SPDX-License-Identifier: MIT OR Apache-2.0
"""Faults on huge pages, told from others by counters alone.

Such a fault counts as one and brings 512 pages, all of which the kernel clears: it takes a
hundred times as long. So where resident memory rises by more than the faults can have brought
page by page, the rest came in huge pages. Between two readings a rise may be undone, and then
neither is seen; so memory is read a thousand times a second for a tenth of the time, and what is
counted there stands for the rest. It is at least what there was: of buffers that come and go
within a millisecond, nothing is seen.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from .errors import ZkprofError
from .target import selected_thp

if TYPE_CHECKING:
    from .family import Family
    from .procfs import Process

_PAGE = os.sysconf("SC_PAGESIZE")
_BURST_S = 0.05
_CYCLE_S = 0.5
_STEP_S = 0.001
# Reading may take this part of a burst; many processes are read more rarely.
_READING_SHARE = 0.2
_Z = 1.96


def huge_page_bytes() -> int:
    """Return the size of a huge page, 0 where programs get none."""
    if selected_thp() in ("never", "none"):
        return 0
    with suppress(OSError, ValueError):
        path = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
        return int(path.read_text(encoding="ascii"))
    return 0


@dataclass(slots=True)
class _Seen:
    """One process in one burst."""

    anonymous: int
    faults: int
    rose: int = 0


class HugeFaults:
    """Counts the faults on huge pages of a process, in bursts.

    Parameters
    ----------
    family
        The target, with or without its children.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self.page_bytes = huge_page_bytes()
        self._next = time.monotonic()
        # Of each burst, how many a second.
        self._rates: list[float] = []

    def burst(self, most_s: float) -> float:
        """Look for a moment, `most_s` at most, if it is time to; return how long that took."""
        began = time.monotonic()
        if began < self._next or not self.page_bytes:
            return 0.0
        self._next = began + _CYCLE_S
        members = self._family.members
        seen: dict[int, _Seen] = {}
        step_s = _STEP_S
        while (now := time.monotonic()) < began + min(_BURST_S, most_s):
            for member in members:
                with suppress(ZkprofError, OSError):
                    _look(member, seen)
            step_s = max(step_s, (time.monotonic() - now) / _READING_SHARE)
            time.sleep(step_s)
        for member in members:
            with suppress(ZkprofError, OSError):
                _look(member, seen)
                # Read last, as they were read first: never fewer than brought what was seen.
                seen[member.pid].faults -= member.stat().minor_faults
        took = time.monotonic() - began
        rose = sum(max(0, one.rose + one.faults * _PAGE) for one in seen.values())
        self._rates.append(rose / (self.page_bytes - _PAGE) / took)
        return took

    def count(self, duration_s: float) -> tuple[float, float]:
        """Return how many there were in so long a window, at its least and most likely."""
        n = len(self._rates)
        mid = fmean(self._rates) if n else 0.0
        error = _Z * stdev(self._rates) / math.sqrt(n) if n > 1 else mid
        return max(0.0, mid - error) * duration_s, mid * duration_s


def _look(process: Process, seen: dict[int, _Seen]) -> None:
    """Take in how much anonymous memory a process has."""
    faults = process.stat().minor_faults if process.pid not in seen else 0
    _, resident, shared = process.read("statm").split()[:3]
    anonymous = (int(resident) - int(shared)) * _PAGE
    if (one := seen.get(process.pid)) is None:
        seen[process.pid] = _Seen(anonymous, faults)
        return
    one.rose += max(0, anonymous - one.anonymous)
    one.anonymous = anonymous
