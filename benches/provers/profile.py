# SPDX-License-Identifier: MIT OR Apache-2.0
"""Ask `zkprof PID` about the very run on glibc that is compared.

zkprof starts once the first proof is there, because a cold proof is the price
of the memory and not of the allocator.  What it predicts is then held against
what happened: the saving of libzknalloc's warm proofs over those on glibc in the same
round.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.allocators import OWN

from .pairs import cpu, pairs, ratio, wall, whole
from .report import Case, case_of
from .runner import Progress, Run, Workload
from .tools import zkprof

#: A prediction that is further off than this is a miss.
TOLERANCE = 0.05


def profile(
    workload: Workload,
    allocator: str,
    proofs: int,
    variables: Mapping[str, str],
    seconds: float,
    progress: Progress = lambda _: None,
) -> tuple[Run, dict[str, Any]]:
    """Run the prover with zkprof at its warm proofs; return the run and what zkprof said.

    The report is None where zkprof came too late, say: the run stands all the same.
    """
    command = zkprof()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "zkprof.json"
        started: list[subprocess.Popen[str]] = []

        def attach(pid: int) -> None:
            started.append(
                subprocess.Popen(
                    [command, str(pid), "-d", str(seconds), "--json", str(report)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

        run = workload.run(allocator, proofs, variables, progress, on_first_proof=attach)
        screen, _ = started[0].communicate()
        result = json.loads(report.read_text()) if report.exists() else None
    return run, {"exit_code": started[0].returncode, "screen": screen, "report": result}


@dataclass(frozen=True, slots=True)
class Profile:
    """What zkprof said of a run on glibc."""

    prover: str
    size: int
    threads: int
    slice: int
    exit_code: int
    allocator: str
    """Which one the program uses, as zkprof sees it."""
    preloadable: bool
    preload_reason: str
    overhead: float
    estimate: dict[str, Any]
    advice: list[str]

    @property
    def case(self) -> Case:
        """The group of rows that it is about."""
        return Case(self.prover, self.size, self.threads)


def read(run: Run, found: Mapping[str, Any]) -> Profile:
    """Take what matters out of what :func:`profile` returned."""
    measurement = found["report"]["measurement"]
    target = measurement["target"]
    return Profile(
        *case_of(run),
        run.slice,
        found["exit_code"],
        target["allocator"],
        target["preloadable"],
        target["preload_reason"],
        measurement["method"]["overhead"],
        found["report"]["estimate"],
        [f"{item['id']}: {item['text']}" for item in found["report"]["advice"]],
    )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What zkprof said beforehand, and what libzknalloc did; savings are shares of 1.

    Where zkprof said that preloading cannot help, it has said that nothing is saved,
    whatever an allocator within the program could save.
    """

    prover: str
    size: int
    threads: int
    verdict: str
    preloadable: bool
    cpu_low: float
    cpu_mid: float
    cpu_high: float
    cpu_happened: float
    wall_low: float
    wall_mid: float
    wall_high: float
    wall_happened: float

    @property
    def case(self) -> Case:
        """The group of rows that it is about."""
        return Case(self.prover, self.size, self.threads)

    @property
    def off(self) -> float:
        """How far outside of the predicted range the CPU saving lies."""
        return max(self.cpu_low - self.cpu_happened, self.cpu_happened - self.cpu_high, 0.0)

    @property
    def holds(self) -> bool:
        """Whether the CPU saving lies in the predicted range, give or take the tolerance.

        Wall time is shown beside it, but a machine that others share decides it.
        """
        return self.off <= TOLERANCE


def compare(said: Profile, runs: Sequence[Run]) -> Prediction | None:
    """Hold a profile against its case's runs; None where glibc's or ours are missing."""
    found = pairs(runs, OWN, "glibc") or whole(runs, OWN, "glibc")
    if not found:
        return None
    nothing = {"low": 0.0, "mid": 0.0, "high": 0.0}
    said_cpu = said.estimate["saving_cpu"] if said.preloadable else nothing
    said_wall = said.estimate["saving_wall"] if said.preloadable else nothing
    return Prediction(
        *said.case,
        verdict=said.estimate["verdict"],
        preloadable=said.preloadable,
        cpu_low=said_cpu["low"],
        cpu_mid=said_cpu["mid"],
        cpu_high=said_cpu["high"],
        cpu_happened=1 - ratio(found, cpu),
        wall_low=said_wall["low"],
        wall_mid=said_wall["mid"],
        wall_high=said_wall["high"],
        wall_happened=1 - ratio(found, wall),
    )


def table(predictions: Sequence[Prediction]) -> str:
    """Lay predictions out for 80 columns."""
    head = f"{'prover, size':22}{'zkprof says':21}{'CPU saved, said':>16}{'was':>7}{'wall':>7}"
    lines = ["What zkprof said of the run on glibc, and what happened:", head]
    for one in predictions:
        said = f"{one.cpu_low:.1%} - {one.cpu_high:.1%}" if one.preloadable else "unreachable"
        note = "" if one.holds else "  MISS"
        lines.append(
            f"{f'{one.prover} {one.size}':22}{one.verdict:21}{said:>16}"
            f"{one.cpu_happened:>7.1%}{one.wall_happened:>7.1%}{note}"
        )
    return "\n".join(lines)
