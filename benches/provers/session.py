# SPDX-License-Identifier: MIT OR Apache-2.0
"""Measure a list of steps: install, make keys, run, tell, keep.

A step is one process.  The steps of a case are interleaved: every allocator
once, then every allocator again, the other way round, so that a slow spell of the
machine hits all.
Where an allocator cannot serve a prover (a crate, and a prover that cargo does
not build) there is no step, because there can be no row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from benches.allocators import Found

from . import profile, report
from .progress import Durations, Step
from .record import record
from .registry import PROVERS, Prover
from .report import Case
from .runner import Run, RunFailed, Workload
from .store import Results, Slice, now
from .tools import Cargo, CSources, InstallFailed, Missing


@dataclass(slots=True)
class Session:
    """One invocation: what it is to do, what came of it."""

    console: Console
    cache: Path
    results: Results
    slice: Slice
    durations: Durations
    out: Path | None
    zkprof_seconds: float | None
    """How long zkprof looks at a run on glibc; None for not at all."""
    ready: dict[Case, Workload] = field(default_factory=dict)

    def note(self, kind: dict[str, str], name: str, error: Exception) -> None:
        """Record and show why a row will not be there."""
        kind[name] = str(error)
        label = "missing" if kind is self.slice.missing else "failed"
        self.say(f"{label}: {name}: {error}")

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, soft_wrap=True)

    def workload(self, case: Case) -> Workload | None:
        """Install a prover and make its keys; None where that failed, which is told."""
        prover = PROVERS[case.prover]
        if case in self.ready:
            return self.ready[case]
        try:
            with self.status() as status:
                show(status, f"installing {prover.title}")
                workload = Workload(
                    prover,
                    prover.tool.install(self.cache),
                    case.size,
                    case.threads,
                    self.cache.resolve() / "data" / prover.name,
                )
                show(status, f"{prover.name} {case.size}: keys and circuits")
                workload.prepare()
        except Missing as error:
            self.note(self.slice.missing, prover.name, error)
            return None
        except (InstallFailed, RunFailed) as error:
            self.note(self.slice.failed, prover.name, error)
            return None
        self.ready[case] = workload
        return workload

    def status(self) -> AbstractContextManager[Status | None]:
        """Return a line that changes, where somebody is watching."""
        return self.console.status("") if self.console.is_terminal else nullcontext()

    def record(self, case: Case, proofs: int, folder: Path) -> None:
        """Record a prover's allocations instead of measuring it."""
        workload = self.workload(case)
        if workload is None:
            return
        try:
            with self.status() as status:
                line = record(workload, proofs, folder, lambda text: show(status, text))
            self.say(line)
        except Missing as error:
            self.note(self.slice.missing, case.prover, error)
        except RunFailed as error:
            self.note(self.slice.failed, case.prover, error)

    def measure(self, steps: list[Step], settings: Mapping[str, Found]) -> None:
        """Run the steps; show and keep the table of each case once it is whole."""
        left = len(steps)
        self.say(f"{left} processes, {self.durations.text(steps)}")
        position = 0
        for case, group in groupby(steps, key=lambda step: step.case):
            own = list(group)
            workload = self.workload(case)
            for step in own if workload else []:
                assert workload is not None
                self.run(step, workload, settings[step.allocator])
                remaining = steps[position + own.index(step) + 1 :]
                if remaining:
                    self.say(f"  {self.durations.text(remaining)} left")
                self.keep()
            position += len(own)
            self.show(case)

    def run(self, step: Step, workload: Workload, found: Found) -> None:
        """Run one process and add what it measured."""
        name = step.allocator
        label = f"{step.case.prover} {step.case.size} on {name}"
        if label in self.slice.failed:
            return
        number = len(self.results.slices) - 1
        try:
            one, variables = adapted(workload, found, self.cache)
            with self.status() as status:
                tell = lambda text: show(status, text)  # noqa: E731
                if self.zkprof_seconds is not None and self.unprofiled(step):
                    run, said = profile.profile(
                        one, name, step.proofs, variables, self.zkprof_seconds, tell
                    )
                    self.profiled(replace(run, slice=number), said)
                else:
                    run = one.run(name, step.proofs, variables, tell)
        except (Missing, InstallFailed, RunFailed) as problem:
            self.note(self.slice.failed, label, problem)
            return
        self.results.runs.append(replace(run, slice=number))
        self.durations.note(run)
        warm = [proof.wall_s for proof in run.warm]
        times = " ".join(f"{wall:.2f}" for wall in warm)
        self.say(f"{label}, process {step.number + 1}: {times} s")

    def unprofiled(self, step: Step) -> bool:
        """Whether zkprof is to look at this process: a case's first on glibc."""
        seen = (one.case for one in self.results.profiles)
        return step.allocator == "glibc" and step.case not in seen

    def profiled(self, run: Run, said: dict[str, Any]) -> None:
        """Keep what zkprof said of a run."""
        if said["report"] is None:
            late = RunFailed(f"no report: {said['screen'].strip()}")
            self.note(self.slice.failed, f"zkprof of {run.prover} {run.size}", late)
            return
        self.results.add_profile(profile.read(run, said))
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / f"zkprof-{run.prover}-{run.size}.json"
            path.write_text(json.dumps(said["report"]) + "\n")

    def keep(self) -> None:
        """Write what is known so far."""
        self.slice.ended = now()
        if self.out is not None:
            self.results.save(self.out)

    def show(self, case: Case) -> None:
        """Print the table of one case, of earlier slices too."""
        runs = report.of_case(self.results.runs, case)
        if not runs:
            return
        self.console.print(report.table(report.summarise(runs), runs[0].what))
        own = [one for one in self.results.predictions() if one.case == case]
        if own:
            self.say(profile.table(own))


