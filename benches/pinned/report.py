# SPDX-License-Identifier: MIT OR Apache-2.0
"""Medians, ratios, the table and the JSON.

A figure is the median over processes of the median over their warm rounds. A ratio is formed
between processes of one repetition, and the median of those is given.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table

from benches import machine
from benches.pinned.runner import PARTS, Failed, Run

__all__ = ["LEGEND", "LIMIT", "Row", "document", "probe_table", "summarise", "table"]

#: The way that ratios are to.
LIMIT = "pool"

#: The way that this benchmark is about.
OWN = "zknalloc-hooks"

LEGEND = """\
ms of a warm round, ±: slowest less fastest process; take to give: its parts;
GB/s: bytes over the time of the copies; flt: page faults of a warm round;
first: the first round, and what the way did before it; MiB: resident memory
added (pinned memory of a driver's own may not count there); /pool: ratio to
buffers that were pinned before the clock ran."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way. Times in milliseconds."""

    way: str
    processes: int
    warm_rounds: int
    wall_ms: float
    spread: float
    """Slowest less fastest process, over the median."""
    parts_ms: dict[str, float]
    copy_gb_s: float
    faults: float
    first_ms: float
    added_rss: float
    registrations: float
    registered_bytes: float
    to_pool: float | None


def summarise(runs: Sequence[Run]) -> list[Row]:
    """Reduce runs to a row for each way, in their order."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.repetition):
        groups.setdefault(run.way, []).append(run)
    pool = {run.repetition: run.warm("wall_ns") for run in groups.get(LIMIT, [])}
    return [_row(group, pool) for group in groups.values()]


def _row(runs: Sequence[Run], pool: dict[int, float]) -> Row:
    walls = [run.warm("wall_ns") for run in runs]
    ratios = [run.warm("wall_ns") / pool[run.repetition] for run in runs if run.repetition in pool]

    def process(key: str) -> float:
        return float(median(run.process[key] for run in runs))

    return Row(
        way=runs[0].way,
        processes=len(runs),
        warm_rounds=sum(len(run.rounds) - 1 for run in runs),
        wall_ms=median(walls) / 1e6,
        spread=(max(walls) - min(walls)) / median(walls),
        parts_ms={part: median(run.warm(f"{part}_ns") for run in runs) / 1e6 for part in PARTS},
        copy_gb_s=median(run.process["bytes"] / run.warm("copy_ns") for run in runs),
        faults=median(run.warm("faults") for run in runs),
        first_ms=median(run.rounds[0]["wall_ns"] + run.process["start_ns"] for run in runs) / 1e6,
        added_rss=median(run.process["peak_rss"] - run.process["base_rss"] for run in runs),
        registrations=process("registrations"),
        registered_bytes=process("registered_most"),
        to_pool=median(ratios) if ratios else None,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def table(rows: Sequence[Row]) -> Table:
    """Lay the rows out for 80 columns."""
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    headings = ("", "ms", "±", *PARTS, "GB/s", "flt", "first", "MiB", "/pool")
    for heading in headings:
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.way,
            _number(row.wall_ms),
            f"{row.spread:.0%}",
            *(_number(row.parts_ms[part]) for part in PARTS),
            f"{row.copy_gb_s:.1f}",
            f"{row.faults:.0f}" if row.faults < 1e4 else f"{row.faults / 1e3:.0f}k",
            _number(row.first_ms),
            f"{row.added_rss / (1 << 20):.0f}",
            "-" if row.to_pool is None else f"{row.to_pool:.2f}",
            style="bold" if row.way == OWN else "",
        )
    return shown


def probe_table(answers: Sequence[dict[str, str]]) -> Table:
    """Lay the driver's answers out."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("the driver")
    shown.add_column("answers")
    for answer in answers:
        shown.add_row(answer["probe"], answer["answer"].removeprefix("CUDA_ERROR_"))
    return shown


def document(
    runs: Sequence[Run],
    failures: Sequence[Failed],
    answers: Sequence[dict[str, str]],
    sizes: Sequence[int],
) -> dict[str, Any]:
    """Return everything that was measured, and under which conditions."""
    return {
        "schema": 1,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "device": runs[0].process["device"] if runs else None,
        "driver": runs[0].process["driver"] if runs else None,
        "sizes": list(sizes),
        "probe": list(answers),
        "failures": [asdict(failure) for failure in failures],
        "rows": [asdict(row) for row in summarise(runs)],
        "runs": [asdict(run) for run in runs],
    }
