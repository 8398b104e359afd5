# SPDX-License-Identifier: MIT OR Apache-2.0
"""Comparisons as text and as JSON (the schema `zkprof-compare/1`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .compare import NOISE, UNKNOWN
from .estimate import percent
from .text import clean, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from .compare import Comparison, Row
    from .report import Report

SCHEMA = "zkprof-compare/1"

_FEW = 4
_STYLES = {"more": "bold red", "less": "bold green", "gone": "bold green"}
SIGNS = {NOISE: "~", UNKNOWN: "?"}


def dump(found: Comparison) -> str:
    """Return a comparison as the text of a JSON file."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "before": [_who(r) for r in found.before],
        "after": [_who(r) for r in found.after],
        "whole_runs": found.whole_runs,
        "rows": [
            {
                "id": row.id,
                "name": row.name.strip(),
                "unit": row.unit,
                "before": row.before,
                "after": row.after,
                "change": None
                if row.change is None
                else {"low": row.change.low, "mid": row.change.mid, "high": row.change.high},
                "interval": row.interval,
                "certain": row.certain,
            }
            for row in found.rows
        ],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def screen(found: Comparison) -> RenderableType:
    """Return a comparison as it is shown."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", width=24)
    for name, width in (("before", 10), ("after", 10), ("change", 8)):
        table.add_column(name, justify="right", width=width)
    table.add_column("[95 %]", style="dim", width=18)
    table.add_column("", width=4)
    for row in found.rows:
        word = row.word
        table.add_row(row.name, *cells(row), Text(SIGNS.get(word, word), _STYLES.get(word, "dim")))
    lines = [Text(line) for line in notes(found)]
    return Group(_heading(found), Text(), table, Text(), *lines)


def cells(row: Row) -> tuple[str, str, str, str]:
    """Return both values, the change, and its interval as text."""
    values = value(row, row.before), value(row, row.after)
    if row.change is None:
        return *values, "", ""
    change = row.change
    if not row.interval:
        return *values, _change(row, change.mid), ""
    low, high = _change(row, change.low), _change(row, change.high)
    return *values, _change(row, change.mid), f"{low.removesuffix(' pt')} to {high}"


def value(row: Row, of: float) -> str:
    """Return one side's value as text."""
    if row.unit == "share":
        return f"{of:.1%}"
    if row.unit == "bytes":
        return size(of)
    return f"{of:.2f} s" if row.unit == "s" else f"{of:,.0f}" if of >= 100 else f"{of:.2f}"


def notes(found: Comparison, signs: Mapping[str, str] = SIGNS) -> Iterator[str]:
    """Yield what is to be said about a comparison as a whole, in sentences.

    Parameters
    ----------
    found
        The comparison.
    signs
        How words for what is not certain are written in its table.
    """
    before, after = verdicts(found.before), verdicts(found.after)
    yield f"Verdict: {before}" + ("." if before == after else f" before, {after} after.")
    if said := found.said:
        predicted, measured = said
        text = f"Predicted before: {percent(predicted.mid)} of wall time "
        text += f"[{percent(predicted.low)} to {percent(predicted.high)}]; saved: "
        yield f"{text}{percent(measured.mid)}."
    words = {row.word for row in found.rows}
    if NOISE in words:
        yield f"{signs[NOISE]}: no change at all lies within the interval."
    if UNKNOWN in words:
        yield (
            f"{signs[UNKNOWN]}: one run says nothing about the next; "
            "give several reports a side (--to)."
        )
    if found.whole_runs and 1 < min(len(found.before), len(found.after)) < _FEW:
        yield f"Few runs give wide intervals: {_FEW} or more a side narrow them."
    if len(found.before) == 1 or len(found.after) == 1:
        yield "Intervals are from within one window a side; runs may differ by more."
    if not found.whole_runs:
        yield "These are windows, not whole runs: total times cannot be compared."


def verdicts(reports: Sequence[Report]) -> str:
    """Return the verdicts of a side, each once."""
    return " / ".join(dict.fromkeys(str(r.estimate.verdict) for r in reports))


def who(reports: Sequence[Report]) -> str:
    """Say what a side is."""
    m = reports[0].measurement
    name = f"{clean(m.target.comm)} {m.target.pid}"
    seconds = f"{sum(r.measurement.duration_s for r in reports):.1f} s"
    return f"{name}, {seconds}" if len(reports) == 1 else f"{name}, {len(reports)} runs, {seconds}"


def _who(report: Report) -> dict[str, Any]:
    m = report.measurement
    return {
        "pid": m.target.pid,
        "comm": m.target.comm,
        "duration_s": m.duration_s,
        "verdict": str(report.estimate.verdict),
    }


def _heading(found: Comparison) -> Text:
    return Text.assemble(
        ("zkprof compare\n", "bold"),
        f"  before  {who(found.before)}\n  after   {who(found.after)}",
    )


def _change(row: Row, change: float) -> str:
    return f"{_signed(change)[:-1]} pt" if row.unit == "share" else _signed(change)


def _signed(change: float) -> str:
    return f"{100 * change:+.1f}%"
