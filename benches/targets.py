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


@dataclass(frozen=True)
class Target:
    """A promise: its name, the cases it speaks of, and how to judge one of them."""

    name: str
    cases: tuple[str, ...]
    judge: Callable[[Summary, str, Row], tuple[str, bool, bool | None] | None]


_Judged = tuple[str, bool, bool | None] | None

#: Fewer faults a round than this are none: one stray fault in many rounds.
_NO_FAULTS = 0.5


def _peers(summary: Summary, case: str) -> list[Row]:
    return [row for row in summary.of(case) if is_peer(row.subject)]


def _fastest(summary: Summary, case: str) -> str | None:
    best = min(_peers(summary, case), key=lambda row: row.steady_ns, default=None)
    return best.subject if best else None


def _against(summary: Summary, case: str, other: str | None) -> float | None:
    return summary.ratio(case, OWN, other) if other else None


def _fill(summary: Summary, case: str, own: Row) -> _Judged:
    best = _fastest(summary, case)
    ratio = _against(summary, case, best)
    if ratio is None or own.to_limit is None:
        return None
    of_limit = 1 / own.to_limit
    figure = f"{of_limit:.2f} of the limit, {ratio:.2f}x {best}"
    return figure, of_limit >= 0.95 and ratio <= 1.03, of_limit >= 0.98


def _sparse(summary: Summary, case: str, own: Row) -> _Judged:
    dense = next((c for c in summary.cases() if fnmatch.fnmatch(c, "msm-100-*")), None)
    other = _fastest(summary, dense) if dense else None
    ratio = _against(summary, case, other)
    if ratio is None:
        return None
    gain = 1 / ratio
    aim = gain >= 5 if case == "burst" or case.endswith("-repeat") else None
    return f"{gain:.1f}x as fast as {other}, best at 100 %", gain >= 2, aim


def _no_slower(must: float, aim: float | None) -> Callable[[Summary, str, Row], _Judged]:
    def judge(summary: Summary, case: str, own: Row) -> _Judged:
        best = _fastest(summary, case)
        ratio = _against(summary, case, best)
        if ratio is None:
            return None
        return f"{ratio:.2f}x {best}", ratio <= must, ratio <= aim if aim else None

    return judge


def _calloc_fill(summary: Summary, case: str, own: Row) -> _Judged:
    best = _fastest(summary, case)
    ratio = _against(summary, case, best)
    if ratio is None or own.to_limit is None:
        return None
    figure = f"{ratio:.2f}x {best}, {own.to_limit:.2f}x the limit"
    return figure, ratio <= 1.0, own.to_limit <= 1.3


def _realloc(summary: Summary, case: str, own: Row) -> _Judged:
    ratio = _against(summary, case, "glibc-tuned")
    if ratio is None or own.to_limit is None:
        return None
    figure = f"{ratio:.2f}x glibc-tuned, {own.to_limit:.2f}x the limit"
    return figure, ratio <= 1.0, own.to_limit <= 1.2


def _at_own_peak(summary: Summary, case: str, own: Row) -> _Judged:
    share = (own.peak_rss - own.base_rss) / own.live_peak
    figure = f"{own.faults:.1f} faults at {share:.3f}x the live peak"
    return figure, own.faults < _NO_FAULTS and share <= 1.05, None


def _rows(summary: Summary, case: str, own: Row) -> _Judged:
    best = _fastest(summary, case)
    ratio = _against(summary, case, best)
    aligned = [
        value
        for row in _peers(summary, case)
        if row.subject.startswith(("mimalloc", "tcmalloc"))
        and (value := summary.ratio(case, row.subject, OWN)) is not None
    ]
    if ratio is None or own.to_limit is None or not aligned:
        return None
    gain, least, of_limit = 1 / ratio, min(aligned), 1 / own.to_limit
    figure = f"{gain:.2f}x {best}, {least:.1f}x mimalloc/tcmalloc, {of_limit:.2f} of the limit"
    return figure, gain >= 1.25 and least >= 3, of_limit >= 0.95


def _trace(summary: Summary, case: str, own: Row) -> _Judged:
    best = _fastest(summary, case)
    ratio = _against(summary, case, best)
    if ratio is None:
        return None
    none = own.faults < _NO_FAULTS
    figure = f"{own.faults:.1f} faults, {ratio:.2f}x {best}"
    return figure, none and ratio <= 1.03, none and ratio <= 1.0


def _cold(summary: Summary, case: str, own: Row) -> _Judged:
    best = min(_peers(summary, case), key=lambda row: row.cold_faults, default=None)
    if best is None or not best.cold_faults:
        return None
    ratio = own.cold_faults / best.cold_faults
    figure = f"{own.cold_faults:,.0f} faults, {ratio:.2f}x {best.subject}"
    return figure, ratio <= 1.1, ratio <= 1.0


def _memory(summary: Summary, case: str, own: Row) -> _Judged:
    glibc = summary.row(case, "glibc")
    if glibc is None:
        return None
    ratio = own.peak_rss / glibc.peak_rss
    return f"{ratio:.3f}x glibc", ratio <= 1.05, ratio <= 1.01


def _pass_through(summary: Summary, case: str, own: Row) -> _Judged:
    glibc = summary.row(case, "glibc")
    if glibc is None or own.per_operation_ns is None or glibc.per_operation_ns is None:
        return None
    extra = own.per_operation_ns - glibc.per_operation_ns
    return f"{extra:+.1f} ns over glibc", extra <= 2, None


def _hit(summary: Summary, case: str, own: Row) -> _Judged:
    if own.per_operation_ns is None:
        return None
    return f"{own.per_operation_ns:.1f} ns", own.per_operation_ns <= 40, None


_BELOW_THRESHOLD = ("pair-60Ki", "pair-8Ki", "pair-1Ki", "pair-64", "small-mixed")

#: All targets, in the order of the report.
TARGETS = (
    Target("fill at the limit", ("fill-*",), _fill),
    Target("sparse zeroed memory", ("burst", "msm-1-*", "msm-5-*"), _sparse),
    Target("zeroed, any density", ("msm-*",), _no_slower(1.1, 1.0)),
    Target("calloc and full write", ("calloc-fill",), _calloc_fill),
    Target("realloc doubling", ("realloc-doubling",), _realloc),
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
        judged = target.judge(summary, case, own) if own else None
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
