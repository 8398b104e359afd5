# SPDX-License-Identifier: MIT OR Apache-2.0
"""The cases: a pattern of the C program with the threads or the trace that it runs on."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches import traces
from benches.build import Pattern

__all__ = ["Case", "UnknownCaseError", "all_cases", "select"]

REPLAY = "replay"


class UnknownCaseError(ValueError):
    """A name or wildcard that no case matches."""


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes
    ----------
    name, what
        What the user types, and a line that explains it.
    arguments
        The program's arguments.
    threads
        How many CPUs it is pinned to.
    operations, bytes
        As in :class:`benches.build.Pattern`, for all threads together.
    """

    name: str
    what: str
    arguments: tuple[str, ...]
    threads: int
    operations: int = 0
    bytes: int = 0

    @property
    def is_trace(self) -> bool:
        """Whether this replays a recorded prover."""
        return self.arguments[0] == REPLAY


def _thread_counts(cpus: int) -> list[int]:
    """Return 1, 2, 4, … and at last `cpus`."""
    counts = [1]
    while counts[-1] * 2 < cpus:
        counts.append(counts[-1] * 2)
    return counts if cpus == 1 else [*counts, cpus]


def _trace_cases(path: Path, folder: Path) -> list[Case]:
    trace = traces.load(path)
    ready = folder / f"{trace.name}.trace"
    traces.write(trace, ready)
    arguments = (REPLAY, "--trace", str(ready))
    name = f"trace-{trace.name}"
    what = f"replay of {path.name}"
    cases = [Case(name, f"{what}, one thread", (*arguments, "--threads", "1"), 1)]
    if trace.threads > 1:
        what = f"{what}, {trace.threads} threads as recorded"
        cases.append(Case(f"{name}-mt", what, arguments, trace.threads))
    return cases


def all_cases(
    patterns: Sequence[Pattern], recordings: Iterable[Path], folder: Path, cpus: int
) -> list[Case]:
    """Return every case that this machine can run.

    Parameters
    ----------
    patterns
        What the program offers.
    recordings
        Traces to replay.
    folder
        Where prepared traces are written.
    cpus
        How many CPUs there are: the most threads of any case but a replay.
    """
    cases = []
    for pattern in patterns:
        if pattern.name == REPLAY:
            continue
        if pattern.threads:
            arguments: tuple[str, ...] = (pattern.name,)
            counts = [pattern.threads]
        else:
            counts = _thread_counts(cpus)
        for threads in counts:
            name = pattern.name
            if not pattern.threads:
                name = f"{pattern.name}-t{threads}"
                arguments = (pattern.name, "--threads", str(threads))
                if pattern.name == "handoff" and threads % 2:
                    continue
            scale = 1 if pattern.threads else threads
            cases.append(
                Case(
                    name,
                    pattern.what,
                    arguments,
                    threads,
                    pattern.operations * scale,
                    pattern.bytes * scale,
                )
            )
    folder.mkdir(parents=True, exist_ok=True)
    for path in recordings:
        cases.extend(_trace_cases(path, folder))
    return cases


def select(cases: Sequence[Case], wanted: Sequence[str]) -> list[Case]:
    """Return the cases that any of the names or wildcards in `wanted` matches, in their order.

    Parameters
    ----------
    cases
        To choose from.
    wanted
        Names, beginnings of names up to a dash (``fill``), or wildcards (``msm-*-repeat``);
        empty for all.

    Raises
    ------
    UnknownCaseError
        If one of them matches nothing.
    """
    if not wanted:
        return list(cases)
    chosen = set()
    for pattern in wanted:
        matches = {
            case.name
            for case in cases
            if fnmatch.fnmatchcase(case.name, pattern) or case.name.startswith(pattern + "-")
        }
        if not matches:
            known = ", ".join(case.name for case in cases)
            raise UnknownCaseError(f"no case matches {pattern!r}; there are: {known}")
        chosen |= matches
    return [case for case in cases if case.name in chosen]
