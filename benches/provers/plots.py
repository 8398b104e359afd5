# SPDX-License-Identifier: MIT OR Apache-2.0
"""Draws the table: for each prover, time and memory of every allocator against glibc's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benches.allocators import OWN

from .report import Summary

mpl.rcParams["svg.hashsalt"] = "provers"  # the same figures give the same file


def draw(rows: Sequence[Summary], folder: Path) -> list[Path]:
    """Write provers.svg and provers.png; both axes are shares of glibc's defaults."""
    provers = [
        name
        for name in dict.fromkeys(row.prover for row in rows)
        if any(row.prover == name and row.allocator == "glibc" for row in rows)
    ]
    if not provers:
        return []
    columns = min(3, len(provers))
    lines = -(-len(provers) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    colours = mpl.colormaps["tab20"]
    names = list(dict.fromkeys(row.allocator for row in rows))
    for axis, prover in zip(axes, provers, strict=False):
        own = [row for row in rows if row.prover == prover]
        base = next(row for row in own if row.allocator == "glibc")
        for row in own:
            ours = row.allocator.partition("+")[0] == OWN
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
        axis.set_title(f"{prover}, {base.size:,}", fontsize=10)
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
