# SPDX-License-Identifier: MIT OR Apache-2.0
"""What libzknalloc set out to reach, checked against a session's figures.

Every target has a bound that must hold and most have one that would be good. Each is checked
on every case that it speaks of and that was measured; a target without cases or without the
allocators that it compares with is reported as not measured.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benches.runner import LIMIT
from benches.summary import OWN, Row, Summary, is_peer

__all__ = ["TARGETS", "Target", "Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """One target on one case.

    Attributes
    ----------
    target, case
        What was judged; no case if the target could not be judged at all.
    figure
        What was measured, in words.
    must, aim
        Whether each bound holds; None where there is none, or nothing was measured.
    """

    target: str
    case: str
    figure: str
    must: bool | None
    aim: bool | None = None


class _Measured:
    """One case, seen from the library's side."""

    def __init__(self, summary: Summary, case: str, own: Row) -> None:
        self.summary = summary
        self.case = case
        self.own = own
        self.peers = _peers(summary, case)
        #: The fastest peer, and how many times as long as that one the library takes.
        self.best = _fastest(summary, case)
        self.ratio = self.against(self.best)

    def against(self, other: str | None) -> float | None:
        return self.summary.ratio(self.case, OWN, other) if other else None

    @property
    def glibc(self) -> Row | None:
        return self.summary.row(self.case, "glibc")


#: A figure in words and whether it is within the two bounds; None if it cannot be formed.
_Judged = tuple[str, bool, bool | None] | None


@dataclass(frozen=True)
class Target:
    """A promise: its name, the cases it speaks of, and how to judge one of them."""

    name: str
    cases: tuple[str, ...]
    judge: Callable[[_Measured], _Judged]


#: Fewer faults a round than this are none: one stray fault in many rounds.
_NO_FAULTS = 0.5


def _peers(summary: Summary, case: str) -> list[Row]:
    return [row for row in summary.of(case) if is_peer(row.subject)]


def _fastest(summary: Summary, case: str) -> str | None:
    best = min(_peers(summary, case), key=lambda row: row.steady_ns, default=None)
    return best.subject if best else None


def _fill(m: _Measured) -> _Judged:
    if m.ratio is None or m.own.to_limit is None:
        return None
    of_limit = 1 / m.own.to_limit
    figure = f"{of_limit:.2f} of the limit, {m.ratio:.2f}x {m.best}"
    return figure, of_limit >= 0.95 and m.ratio <= 1.03, of_limit >= 0.98


def _sparse(m: _Measured) -> _Judged:
    """Compare with the peer that is best on dense memory: others are fast here only."""
    cases = m.summary.cases()
    dense = next((case for case in cases if fnmatch.fnmatch(case, "msm-100-*")), None)
    other = _fastest(m.summary, dense) if dense else None
    ratio = m.against(other)
    if ratio is None:
        return None
    gain = 1 / ratio
    aim = gain >= 5 if m.case == "burst" or m.case.endswith("-repeat") else None
    return f"{gain:.1f}x as fast as {other}, best at 100 %", gain >= 2, aim


def _no_slower(must: float, aim: float | None) -> Callable[[_Measured], _Judged]:
    def judge(m: _Measured) -> _Judged:
        if m.ratio is None:
            return None
        return f"{m.ratio:.2f}x {m.best}", m.ratio <= must, m.ratio <= aim if aim else None

    return judge


def _calloc_fill(m: _Measured) -> _Judged:
    if m.ratio is None or m.own.to_limit is None:
        return None
    figure = f"{m.ratio:.2f}x {m.best}, {m.own.to_limit:.2f}x the limit"
    return figure, m.ratio <= 1.0, m.own.to_limit <= 1.3


def _realloc(m: _Measured) -> _Judged:
    ratio = m.against("glibc-tuned")
    if ratio is None or m.own.to_limit is None:
        return None
    figure = f"{ratio:.2f}x glibc-tuned, {m.own.to_limit:.2f}x the limit"
    return figure, ratio <= 1.0, m.own.to_limit <= 1.2


def _at_own_peak(m: _Measured) -> _Judged:
    share = (m.own.peak_rss - m.own.base_rss) / m.own.live_peak
    figure = f"{m.own.faults:.1f} faults at {share:.3f}x the live peak"
    return figure, m.own.faults < _NO_FAULTS and share <= 1.05, None


