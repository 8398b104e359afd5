# SPDX-License-Identifier: MIT OR Apache-2.0
"""The end of each page fault that samples take for the program's own work.

A sample is taken by an interrupt, and on its way back to the program the
kernel keeps interrupts off.  An interrupt that comes due there is served when
the program runs again, and is charged to it.  So samples show each fault too
short, by about a tenth of a microsecond: nothing where a fault takes two, but
a sixth of one that takes half of one.  How much it is, this machine tells: of
a loop that only faults, the samples in user mode are all of this sort.
"""

from __future__ import annotations

import os
import threading
import time
from functools import cache
from typing import TYPE_CHECKING

from ._native import ffi, lib
from .model import Kind
from .sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .classify import Classifier

FAULTS = (Kind.FAULT_ANON, Kind.FAULT_FILE, Kind.FAULT_COW, Kind.FAULT_SWAP, Kind.FAULT_OTHER)
"""Kinds that begin and end with an exception of the program."""

_PAGES = 1024
_RATE_HZ = 4999.0
_BUDGET_S = 0.2
# A loop of nothing but faults is at most so much its own work by samples.
_MOST = 0.25


@cache
def fault_skid_s(classifier: Classifier) -> float:
    """Measure by how many seconds samples show a fault too short (a fifth of a second, once).

    Parameters
    ----------
    classifier
        Tells faults from the rest.

    Returns
    -------
    float
        0 where this cannot be measured.
    """
    tid = threading.get_native_id()
    out = ffi.new("zkp_page_cost_t *")
    touched_s, pages = 0.0, 0
    try:
        # By the process: samples bear its number, not the thread's.
        with Sampler(os.getpid(), _RATE_HZ, classifier=classifier) as sampler:
            end = time.thread_time() + _BUDGET_S
            while time.thread_time() < end:
                if lib.zkp_calibrate_pages(_PAGES, out):
                    return 0.0
                touched_s += out.touch_ns * _PAGES / 1e9
                pages += _PAGES
            sampler.drain()
            cells = [cell for cell in sampler.take() if cell.tid == tid]
    except PerfUnavailableError:
        return 0.0
    faults = sum(cell.count for cell in cells if cell.kind in FAULTS)
    user = sum(cell.count for cell in cells if cell.kind is Kind.USER)
    if not faults or not pages:
        return 0.0
    return min(user / (user + faults), _MOST) * touched_s / pages


def corrections(shown: Mapping[Kind, float], late_s: float) -> dict[Kind, float]:
    """Return by what to multiply each class's time so that faults have their ends back.

    Parameters
    ----------
    shown
        Time by class, by samples.
    late_s
        How much of the faults' time the samples show as own work.

    Returns
    -------
    dict
        Factors; their sum over `shown` leaves the whole as it was.
    """
    own = shown.get(Kind.USER, 0.0)
    faults = sum(shown.get(kind, 0.0) for kind in FAULTS)
    moved = min(late_s, own)
    if moved <= 0 or faults <= 0:
        return {}
    return dict.fromkeys(FAULTS, 1 + moved / faults) | {Kind.USER: 1 - moved / own}
