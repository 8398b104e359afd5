# SPDX-License-Identifier: MIT OR Apache-2.0
"""What changed between two sides, and whether it is more than noise.

A side is one report, or several of the same program.  Quantities of a size
(seconds, faults) are compared as a ratio of means, on the logarithm, or where
a run has none as their difference over the mean before; shares of CPU time as
a difference in points.  The 95 % interval of a change is Welch's.  Where it
comes from depends on what a side has:

    several reports     from the spread between them: all that varies from run
                        to run is in it
    one report, rates   from the spread between slices of its window
                        (jackknife): what varies from run to run is not in it
    one report, shares  from the interval that was measured, likewise
    one report, totals  none: one run says nothing about the next

Totals (wall time, CPU time, page faults) are those of whole runs, and are
compared only where every process was followed to its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, variance
from typing import TYPE_CHECKING

from .estimate import Range
from .words import GROUPS, MANAGING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .model import Kind, Measurement
    from .report import Report

# The columns of `_slices`.
_FAULTS, _CPU, _WALL = range(3)
IDS = ("wall", "cpu", "cores", "faults", "peak", "memory", *(group.id for group in GROUPS))
"""Every row there can be."""

NOISE, UNKNOWN = "perhaps noise", "unknown"

_SLICES = 20
_MIN_SLICES = 5
_Z = 1.96
# The 0.975 quantile of Student's distribution: of fewer degrees of freedom
# where the number is not listed, so that an interval is never too narrow.
_T = (
    (1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (6, 2.447), (7, 2.365),
    (8, 2.306), (9, 2.262), (10, 2.228), (12, 2.179), (15, 2.131), (20, 2.086), (30, 2.042),
    (60, 2.000), (1000, 1.962), (math.inf, _Z),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity on both sides."""

    id: str
    name: str
    unit: str
    """"s", "bytes" or "" for a size, "share" for a share of CPU time."""
    before: float
    after: float
    change: Range | None
    """Relative to before, or in shares of CPU time; low and high are equal to
    mid where there is no interval. None where all of before is zero."""
    certain: bool
    """There is an interval, and all of it lies on one side of no change."""
    interval: bool

    @property
    def word(self) -> str:
        """Say what to think of the change."""
        if self.change is None:
            return "new" if self.after else "none"
        if self.interval and not self.certain:
            return NOISE
        # Of a share, no sample in some hundreds is not none at all.
        if self.after == 0 and self.unit != "share":
            return "gone"
        if not self.interval:
            return UNKNOWN
        return "more" if self.change.mid > 0 else "less"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides and their differences."""

    before: tuple[Report, ...]
    after: tuple[Report, ...]
    rows: tuple[Row, ...]
    whole_runs: bool

    @property
    def said(self) -> tuple[Range, Range] | None:
        """The wall time that `before` predicted to save, and that it did save.

        None where runs were not followed to their end, or the program before
        was on libzknalloc already.
        """
        wall = next((row for row in self.rows if row.id == "wall"), None)
        if wall is None or wall.change is None or any(r.measurement.library for r in self.before):
            return None
        parts = [r.estimate.saving_wall for r in self.before]
        predicted = Range(
            fmean(p.low for p in parts), fmean(p.mid for p in parts), fmean(p.high for p in parts)
        )
        change = wall.change
        return predicted, Range(-change.high, -change.mid, -change.low)


def compare(before: Sequence[Report], after: Sequence[Report]) -> Comparison:
    """Compare two sides of one or more reports each."""
    a = [r.measurement for r in before]
    b = [r.measurement for r in after]
    whole = all(m.exited for m in (*a, *b))
    return Comparison(tuple(before), tuple(after), tuple(_rows(a, b, whole=whole)), whole)


def _rows(a: list[Measurement], b: list[Measurement], *, whole: bool) -> Iterator[Row]:
    if whole:
        yield _ratio("wall", "wall time", "s", a, b, lambda m: m.duration_s)
        yield _ratio("cpu", "CPU time", "s", a, b, lambda m: m.cpu_s)
        yield _ratio("faults", "page faults", "", a, b, _faults)
    else:
        yield _rate(("cores", "cores in use"), a, b, _CPU, _WALL)
        yield _rate(("faults", "faults per CPU second"), a, b, _FAULTS, _CPU)
    yield _ratio("peak", "peak memory", "bytes", a, b, _peak)
    yield _share("memory", "memory management", a, b, MANAGING)
    for group in GROUPS:
        row = _share(group.id, f"  {group.name}", a, b, group.kinds)
        if max(row.before, row.after) >= 0.0005:
            yield row


# ------------------------------------------------------------------ statistics


@dataclass(frozen=True, slots=True)
class _Side:
    """A mean, with the variance of that mean where it is known."""

    mean: float
    variance: float | None
    freedom: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Side:
        n = len(values)
        if n < 2:
            return cls(values[0], None, 0)
        return cls(fmean(values), variance(values) / n, n - 1)


def _difference(a: _Side, b: _Side) -> tuple[Range, bool]:
    """Return the difference of two means, and whether there is an interval."""
    mid = b.mean - a.mean
    if a.variance is None or b.variance is None:
        return Range(mid, mid, mid), False
    both = a.variance + b.variance
    if both == 0:
        return Range(mid, mid, mid), True
    below = sum(s.variance**2 / s.freedom for s in (a, b) if s.variance)
    half = _student(both**2 / below if below else math.inf) * math.sqrt(both)
    return Range(mid - half, mid, mid + half), True


def _student(freedom: float) -> float:
    return next(t for n, t in reversed(_T) if n <= max(freedom, 1))


def _row(
    ids: tuple[str, str, str], values: tuple[float, float], change: Range, *, interval: bool
) -> Row:
    certain = interval and (change.low > 0 or change.high < 0)
    return Row(*ids, *values, change, certain, interval)


def _ratio(
    id_: str,
    name: str,
    unit: str,
    a: list[Measurement],
    b: list[Measurement],
    value: Callable[[Measurement], float],
) -> Row:
    sides = [[value(m) for m in side] for side in (a, b)]
    means = fmean(sides[0]), fmean(sides[1])
    if min(map(min, sides)) <= 0:
        return _row_with_zeros((id_, name, unit), *sides)
    logs = [_Side.of([math.log(v) for v in side]) for side in sides]
    return _log_row((id_, name, unit), means, *logs)


def _log_row(ids: tuple[str, str, str], values: tuple[float, float], a: _Side, b: _Side) -> Row:
    log, interval = _difference(a, b)
    change = Range(math.expm1(log.low), math.expm1(log.mid), math.expm1(log.high))
    return _row(ids, values, change, interval=interval)


def _row_with_zeros(ids: tuple[str, str, str], a: Sequence[float], b: Sequence[float]) -> Row:
    """Compare sizes some of which are zero and have no logarithm: by their difference."""
    values = fmean(a), fmean(b)
    if values[0] <= 0:
        return Row(*ids, *values, None, certain=False, interval=False)
    change, interval = _difference(_Side.of(a), _Side.of(b))
    low, mid, high = (v / values[0] for v in (change.low, change.mid, change.high))
    # No more than all of it can go.
    return _row(ids, values, Range(max(-1.0, low), mid, high), interval=interval)


def _rate(
    ids: tuple[str, str], a: list[Measurement], b: list[Measurement], over: int, under: int
) -> Row:
    """Compare a quotient of two columns of `_slices`."""
    found = [_rates(side, over, under) for side in (a, b)]
    plain = [[v for v, _ in side] for side in found]
    values = fmean(plain[0]), fmean(plain[1])
    if min(map(min, plain)) <= 0:
        return _row_with_zeros((*ids, ""), *plain)
    sides = [
        _Side.of([math.log(v) for v, _ in side])
        if len(side) > 1
        else _Side(math.log(side[0][0]), side[0][1], _SLICES - 1)
        for side in found
    ]
    return _log_row((*ids, ""), values, *sides)


def _rates(side: list[Measurement], over: int, under: int) -> list[tuple[float, float | None]]:
    """Return each measurement's quotient with the variance of its logarithm."""
    return [_jackknife(list(_slices(m)), over, under) for m in side]