def _rows(m: _Measured) -> _Judged:
    aligned = [
        value
        for row in m.peers
        if row.subject.startswith(("mimalloc", "tcmalloc"))
        and (value := m.summary.ratio(m.case, row.subject, OWN)) is not None
    ]
    if m.ratio is None or m.own.to_limit is None or not aligned:
        return None
    gain, least, of_limit = 1 / m.ratio, min(aligned), 1 / m.own.to_limit
    figure = f"{gain:.2f}x {m.best}, {least:.1f}x mimalloc/tcmalloc, {of_limit:.2f} of the limit"
    return figure, gain >= 1.25 and least >= 3, of_limit >= 0.95


def _trace(m: _Measured) -> _Judged:
    if m.ratio is None:
        return None
    none = m.own.faults < _NO_FAULTS
    figure = f"{m.own.faults:.1f} faults, {m.ratio:.2f}x {m.best}"
    return figure, none and m.ratio <= 1.03, none and m.ratio <= 1.0


def _cold(m: _Measured) -> _Judged:
    best = min(m.peers, key=lambda row: row.cold_faults, default=None)
    if best is None or not best.cold_faults:
        return None
    ratio = m.own.cold_faults / best.cold_faults
    figure = f"{m.own.cold_faults:,.0f} faults, {ratio:.2f}x {best.subject}"
    return figure, ratio <= 1.1, ratio <= 1.0


def _memory(m: _Measured) -> _Judged:
    if m.glibc is None:
        return None
    ratio = m.own.peak_rss / m.glibc.peak_rss
    return f"{ratio:.3f}x glibc", ratio <= 1.05, ratio <= 1.01


def _pass_through(m: _Measured) -> _Judged:
    own, glibc = m.own.per_operation_ns, m.glibc.per_operation_ns if m.glibc else None
    if own is None or glibc is None:
        return None
    return f"{own - glibc:+.1f} ns over glibc", own - glibc <= 2, None


def _hit(m: _Measured) -> _Judged:
    own = m.own.per_operation_ns
    return None if own is None else (f"{own:.1f} ns", own <= 40, None)


_BELOW_THRESHOLD = ("pair-60Ki", "pair-8Ki", "pair-1Ki", "pair-64", "small-mixed")

#: All targets, in the order of the report.
TARGETS = (
    Target("fill at the limit", ("fill-*",), _fill),
    Target("sparse zeroed memory", ("burst", "msm-1-*", "msm-5-*"), _sparse),
    Target("zeroed, any density", ("msm-*",), _no_slower(1.1, 1.0)),
    Target("calloc and full write", ("calloc-fill",), _calloc_fill),
    Target("realloc doubling", ("realloc-*",), _realloc),
    Target("shifting sizes", ("shifting", "replacing"), _at_own_peak),
    Target("row pass", ("rows-128", "rows-256"), _rows),
    Target("contention", ("contend-*", "handoff-*"), _no_slower(1.0, None)),
    Target("cached region", ("pair-1Mi",), _hit),
    Target("traces, steady", ("trace-*",), _trace),
    Target("traces, cold", ("trace-*",), _cold),
    Target("peak memory", ("*",), _memory),
    Target("pass-through", _BELOW_THRESHOLD, _pass_through),
)


def _judge_one(summary: Summary, target: Target) -> Iterator[Verdict]:
    for case in summary.cases():
        if not any(fnmatch.fnmatch(case, pattern) for pattern in target.cases):
            continue
        own = summary.row(case, OWN)
        judged = target.judge(_Measured(summary, case, own)) if own else None
        if judged is not None:
            yield Verdict(target.name, case, *judged)


def judge(summary: Summary, targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """Judge every target.

    Parameters
    ----------
    summary
        The figures; the library must be among them under its own name.
    targets
        What to judge.

    Returns
    -------
    list of Verdict
        At least one for each target, in order.
    """
    verdicts = []
    for target in targets:
        judged = list(_judge_one(summary, target))
        missing = Verdict(target.name, "", f"not measured: {LIMIT} and peers needed", None)
        verdicts.extend(judged or [missing])
    return verdicts
