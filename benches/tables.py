# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes a session's figures: tables for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benches.runner import LIMIT, Failure, Run
from benches.summary import Row, Summary
from benches.targets import Verdict

__all__ = [
    "LEGEND",
    "MARKDOWN",
    "case_table",
    "case_title",
    "markdown",
    "verdict_table",
    "write_csv",
    "write_json",
]

MIB = 1 << 20


def time_text(row: Row) -> str:
    """Return a row's time in the unit that suits it: of an operation, if it is made of some."""
    ns = row.steady_ns if row.per_operation_ns is None else row.per_operation_ns
    if ns < 1e3:
        return f"{ns:.1f} ns" if ns < 100 else f"{ns:.0f} ns"
    unit, scale = ("µs", 1e3) if ns < 1e6 else ("ms", 1e6)
    digits = max(0, 2 - len(str(int(ns / scale))) + 1)
    return f"{ns / scale:,.{digits}f} {unit}"


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _count(value: float | None) -> str:
    if value is None:
        return "-"
    if 0 < value < 10:
        return f"{value:.1f}"
    return f"{value:,.0f}" if value < 1e5 else f"{value / 1e3:,.0f}k"


def _cells(row: Row) -> list[str]:
    spread = (row.steady_high_ns - row.steady_low_ns) / row.steady_ns if row.steady_ns else 0.0
    cells = [
        row.subject + (" *" if row.disturbed else ""),
        time_text(row),
        f"{spread:.0%}",
        _ratio(row.to_limit),
        _ratio(row.to_best_peer),
    ]
    if row.subject == LIMIT:  # what is left to say is about the harness itself
        return [*cells, "", "", "", ""]
    memory = f"{row.peak_rss / MIB:,.0f}"
    return [*cells, _count(row.faults), _count(row.cold_faults), _count(row.syscalls), memory]


_HEADINGS = ["", "time", "±", "/limit", "/peer", "faults", "cold", "sysc", "MiB"]

LEGEND = """\
time: of a steady round, or of one operation; ±: slowest less fastest run; /limit,
/peer: ratio to the limit and to the fastest peer; faults: page faults of a steady
round; cold: of the first; sysc: system calls of a steady round; MiB: peak RSS;
*: other processes had the CPUs during many rounds."""


def case_title(rows: Sequence[Row], what: str) -> str:
    """Return the line above the table of one case.

    Parameters
    ----------
    rows
        Its rows.
    what
        The line that explains the case.
    """
    live = rows[0].live_peak / MIB
    return f"{rows[0].case}: {what}" + (f" ({live:,.0f} MiB live)" if live >= 1 else "")


def case_table(rows: Sequence[Row]) -> Table:
    """Return the table of one case; where it is too wide, names break, never figures.

    Parameters
    ----------
    rows
        Its rows.
    """
    ordered = sorted(rows, key=lambda row: (row.subject != LIMIT, row.steady_ns))
    lines = [_HEADINGS, *map(_cells, ordered)]
    table = Table(box=None, pad_edge=False)
    table.add_column(_HEADINGS[0], overflow="fold")
    for column in list(zip(*lines, strict=True))[1:]:
        width = max(map(len, column))
        table.add_column(column[0], justify="right", no_wrap=True, min_width=width)
    for line in lines[1:]:
        table.add_row(*line)
    return table


_MARKS = {True: "yes", False: "NO", None: "-"}


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    """Return the table of targets.

    Parameters
    ----------
    verdicts
        What :func:`benches.targets.judge` returned.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("target", "case", "measured", "must", "aim"):
        table.add_column(heading)
    for verdict in verdicts:
        style = "red" if verdict.must is False else ""
        table.add_row(
            verdict.target,
            verdict.case,
            verdict.figure,
            _MARKS[verdict.must],
            _MARKS[verdict.aim],
            style=style,
        )
    return table


#: What :func:`markdown` can show, with a title for each.
MARKDOWN = {
    "time": "Time of a steady round, or of one operation",
    "limit": "Ratio to the limit",
    "faults": "Page faults of a steady round",
    "cold": "Page faults of the first round",
    "rss": "Peak RSS, MiB",
}


def markdown(summary: Summary, value: str = "time") -> str:
    """Return one table for a README: a line for each case, a column for each allocator.

    Parameters
    ----------
    summary
        The figures.
    value
        A key of :data:`MARKDOWN`.
    """
    subjects = summary.subjects()
    lines = [
        "| | " + " | ".join(subjects) + " |",
        "|---" * (len(subjects) + 1) + "|",
    ]
    for case in summary.cases():
        rows = {row.subject: row for row in summary.of(case)}
        best = min((row.steady_ns for row in rows.values() if row.subject != LIMIT), default=0.0)
        cells = [_markdown_cell(rows.get(name), value, best) for name in subjects]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _markdown_cell(row: Row | None, value: str, best: float) -> str:
    if row is None:
        return "missing"
    text = {
        "time": time_text(row),
        "limit": _ratio(row.to_limit),
        "faults": _count(row.faults),
        "cold": _count(row.cold_faults),
        "rss": f"{row.peak_rss / MIB:,.0f}",
    }[value]
    return f"**{text}**" if value == "time" and row.steady_ns == best else text


def write_csv(summary: Summary, path: Path) -> None:
    """Write one line for each case and allocator.

    Parameters
    ----------
    summary
        The figures.
    path
        Where.
    """
    names = [field.name for field in dataclasses.fields(Row)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in summary.rows)


def write_json(
    summary: Summary,
    session: dict[str, Any],
    runs: Iterable[Run],
    failures: Iterable[Failure],
    verdicts: Iterable[Verdict],
    path: Path,
) -> None:
    """Write everything: the session's conditions, the figures, and each run's raw rounds.

    Parameters
    ----------
    summary
        The figures.
    session
        The conditions: machine, settings, what was missing.
    runs, failures
        The raw results.
    verdicts
        The targets; empty if the library itself was not measured.
    path
        Where.
    """
    document = {
        "schema": 1,
        **session,
        "failures": [dataclasses.asdict(failure) for failure in failures],
        "targets": [dataclasses.asdict(verdict) for verdict in verdicts],
        "summary": [dataclasses.asdict(row) for row in summary.rows],
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    path.write_text(_json_lines(document))


def _json_lines(document: dict[str, Any]) -> str:
    """Return a JSON object with a line for each element of its lists."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
