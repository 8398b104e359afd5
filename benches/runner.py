# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs cases on allocators: every run is a fresh, pinned process, and runs are interleaved.

One repetition of a case is: its limit, then each allocator, in an order that is rotated from
repetition to repetition. Whatever slows the machine for a minute thus slows all of them, and
ratios are formed within a repetition.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.allocators import REGISTRY, Found
from benches.cases import Case

__all__ = ["LIMIT", "Failure", "Plan", "Run", "Syscalls", "run_plan"]

#: The name under which runs without an allocator are recorded.
LIMIT = "limit"

#: Rounds of the two traced runs whose difference gives the system calls of a round.
_TRACED_ROUNDS = 3, 6


@dataclass(frozen=True)
class Failure:
    """A process that ended badly: nothing it measured counts.

    Attributes
    ----------
    case, subject
        What ran.
    reason
        The exit status and the last line it printed.
    """

    case: str
    subject: str
    reason: str


@dataclass(frozen=True)
class Syscalls:
    """System calls of one steady round, all threads together.

    Attributes
    ----------
    case, subject
        What ran.
    per_round
        The count; the harness's own, a constant few, are part of it.
    """

    case: str
    subject: str
    per_round: float


class _BadExitError(RuntimeError):
    pass


@dataclass(frozen=True)
class Run:
    """One process's measurements.

    Attributes
    ----------
    case, subject, repetition
        What ran: the case's name, the allocator's name or :data:`LIMIT`, and which time.
    wall_ns, cpu_ns, faults
        For each round: its duration, the CPU time of all threads, and its page faults.
    peak_rss, base_rss, live_peak
        Bytes: the process's peak, its size before the pattern began, and what the pattern
        itself had in use at most.
    operations, bytes
        Of one round.
    """

    case: str
    subject: str
    repetition: int
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    faults: tuple[int, ...]
    peak_rss: int
    base_rss: int
    live_peak: int
    operations: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What to run, and for how long.

    Attributes
    ----------
    cases
        What to measure.
    allocators
        On which allocators; all of them are there.
    programs
        For each allocator's name, and for :data:`LIMIT`, the benchmark program.
    repetitions
        How often each pair is run.
    budget_ms
        How much measured time ends a run.
    min_rounds
        How many rounds no budget cuts.
    count_syscalls
        Whether to count system calls, in further runs under strace.
    """

    cases: Sequence[Case]
    allocators: Sequence[Found]
    programs: Mapping[str, Path]
    repetitions: int
    budget_ms: int
    min_rounds: int
    count_syscalls: bool

    @property
    def steps(self) -> int:
        """How many runs this is, for a progress bar."""
        runs = self.repetitions + (2 if self.count_syscalls else 0)
        return len(self.cases) * (len(self.allocators) + 1) * runs


def _spawn(command: Sequence[str], env: Mapping[str, str], threads: int) -> str:
    """Run `command` on as many CPUs as it has threads and return its output.

    The CPUs are the last ones that this process may use, since interrupts prefer the first.
    """
    allowed = os.sched_getaffinity(0)
    cpus = set(sorted(allowed)[-threads:])
    try:
        os.sched_setaffinity(0, cpus)  # inherited by the process that starts
        process = subprocess.Popen(
            command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.sched_setaffinity(0, allowed)
    output, errors = process.communicate()
    if process.returncode != 0:
        reason = errors.strip().splitlines()[-1] if errors.strip() else "no message"
        raise _BadExitError(f"exit status {process.returncode}: {reason}")
    return output


class _Subject:
    """The limit or an allocator: how to start a case on it."""

    def __init__(self, plan: Plan, found: Found | None) -> None:
        self.found = found
        self.name = LIMIT if found is None else found.allocator.name
        self.program = str(plan.programs[self.name])
        self.env = (found or Found(REGISTRY["glibc"])).environment()

    def command(self, case: Case, *options: str) -> list[str]:
        limit = ["--limit"] if self.found is None else []
        return [self.program, *case.arguments, *limit, *options]


def _measure(subject: _Subject, case: Case, plan: Plan, repetition: int) -> Run:
    command = subject.command(
        case, "--budget-ms", str(plan.budget_ms), "--min-rounds", str(plan.min_rounds)
    )
    result: dict[str, Any] = json.loads(_spawn(command, subject.env, case.threads))
    return Run(
        case=case.name,
        subject=subject.name,
        repetition=repetition,
        wall_ns=tuple(result["wall_ns"]),
        cpu_ns=tuple(result["cpu_ns"]),
        faults=tuple(result["faults"]),
        peak_rss=result["peak_rss"],
        base_rss=result["base_rss"],
        live_peak=result["live_peak"],
        operations=result["operations"],
        bytes=result["bytes"],
    )


def _count(subject: _Subject, case: Case, rounds: int) -> int:
    """Return the system calls of a whole run of so many rounds."""
    with tempfile.NamedTemporaryFile("r", prefix="syscalls-") as summary:
        command = ["strace", "-f", "-c", "-qq", "-U", "calls,name", "-o", summary.name]
        for variable in sorted(subject.env.keys() ^ os.environ.keys()):
            # Neither what the allocator needs nor what it must not see is for strace itself.
            value = subject.env.get(variable)
            command += ["-E", variable if value is None else f"{variable}={value}"]
        command += subject.command(case, "--rounds", str(rounds), "--min-rounds", str(rounds))
        _spawn(command, os.environ, case.threads)
        table = [line.split() for line in summary.read().splitlines()]
    return sum(
        int(row[0]) for row in table if len(row) == 2 and row[0].isdigit() and row[1] != "total"
    )


def _trace_syscalls(subject: _Subject, case: Case) -> Syscalls:
    few, many = _TRACED_ROUNDS
    difference = _count(subject, case, many) - _count(subject, case, few)
    return Syscalls(case.name, subject.name, difference / (many - few))


def run_plan(plan: Plan) -> Iterator[Run | Syscalls | Failure]:
    """Run everything in `plan` and yield each result as it comes.

    An allocator that fails a case is not tried on that case again.

    Parameters
    ----------
    plan
        What to run.
    """
    subjects = [_Subject(plan, None), *(_Subject(plan, found) for found in plan.allocators)]
    for case in plan.cases:
        failed: set[str] = set()
        for repetition in range(plan.repetitions):
            turn = repetition % len(subjects)
            for subject in subjects[turn:] + subjects[:turn]:
                if subject.name in failed:
                    continue
                try:
                    yield _measure(subject, case, plan, repetition)
                except (_BadExitError, OSError) as error:
                    failed.add(subject.name)
                    yield Failure(case.name, subject.name, str(error))
        for subject in subjects if plan.count_syscalls else []:
            if subject.name in failed:
                continue
            try:
                yield _trace_syscalls(subject, case)
            except (_BadExitError, OSError) as error:
                yield Failure(case.name, subject.name, f"under strace: {error}")
