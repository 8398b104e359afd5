# SPDX-License-Identifier: MIT OR Apache-2.0
"""Ask `zkprof PID` about the very run on glibc that is compared.

zkprof starts once the first proof is there, because a cold proof is the price
of the memory and not of the allocator.  What it predicts is then held against
what happened: the saving of libzknalloc's warm proofs over those of that run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .report import Summary
from .runner import Progress, Run, Workload
from .tools import Missing

#: A prediction that is further off than this is a miss.
TOLERANCE = 0.05


def command() -> str:
    """Return the zkprof to call: beside this Python, else on PATH."""
    beside = Path(sys.executable).with_name("zkprof")
    found = str(beside) if beside.exists() else shutil.which("zkprof")
    if found is None:
        raise Missing("zkprof is not installed: pip install .")
    return found


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
    zkprof = command()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "zkprof.json"
        started: list[subprocess.Popen[str]] = []

        def attach(pid: int) -> None:
            started.append(
                subprocess.Popen(
                    [zkprof, str(pid), "-d", str(seconds), "--json", str(report)],
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
class Prediction:
    """What zkprof said beforehand, and what libzknalloc did; savings are shares of 1."""

    prover: str
    size: int
    verdict: str
    cpu_low: float
    cpu_mid: float
    cpu_high: float
    cpu_happened: float
    wall_low: float
    wall_mid: float
    wall_high: float
    wall_happened: float

    @property
    def holds(self) -> bool:
        """Whether the CPU saving lies in the predicted range, give or take the tolerance.

        Wall time is shown beside it, but a machine that others share decides it.
        """
        return self.cpu_low - TOLERANCE <= self.cpu_happened <= self.cpu_high + TOLERANCE


def compare(run: Run, profiled: Mapping[str, Any], ours: Summary) -> Prediction:
    """Hold the profile of a run on glibc against our row of the same prover."""
    warm = run.proofs[1:]
    cpu = median(proof.user_s + proof.sys_s for proof in warm)
    wall = median(proof.wall_s for proof in warm)
    estimate = profiled["report"]["estimate"]
    said_cpu, said_wall = estimate["saving_cpu"], estimate["saving_wall"]
    return Prediction(
        prover=run.prover,
        size=run.size,
        verdict=estimate["verdict"],
        cpu_low=said_cpu["low"],
        cpu_mid=said_cpu["mid"],
        cpu_high=said_cpu["high"],
        cpu_happened=1 - ours.cpu_s / cpu,
        wall_low=said_wall["low"],
        wall_mid=said_wall["mid"],
        wall_high=said_wall["high"],
        wall_happened=1 - ours.wall_s / wall,
    )


def table(predictions: Sequence[Prediction]) -> str:
    """Lay predictions out for 80 columns."""
    head = f"{'prover':14}{'zkprof says':22}{'CPU saved, said':>17}{'was':>7}{'wall was':>10}"
    lines = ["What zkprof said of the run on glibc, and what happened:", head]
    for one in predictions:
        said = f"{one.cpu_low:.1%} - {one.cpu_high:.1%}"
        note = "" if one.holds else "  MISS"
        lines.append(
            f"{one.prover:14}{one.verdict:22}{said:>17}{one.cpu_happened:>7.1%}"
            f"{one.wall_happened:>10.1%}{note}"
        )
    return "\n".join(lines)