def _jackknife(
    slices: list[tuple[float, float, float]], over: int, under: int
) -> tuple[float, float | None]:
    top, bottom = sum(s[over] for s in slices), sum(s[under] for s in slices)
    value = top / bottom if bottom > 0 else 0.0
    if len(slices) < _MIN_SLICES:
        return value, None
    rest = [(top - s[over], bottom - s[under]) for s in slices]
    if any(t <= 0 or u <= 0 for t, u in rest):
        return value, None
    logs = [math.log(t / u) for t, u in rest]
    n, mean = len(logs), fmean(logs)
    return value, (n - 1) / n * sum((x - mean) ** 2 for x in logs)


def _slices(m: Measurement) -> Iterator[tuple[float, float, float]]:
    """Yield page faults, CPU seconds and seconds of slices of the window."""
    last = len(m.memory) - 1
    n = min(_SLICES, last)
    ends = [m.memory[round(i * last / n)] for i in range(n + 1)] if n > 0 else []
    for p, q in pairwise(ends):
        yield (
            q.minor_faults - p.minor_faults,
            q.utime_s + q.stime_s - p.utime_s - p.stime_s,
            q.t - p.t,
        )


def _share(
    id_: str, name: str, a: list[Measurement], b: list[Measurement], kinds: Iterable[Kind]
) -> Row:
    kinds = tuple(kinds)
    sides = [_share_side([m for m in side if m.cpu_s > 0], kinds) for side in (a, b)]
    change, interval = _difference(*sides)
    return _row((id_, name, "share"), (sides[0].mean, sides[1].mean), change, interval=interval)


def _share_side(side: list[Measurement], kinds: tuple[Kind, ...]) -> _Side:
    if not side:
        return _Side(0.0, None, 0)
    values = [sum(m.classes[k].seconds for k in kinds if k in m.classes) / m.cpu_s for m in side]
    if len(side) > 1:
        return _Side.of(values)
    (m,) = side
    shares = [m.classes[k] for k in kinds if k in m.classes]
    error = math.hypot(*((s.high - s.low) / (2 * _Z * m.cpu_s) for s in shares))
    return _Side(values[0], error**2, math.inf)


def _faults(m: Measurement) -> float:
    return float(m.memory[-1].minor_faults - m.memory[0].minor_faults) if m.memory else 0.0


def _peak(m: Measurement) -> float:
    return float(m.memory[-1].hwm) if m.memory else 0.0
