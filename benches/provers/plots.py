# SPDX-License-Identifier: MIT OR Apache-2.0
"""Draws the table: for each prover, time and memory of every allocator against glibc's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benches.summary import is_own

from .report import Summary, groups, row_of

mpl.rcParams["svg.hashsalt"] = "provers"  # the same figures give the same file


def draw(rows: Sequence[Summary], folder: Path) -> list[Path]:
    """Write provers.svg and provers.png; both axes are shares of glibc's defaults."""
    cases = {case: own for case, own in groups(rows).items() if row_of(own, "glibc")}
    if not cases:
        return []
    columns = min(3, len(cases))
    lines = -(-len(cases) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    colours = mpl.colormaps["tab20"]
    names = list(dict.fromkeys(row.allocator for row in rows))
    for axis, (case, own) in zip(axes, cases.items(), strict=False):
        base = row_of(own, "glibc")
        assert base is not None, "cases without glibc are left out"
        for row in own:
            ours = is_own(row.allocator)
            axis.plot(
                100 * row.cpu_s / base.cpu_s,
                100 * row.peak_rss_kib / base.peak_rss_kib,
                marker="D" if ours else "o",
                color="#c8102e" if ours else colours(names.index(row.allocator) % 20),
                markersize=9 if ours else 6,
                linestyle="none",
                label=row.allocator,
            )
        axis.axhline(100, color="#bbbbbb", linewidth=0.8, zorder=0)
        axis.axvline(100, color="#bbbbbb", linewidth=0.8, zorder=0)
        axis.set_title(f"{case.prover}, {case.size:,}", fontsize=10)
        axis.set_xlabel("CPU time of a warm proof, % of glibc", fontsize=8)
        axis.set_ylabel("peak memory, % of glibc", fontsize=8)
    for axis in list(axes):  # those without a prover
        axis.remove()
    handles = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8)
    written = [folder / "provers.svg", folder / "provers.png"]
    for path in written:
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    return written
