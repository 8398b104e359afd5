# SPDX-License-Identifier: MIT OR Apache-2.0
"""Draws a session's figures, as PNG and SVG.

A colour stands for a library; a hollow mark is its defaults, a filled one its best settings,
and a triangle a second choice of settings. Squares are Rust crates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benches.allocators import REGISTRY
from benches.runner import LIMIT
from benches.summary import Row, Summary, is_own

__all__ = ["draw"]

mpl.rcParams["svg.hashsalt"] = "benches"  # the same figures give the same file

_OWN_COLOUR = "#c8102e"
_LIMIT_COLOUR = "#222222"

Value = Callable[[Row], float | None]


def _family(subject: str) -> str:
    base = subject.partition("+")[0]
    return REGISTRY[base].family if base in REGISTRY else base


def _styles(subjects: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each subject's marker and colours."""
    palette = [mpl.colormaps["tab10"](index) for index in range(10) if index != 3]  # no red
    families = list(dict.fromkeys(_family(name) for name in subjects if name != LIMIT))
    styles: dict[str, dict[str, Any]] = {}
    tuned_families: set[str] = set()
    for name in subjects:
        if name == LIMIT:
            styles[name] = {"marker": "|", "color": _LIMIT_COLOUR, "markersize": 11}
            continue
        own = is_own(name)
        tuned = bool(REGISTRY[name.partition("+")[0]].env)
        second = tuned and _family(name) in tuned_families
        family = families.index(_family(name))
        colour = _OWN_COLOUR if own else palette[family % len(palette)]
        marker = "D" if own else "s" if name.startswith("rust-") else "o"
        styles[name] = {
            "marker": "^" if second else marker,
            "color": colour,
            "markerfacecolor": colour if own or tuned else "none",
            "markersize": 8 if own else 6,
            "zorder": 3 if own else 2,
        }
        if tuned:
            tuned_families.add(_family(name))
    return styles


def _dots(axes: Axes, summary: Summary, cases: Sequence[str], value: Value, label: str) -> None:
    """Draw a line of dots for each case, one for each allocator."""
    for name, style in _styles(summary.subjects()).items():
        points = [
            (width, -place)
            for place, case in enumerate(cases)
            if (row := summary.row(case, name)) and (width := value(row)) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), linestyle="", label=name, **style)
    axes.set_yticks([-place for place in range(len(cases))], cases, fontsize=8)
    axes.set_xlabel(label)
    axes.axvline(1, color=_LIMIT_COLOUR, linewidth=0.8)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)


def _dot_figure(
    title: str, summary: Summary, cases: Sequence[str], panels: int
) -> tuple[Figure, Sequence[Axes]]:
    """Return axes side by side, high enough for the cases and for the legend."""
    height = max(1.5 + 0.35 * len(cases), 1 + 0.2 * len(summary.subjects()))
    figure = Figure(figsize=(5 + 3 * panels, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure, list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])


def _patterns(summary: Summary) -> Figure | None:
    wanted = ("fill", "fri", "calloc", "realloc", "shifting", "replacing", "msm", "rows", "handoff")
    cases = [case for case in summary.cases() if case.startswith(wanted)]
    if not cases:
        return None
    figure, (axes,) = _dot_figure("Patterns, a steady round", summary, cases, 1)
    _dots(axes, summary, cases, lambda row: row.to_limit, "time / limit")
    axes.set_xscale("log")
    _legend(figure, axes)
    return figure


def _traces(summary: Summary) -> Figure | None:
    cases = [case for case in summary.cases() if case.startswith("trace-")]
    if not cases:
        return None
    figure, (left, right) = _dot_figure("Recorded provers, replayed", summary, cases, 2)
    _dots(left, summary, cases, lambda row: row.to_limit, "steady round: time / limit")
    left.set_xscale("log")
    memory: Value = lambda row: None if row.subject == LIMIT else row.peak_rss / row.live_peak  # noqa: E731
    _dots(right, summary, cases, memory, "peak RSS / peak of live bytes")
    right.set_xscale("log")
    _legend(figure, left)
    return figure


def _lines(summary: Summary, pattern: str, title: str, unit: str, value: Value) -> Figure | None:
    """Draw a line for each allocator over the number that `pattern` finds in the case."""
    places = {
        case: int(found[1]) for case in summary.cases() if (found := re.fullmatch(pattern, case))
    }
    if len(places) < 2:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_ylabel(unit)
    for name, style in _styles(summary.subjects()).items():
        points = [
            (place, height)
            for case, place in places.items()
            if (row := summary.row(case, name)) and (height := value(row)) is not None
        ]
        if points:
            line = "--" if name == LIMIT else "-"
            axes.plot(*zip(*points, strict=True), linestyle=line, label=name, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted(places.values()), [str(n) for n in sorted(places.values())])
    axes.grid(alpha=0.3, which="both")
    _legend(figure, axes)
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
    rate: Value = lambda row: row.gigabytes_per_second  # noqa: E731
    figures = {
        "patterns": _patterns(summary),
        "traces": _traces(summary),
        "rows": _lines(
            summary, r"rows-(\d+)", "Row pass over columns of 4 MiB, by columns", "GB/s", rate
        ),
        "contention": _lines(
            summary,
            r"contend-touch-t(\d+)",
            "64 MiB a thread, every page visited, by threads",
            "GB/s",
            rate,
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