def show(status: Status | None, text: str) -> None:
    """Change the line that is watched."""
    if status is not None:
        status.update(escape(text))


def serves(found: Found, prover: Prover) -> bool:
    """Whether an allocator can be this prover's at all."""
    crate = found.allocator.crate
    return crate is None or (isinstance(prover.tool, Cargo) and crate in prover.tool.ALLOCATORS)


def adapted(workload: Workload, found: Found, cache: Path) -> tuple[Workload, dict[str, str]]:
    """Build the program that the allocator needs: most need none of their own.

    A crate is the allocator only of programs that are built with it. And where our
    library is to be preloaded into a program that can link it, it is linked.
    """
    tool, variables = workload.prover.tool, found.variables()
    if found.allocator.crate is not None:
        assert isinstance(tool, Cargo), "serves() was asked"
        return replace(workload, installed=tool.on(cache, found.allocator.crate)), variables
    preload = Path(variables.get("LD_PRELOAD", ""))
    if isinstance(tool, CSources) and preload.name == "libzknalloc_preload.so":
        del variables["LD_PRELOAD"]
        return replace(workload, installed=tool.linked(cache, preload)), variables
    return workload, variables


def plan(
    cases: Iterable[Case],
    settings: Mapping[str, Found],
    proofs: int | None,
    rounds: int,
    results: Results,
    *,
    complete: bool,
) -> list[Step]:
    """Return the processes to run, those of a case interleaved.

    Every other round runs backwards: a machine that slows down hits both ends alike.
    With `complete`, `rounds` counts the processes that there are already.
    """
    steps = []
    for case in cases:
        prover = PROVERS[case.prover]
        own = [name for name, found in settings.items() if serves(found, prover)]
        there = {name: results.processes(case, name) for name in own}
        for number in range(max(there.values(), default=0) + rounds):
            for name in own if number % 2 == 0 else reversed(own):
                last = rounds if complete else there[name] + rounds
                if there[name] <= number < last:
                    steps.append(Step(case, name, number, proofs or prover.proofs))
    return steps
