# SPDX-License-Identifier: MIT OR Apache-2.0
"""One window of measuring: the only entry point that the advising side calls."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from .model import Measurement, Tier


def measure(
    pid: int,
    duration_s: float,
    rate_hz: float = 199.0,
    on_tick: Callable[[Measurement], None] | None = None,
    stop: Event | None = None,
    *,
    tier: Tier | None = None,
) -> Measurement:
    """Measure process `pid` for `duration_s` seconds, or until it ends.

    Parameters
    ----------
    pid
        The process; every thread that it has or starts is measured.
    duration_s
        The longest window; ``math.inf`` measures until `stop` or the end.
    rate_hz
        Samples per second of CPU time, for the tiers that sample.
    on_tick
        Called about twice a second with what is known so far.
    stop
        When set, measuring ends within a tenth of a second.
    tier
        Measure in exactly this way; None takes the best that is permitted.

    Raises
    ------
    procfs.TargetError
        The target cannot be measured: see its subclasses in `procfs`.
    """
    raise NotImplementedError
