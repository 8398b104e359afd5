# SPDX-License-Identifier: MIT OR Apache-2.0
"""Medians, ratios, the table, CSV and JSON.

A figure is the median over processes of the median over their warm rounds.  A
ratio is formed between processes of one repetition, which ran one after the
other, and the median of those is given.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TextIO

import numpy as np
from rich.table import Table

from benches import machine
from benches.numpy.runner import INSTALL, LIMIT, Run
from benches.numpy.workloads import CASES

__all__ = ["BASE", "LEGEND", "Row", "Verdict", "document", "judge", "summarise", "table"]

#: What ratios are to: NumPy as it comes, on glibc.
BASE = "glibc"

LEGEND = """\
ms: CPU time of a warm round; ±: how far processes were apart; speed: glibc's
time over this, 1.50 is half as fast again; faults: page faults of a warm round;
cold: of the first; peak: resident MiB, Python and input included; limit: the
same work on arrays that are there already, which no allocator can beat."""

BIG = 32 << 20
MUST_GAIN = 1.5
MUST_NOT_LOSE = 1 / 1.02


@dataclass(frozen=True, slots=True)
class Row:
    """One case on one allocator."""

    case: str
    allocator: str
    processes: int
    rounds: int
    cpu_ms: float
    wall_ms: float
    spread: float
    """Slowest less fastest process, over the median."""
    speed: float | None
    """Time on glibc over this; None where glibc was not run."""
    faults: float
    cold_faults: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a case met its target."""

    case: str
    target: str
    speed: float
    limit: float | None
    """The speed of the limit, where the case has one."""
    met: bool


def summarise(runs: Sequence[Run]) -> list[Row]:
    """Reduce runs to a row for each case and allocator, in their order."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.case, run.allocator), []).append(run)
    return [_row(group, groups.get((case, BASE), [])) for (case, _), group in groups.items()]


def _row(runs: Sequence[Run], base: Sequence[Run]) -> Row:
    times = [run.warm_cpu_ns for run in runs]
    of_base = {run.repetition: run.warm_cpu_ns for run in base}
    ratios = [of_base[r.repetition] / r.warm_cpu_ns for r in runs if r.repetition in of_base]
    return Row(
        case=runs[0].case,
        allocator=runs[0].allocator,
        processes=len(runs),
        rounds=sum(len(run.cpu_ns) - 1 for run in runs),
        cpu_ms=median(times) / 1e6,
        wall_ms=median(run.warm_wall_ns for run in runs) / 1e6,
        spread=(max(times) - min(times)) / median(times),
        speed=median(ratios) if ratios else None,
        faults=median(run.warm_faults for run in runs),
        cold_faults=median(run.faults[0] for run in runs),
        peak_mib=median(run.peak_kib for run in runs) / 1024,
    )


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Compare the library's speed with what is wanted of it."""
    found = []
    limits = {row.case: row.speed for row in rows if row.allocator == LIMIT}
    for row in rows:
        if row.allocator != INSTALL or row.speed is None:
            continue
        big = CASES[row.case].temporaries >= BIG
        target = f">= {MUST_GAIN}" if big else f">= {MUST_NOT_LOSE:.2f}"
        met = row.speed >= (MUST_GAIN if big else MUST_NOT_LOSE)
        found.append(Verdict(row.case, target, row.speed, limits.get(row.case), met))
    return found


def table(rows: Sequence[Row]) -> Table:
    """Lay the rows of one case out for 80 columns, the fastest first."""
    shown = Table(box=None, pad_edge=False)
    for heading in ("", "ms", "±", "speed", "faults", "cold", "peak"):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in sorted(rows, key=lambda row: row.cpu_ms):
        shown.add_row(
            row.allocator,
            f"{row.cpu_ms:,.2f}",
            f"{row.spread:.0%}",
            "-" if row.speed is None else f"{row.speed:.2f}",
            f"{row.faults:,.0f}",
            f"{row.cold_faults:,.0f}",
            f"{row.peak_mib:,.0f}",
            style="bold" if row.allocator == INSTALL else "",
        )
    return shown


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Lay the targets out."""
    shown = Table(box=None, pad_edge=False)
    for heading in ("target", "speed wanted", "measured", "limit", ""):
        shown.add_column(heading)
    for verdict in verdicts:
        shown.add_row(
            verdict.case,
            verdict.target,
            f"{verdict.speed:.2f}",
            "" if verdict.limit is None else f"{verdict.limit:.2f}",
            "" if verdict.met else "missed",
            style="" if verdict.met else "red",
        )
    return shown


def write_csv(rows: Sequence[Row], file: TextIO) -> None:
    """Write a line for each row."""
    writer = csv.DictWriter(file, list(Row.__slots__))
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)


def document(
    runs: Sequence[Run],
    rows: Sequence[Row],
    settings: Mapping[str, Mapping[str, str]],
    notes: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Return everything that was measured, and under which conditions."""
    return {
        "schema": 1,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "numpy": np.__version__,
        "settings": {name: dict(variables) for name, variables in settings.items()},
        **notes,
        "targets": [asdict(verdict) for verdict in judge(rows)],
        "rows": [asdict(row) for row in rows],
        "runs": [asdict(run) for run in runs],
    }
