# SPDX-License-Identifier: MIT OR Apache-2.0
"""From runs to figures.

A run's *steady* rounds are the second half of its rounds; its time is their median. Its
*cold* round is the first. A round during which other processes had the CPU is *disturbed*:
with one thread, its CPU time counts, since that thread never waits; with several, the round
is left out. Over the repetitions of a case the figure is the median of the
runs' times and the spread is from the fastest to the slowest run. A ratio is formed between
runs of the same repetition, and the median of those ratios is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from benches.allocators import OWN, REGISTRY
from benches.runner import LIMIT, Run, Syscalls

__all__ = ["OWN", "Row", "Summary", "summarise"]

#: A round is disturbed if it had less than this share of its CPUs.
UNDISTURBED = 0.9


@dataclass(frozen=True)
class Row:
    """The figures of one case on one allocator, or on the limit.

    Attributes
    ----------
    case, subject
        What they are of.
    repetitions
        How many runs they come from.
    steady_ns, steady_low_ns, steady_high_ns
        Time of a steady round: median, fastest and slowest run.
    per_operation_ns
        The same for one operation; None where a round is not made of operations.
    gigabytes_per_second
        The rate at which the pattern's bytes were written or read; None where it has none.
    to_limit, to_best_peer
        Ratios of times: above 1 is slower. None where there is nothing to compare with.
    best_peer
        The peer that :attr:`to_best_peer` compares with.
    cold_ns, cold_faults
        Of the first round.
    faults
        Page faults of a steady round, the mean of a run's rounds, so that rare ones show.
    disturbed
        Whether most of the steady rounds were disturbed: the time is doubtful.
    syscalls
        System calls of a steady round beyond those of the limit; None if not counted.
    peak_rss, base_rss, live_peak
        In bytes, as in :class:`benches.runner.Run`; the largest of the runs.
    """

    case: str
    subject: str
    repetitions: int
    steady_ns: float
    steady_low_ns: float
    steady_high_ns: float
    per_operation_ns: float | None
    gigabytes_per_second: float | None
    to_limit: float | None
    to_best_peer: float | None
    best_peer: str | None
    cold_ns: float
    cold_faults: float
    faults: float
    disturbed: bool
    syscalls: float | None
    peak_rss: int
    base_rss: int
    live_peak: int


@dataclass(frozen=True)
class Summary:
    """All rows of a session, by case and allocator.

    Attributes
    ----------
    rows
        The figures.
    times
        The steady time of each repetition, for each case and allocator.
    """

    rows: Sequence[Row]
    times: Mapping[tuple[str, str], Mapping[int, float]]

    def ratio(self, case: str, subject: str, other: str) -> float | None:
        """Return how many times as long `subject` takes as `other`, or None."""
        mine, others = self.times.get((case, subject)), self.times.get((case, other))
        return _ratio(mine, others) if mine and others else None

    def row(self, case: str, subject: str) -> Row | None:
        """Return the row of `case` on `subject`, or None."""
        return next((r for r in self.rows if (r.case, r.subject) == (case, subject)), None)

    def cases(self) -> list[str]:
        """Return the names of the cases, in order."""
        return list(dict.fromkeys(row.case for row in self.rows))

    def subjects(self) -> list[str]:
        """Return the names of the allocators, in order, the limit first."""
        return list(dict.fromkeys(row.subject for row in self.rows))

    def of(self, case: str) -> list[Row]:
        """Return the rows of `case`."""
        return [row for row in self.rows if row.case == case]


def is_own(subject: str) -> bool:
    """Whether `subject` is this project's library, with whatever settings or company."""
    allocator = REGISTRY.get(subject.partition("+")[0])
    return allocator is not None and allocator.family == OWN


def is_peer(subject: str) -> bool:
    """Whether `subject` is an allocator, but not this project's library."""
    return subject.partition("+")[0] in REGISTRY and not is_own(subject)


def _ratio(mine: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """Return the median of the ratios of the repetitions that both have."""
    ratios = [mine[n] / other[n] for n in mine.keys() & other.keys() if other[n] > 0]
    return median(ratios) if ratios else None


def _steady(values: Sequence[int]) -> Sequence[int]:
    return values[len(values) // 2 :]


class _Runs:
    """The runs of one case on one subject, by repetition."""

    def __init__(self, runs: Sequence[Run], threads: int) -> None:
        self.runs = {run.repetition: run for run in runs}
        self.times: dict[int, float] = {}
        disturbed, rounds = 0, 0
        for number, run in self.runs.items():
            pairs = list(zip(_steady(run.wall_ns), _steady(run.cpu_ns), strict=True))
            calm = [wall for wall, cpu in pairs if cpu >= UNDISTURBED * threads * wall]
            rounds += len(pairs)
            disturbed += len(pairs) - len(calm)
            if threads == 1:
                self.times[number] = median(min(wall, max(cpu, 1)) for wall, cpu in pairs)
            else:
                self.times[number] = median(calm or [wall for wall, _ in pairs])
        self.disturbed = disturbed > rounds / 2

    @property
    def time(self) -> float:
        return median(self.times.values())


def summarise(
    runs: Iterable[Run], syscalls: Iterable[Syscalls], threads: dict[str, int]
) -> Summary:
    """Condense measurements.

    Parameters
    ----------
    runs
        All runs; cases and subjects appear in the result in the order of their first run,
        except that the limit comes first.
    syscalls
        All counts.
    threads
        The number of threads of each case.
    """
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run.case, {}).setdefault(run.subject, []).append(run)
    counts = {(count.case, count.subject): count.per_round for count in syscalls}
    rows = []
    times = {}
    for case, by_subject in groups.items():
        subjects = {name: _Runs(group, threads[case]) for name, group in by_subject.items()}
        peers = {name: group for name, group in subjects.items() if is_peer(name)}
        best = min(peers, key=lambda name: peers[name].time, default=None)
        for name in sorted(subjects, key=lambda name: name != LIMIT):
            times[case, name] = subjects[name].times
            rows.append(_row(case, name, subjects, best, counts, threads[case]))
    return Summary(rows, times)


def _row(
    case: str,
    name: str,
    subjects: dict[str, _Runs],
    best: str | None,
    counts: dict[tuple[str, str], float],
    threads: int,
) -> Row:
    group = subjects[name]
    runs = list(group.runs.values())
    time = group.time
    limit = subjects.get(LIMIT)
    count = counts.get((case, name))
    if count is not None:
        count = max(0.0, count - counts.get((case, LIMIT), 0.0))
    operations, size = runs[0].operations, runs[0].bytes
    return Row(
        case=case,
        subject=name,
        repetitions=len(runs),
        steady_ns=time,
        steady_low_ns=min(group.times.values()),
        steady_high_ns=max(group.times.values()),
        per_operation_ns=time * threads / operations if operations else None,
        gigabytes_per_second=size / time if size and time else None,
        to_limit=_ratio(group.times, limit.times) if limit else None,
        to_best_peer=_ratio(group.times, subjects[best].times) if best and name != LIMIT else None,
        best_peer=best if name != LIMIT else None,
        cold_ns=median(run.wall_ns[0] for run in runs),
        cold_faults=median(run.faults[0] for run in runs),
        faults=median(mean(_steady(run.faults)) for run in runs),
        disturbed=group.disturbed,
        syscalls=count,
        peak_rss=max(run.peak_rss for run in runs),
        base_rss=max(run.base_rss for run in runs),
        live_peak=max(run.live_peak for run in runs),
    )
