# SPDX-License-Identifier: MIT OR Apache-2.0
"""Draws a session's figures, as PNG and SVG."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benches.runner import LIMIT
from benches.summary import Row, Summary, is_own

__all__ = ["draw"]

matplotlib.rcParams["svg.hashsalt"] = "benches"  # the same figures give the same file

_OWN_COLOUR = "#c8102e"
_LIMIT_COLOUR = "#222222"
_MIB = 1 << 20


def _colours(subjects: Sequence[str]) -> dict[str, object]:
    palette = matplotlib.colormaps["tab20"]
    colours: dict[str, object] = {}
    for index, name in enumerate(subjects):
        colours[name] = palette(index % 20)
        if is_own(name):
            colours[name] = _OWN_COLOUR
        if name == LIMIT:
            colours[name] = _LIMIT_COLOUR
    return colours


def _bars(
    axes: Axes, summary: Summary, cases: Sequence[str], value: Callable[[Row], float | None]
) -> None:
    """Draw a group of bars for each case, one bar for each allocator."""
    subjects = [name for name in summary.subjects() if name != LIMIT]
    colours = _colours(subjects)
    width = 0.8 / max(1, len(subjects))
    for index, name in enumerate(subjects):
        for place, case in enumerate(cases):
            row = summary.row(case, name)
            height = value(row) if row else None
            if height is not None:
                axes.bar(place + (index + 0.5) * width - 0.4, height, width, color=colours[name])
        axes.bar(0, 0, color=colours[name], label=name)  # an entry of the legend
    axes.set_xticks(range(len(cases)), cases, rotation=30, ha="right", fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _figure(title: str, label: str, width: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(label)
    return figure, axes


def _patterns(summary: Summary) -> Figure | None:
    cases = [
        case
        for case in summary.cases()
        if case.startswith(("fill", "fri", "calloc", "realloc", "shifting", "replacing", "msm"))
    ]
    if not cases:
        return None
    figure, axes = _figure("Patterns: a steady round", "time / limit", 3 + 0.7 * len(cases))
    _bars(axes, summary, cases, lambda row: row.to_limit)
    axes.set_yscale("log")
    axes.axhline(1, color=_LIMIT_COLOUR, linewidth=1)
    axes.legend(fontsize=7, ncols=2)
    return figure


def _traces(summary: Summary) -> Figure | None:
    cases = [case for case in summary.cases() if case.startswith("trace-")]
    if not cases:
        return None
    figure = Figure(figsize=(4 + 1.5 * len(cases), 7.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.set_title("Recorded provers, replayed", fontsize=10)
    above.set_ylabel("steady round, ms")
    above.set_yscale("log")
    _bars(above, summary, cases, lambda row: row.steady_ns / 1e6)
    above.legend(fontsize=7, ncols=3)
    below.set_ylabel("peak RSS / peak of live bytes")
    _bars(below, summary, cases, lambda row: row.peak_rss / row.live_peak)
    below.axhline(1, color=_LIMIT_COLOUR, linewidth=1)
    return figure


def _lines(
    summary: Summary, pattern: str, title: str, label: str, value: Callable[[Row], float | None]
) -> Figure | None:
    """Draw a line for each allocator over the number that `pattern` finds in the case."""
    places = {
        case: int(found[1]) for case in summary.cases() if (found := re.fullmatch(pattern, case))
    }
    if len(places) < 2:
        return None
    figure, axes = _figure(title, label, 7)
    colours = _colours(summary.subjects())
    for name in summary.subjects():
        points = [
            (place, height)
            for case, place in places.items()
            if (row := summary.row(case, name)) and (height := value(row)) is not None
        ]
        if points:
            style = "--" if name == LIMIT else "-"
            thick = 2.5 if is_own(name) else 1.2
            axes.plot(*zip(*points, strict=True), style, lw=thick, c=colours[name], label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(places.values()), [str(n) for n in sorted(places.values())])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    return figure


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Draw what the figures allow and return the files.

    Parameters
    ----------
    summary
        The figures.
    folder
        Where the files go: ``patterns``, ``traces``, ``rows`` and ``contention``, each as
        ``.png`` and ``.svg``. A plot without cases is left out.
    """
    rate: Callable[[Row], float | None] = lambda row: row.gigabytes_per_second  # noqa: E731
    figures = {
        "patterns": _patterns(summary),
        "traces": _traces(summary),
        "rows": _lines(summary, r"rows-(\d+)", "Row pass over columns of 4 MiB", "GB/s", rate),
        "contention": _lines(
            summary, r"contend-touch-t(\d+)", "64 MiB a thread, every page", "GB/s", rate
        ),
    }
    written = []
    for name, figure in figures.items():
        if figure is None:
            continue
        for suffix in ("png", "svg"):
            path = folder / f"{name}.{suffix}"
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(path, dpi=120, metadata=metadata)
            written.append(path)
    return written
