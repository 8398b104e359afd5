# SPDX-License-Identifier: MIT OR Apache-2.0
"""Starts the processes that are measured: interleaved, pinned, nothing else set.

A repetition of a case is one process on each allocator, in an order that is
rotated, so that a slow minute of the machine slows all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from benches.allocators import without_settings
from benches.numpy.workloads import Case

__all__ = ["INSTALL", "LIMIT", "Failed", "Run", "run_all"]

#: The setting in which the process calls `zk_nalloc.numpy.install()` itself.
INSTALL = "numpy-install"

#: No allocator: the work alone, where a case has that (`Case.prepare_limit`).
LIMIT = "limit"

Progress = Callable[[str], None]


class Failed(Exception):
    """A process ended badly or computed something wrong."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process measured; each tuple has an element for each round."""

    case: str
    allocator: str
    repetition: int
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    faults: tuple[int, ...]
    peak_kib: int

    @property
    def warm_cpu_ns(self) -> float:
        """CPU time of a warm round; all cases have one thread, which never waits."""
        return median(self.cpu_ns[1:])

    @property
    def warm_wall_ns(self) -> float:
        """Wall time of a warm round."""
        return median(self.wall_ns[1:])

    @property
    def warm_faults(self) -> float:
        """Page faults of a warm round."""
        return mean(self.faults[1:])


def _measure(
    case: Case,
    allocator: str,
    variables: Mapping[str, str],
    repetition: int,
    *,
    seconds: float,
    min_rounds: int,
) -> Run:
    command = [sys.executable, "-m", "benches.numpy.worker", case.name]
    command += ["--seconds", str(seconds), "--min-rounds", str(min_rounds)]
    if allocator == INSTALL:
        command.append("--install")
    if allocator == LIMIT:
        command.append("--limit")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(allowed)})  # inherited; interrupts prefer the first
        done = subprocess.run(
            command,
            env=without_settings(os.environ) | dict(variables),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.sched_setaffinity(0, allowed)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Failed(f"{case.name} on {allocator}: exit status {done.returncode}: {last[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Run(
        case.name,
        allocator,
        repetition,
        tuple(found["wall_ns"]),
        tuple(found["cpu_ns"]),
        tuple(found["faults"]),
        found["peak_kib"],
    )


def run_all(
    cases: Sequence[Case],
    settings: Mapping[str, Mapping[str, str]],
    *,
    repetitions: int,
    seconds: float,
    min_rounds: int,
    progress: Progress,
) -> Iterator[Run | Failed]:
    """Run every case on every allocator and yield the results as they come.

    Parameters
    ----------
    cases
        What to run.
    settings
        The environment variables of each allocator.
    repetitions
        How many processes each pair gets.
    seconds, min_rounds
        When a process has done enough rounds.
    progress
        Is told what comes next.

    Yields
    ------
    Run or Failed
        An allocator that failed a case is not tried on it again.
    """
    for case in cases:
        names = [name for name in settings if name != LIMIT or case.prepare_limit]
        failed: set[str] = set()
        for repetition in range(repetitions):
            turn = repetition % len(names)
            for name in names[turn:] + names[:turn]:
                if name in failed:
                    continue
                progress(f"{case.name} on {name}, {repetition + 1} of {repetitions}")
                try:
                    yield _measure(
                        case,
                        name,
                        settings[name],
                        repetition,
                        seconds=seconds,
                        min_rounds=min_rounds,
                    )
                except Failed as error:
                    failed.add(name)
                    yield error
