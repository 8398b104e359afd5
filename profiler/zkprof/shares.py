# SPDX-License-Identifier: MIT OR Apache-2.0
"""Arithmetic with seconds that are known between a low and a high end."""

from __future__ import annotations

from .model import Share


def part(whole: Share, of: float) -> Share:
    """Return a part of it."""
    return Share(whole.seconds * of, whole.low * of, whole.high * of)


def added(a: Share, b: Share, most: float) -> Share:
    """Return the sum, `most` at the high end."""
    return Share(a.seconds + b.seconds, a.low + b.low, min(a.high + b.high, most))


def capped(pages: float, low_ns: float, mid_ns: float, high_ns: float, limit_s: float) -> Share:
    """Return the time of so many pages, each at a cost in nanoseconds; `limit_s` at most."""
    return Share(
        seconds=min(pages * mid_ns / 1e9, limit_s),
        low=min(pages * low_ns / 1e9, limit_s),
        high=min(pages * high_ns / 1e9, limit_s),
    )


def rest(whole: Share, taken_s: float) -> Share:
    """Return what is left of it."""
    return Share(
        max(0.0, whole.seconds - taken_s),
        max(0.0, whole.low - taken_s),
        max(0.0, whole.high - taken_s),
    )
