# SPDX-License-Identifier: MIT OR Apache-2.0
"""The numbers behind a page's charts, small enough for one file.

A page stays below a megabyte whatever was measured: time is divided into at
most `COLUMNS` columns, the busiest `THREADS` threads are drawn, and of stacks
those that carry the most time, up to `NODES` frames and `LETTERS` letters of
names as they are written.  What is left out is added up and named as such; tables and totals in
the text are made from the whole measurement.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from jinja2.utils import htmlsafe_json_dumps

from .model import Kind
from .words import GROUPS, MANAGING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .model import Bin, Measurement, ThreadTime

COLUMNS = 320
STRIP_COLUMNS = 200
COLUMN_S = 0.05
"""Columns are no narrower: a few samples each would be noise."""
THREADS = 48
POINTS = 600
NODES = 9_000
LETTERS = 250_000
NAME_LETTERS = 160

GROUP_OF = {kind: group.id for group in GROUPS for kind in group.kinds}
NAMES = {group.id: group.name for group in GROUPS}

# Where classes over time are not known, only what an allocator could save is.
_ROUGH = ("anon", "user")


def time_chart(m: Measurement) -> dict[str, Any] | None:
    """Return the cores in use by class, in columns of equal width."""
    if not m.bins or m.duration_s <= 0:
        return None
    known = any(b.by_kind for b in m.bins)
    groups = [group.id for group in GROUPS] if known else list(_ROUGH)
    columns = _columns(m, COLUMNS)
    layers = {group: [0.0] * columns for group in groups}
    width = m.duration_s / columns
    for b in m.bins:
        if known:
            seconds: dict[str, float] = defaultdict(float)
            for kind, s in b.by_kind.items():
                seconds[GROUP_OF[kind]] += s
        else:
            managed = sum(b.mm_s.values())
            seconds = {"anon": managed, "user": sum(b.cpu_s.values()) - managed}
        for at, part in _overlaps(b, m, columns):
            for group, s in seconds.items():
                layers[group][at] += part * s / width
    used = [group for group in groups if any(layers[group])] or groups[-1:]
    # Memory management at the bottom, where its changes are easiest to see.
    return {
        "seconds": m.duration_s,
        "groups": used,
        "layers": [[round(v, 4) for v in layers[group]] for group in used],
    }


def memory_chart(m: Measurement) -> dict[str, Any]:
    """Return resident memory over time, the first and the last reading included."""
    step = max(1, -(-len(m.memory) // POINTS))
    points = [*m.memory[:-1:step], *m.memory[-1:]]
    return {
        "t": [round(p.t - m.started, 4) for p in points],
        "rss": [p.rss for p in points],
        "hwm": [p.hwm for p in points],
    }


def thread_strip(m: Measurement) -> dict[str, Any] | None:
    """Return how busy threads were over time, in per cent, in lanes.

    Threads of one name that did not live at the same time share a lane, or a
    program that starts threads for each step would fill the page with specks.
    """
    if not m.bins or not m.threads or m.duration_s <= 0:
        return None
    lanes = sorted(_lanes(m), key=lambda lane: -sum(t.cpu_s for t in lane))
    shown = lanes[:THREADS]
    rows = {thread.tid: i for i, lane in enumerate(shown) for thread in lane}
    columns = _columns(m, STRIP_COLUMNS)
    cpu = [[0.0] * columns for _ in shown]
    managed = [[0.0] * columns for _ in shown]
    for b in m.bins:
        parts = list(_overlaps(b, m, columns))
        for table, seconds in ((cpu, b.cpu_s), (managed, b.mm_s)):
            for tid, s in seconds.items():
                for at, part in parts if tid in rows else ():
                    table[rows[tid]][at] += part * s
    width = m.duration_s / columns
    return {
        "full": max(1, *(_percent(s / width) for row in cpu for s in row)),
        "lanes": [_lane_name(lane) for lane in shown],
        "cpu": [[_percent(s / width) for s in row] for row in cpu],
        "mm": [[_percent(s / width) for s in row] for row in managed],
        "left": len(lanes) - len(shown),
    }


def _lanes(m: Measurement) -> list[list[ThreadTime]]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, b in enumerate(m.bins):
        for tid in b.cpu_s:
            first.setdefault(tid, i)
            last[tid] = i
    lanes: list[list[ThreadTime]] = []
    # name -> (end of its last thread, lane), to be extended by the next to start
    free: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for thread in sorted(m.threads, key=lambda t: first.get(t.tid, 0)):
        start = first.get(thread.tid, 0)
        ends = free[thread.comm]
        if ends and min(ends)[0] < start:
            _, lane = heapq.heappop(ends)
            lanes[lane].append(thread)
        else:
            lane = len(lanes)
            lanes.append([thread])
        heapq.heappush(ends, (last.get(thread.tid, start), lane))
    return lanes


def _lane_name(lane: list[ThreadTime]) -> str:
    name = short(lane[0].comm) or "thread"
    return (
        f"{name} {lane[0].tid}" if len(lane) == 1 else f"{name} \N{MULTIPLICATION SIGN} {len(lane)}"
    )


def flame(
    after: Sequence[Measurement],
    before: Sequence[Measurement] | None = None,
    *,
    whole_runs: bool = False,
) -> dict[str, Any] | None:
    """Return the stacks as a tree, with the time of one side or of two.

    Times of two sides are shares of CPU time: of a run before where runs are
    whole, so that what was saved is missing after; else of each side's own.
    """
    sides = [after] if before is None else [after, before]
    weights: defaultdict[tuple[tuple[str, ...], str], list[float]] = defaultdict(
        lambda: [0.0] * len(sides)
    )
    totals = []
    for side, measurements in enumerate(sides):
        total = sum(m.cpu_s for m in measurements)
        totals.append(total)
        for m in measurements:
            names = [short(frame.name) for frame in m.frames]
            for stack in m.stacks:
                path = tuple(names[i] for i in stack.frames)
                weights[path, GROUP_OF[stack.kind]][side] += stack.seconds
    if not weights:
        return None
    if before is not None:
        if whole_runs:
            totals[0] = totals[1] / len(before) * len(after)
        for pair in weights.values():
            pair[:] = [w / total if total else 0.0 for w, total in zip(pair, totals, strict=True)]
    comm = after[0].target.comm
    tree = _Tree(short(comm))
    left_out = 0
    for (path, group), pair in sorted(weights.items(), key=lambda item: -max(item[1])):
        at = tree.add(path)
        left_out += at is None
        tree.leaf(0 if at is None else at, group, pair)
    return {
        "names": tree.names,
        "nodes": tree.name_of,
        "parents": tree.parent_of,
        "leaves": tree.leaves(),
        "total": 1.0 if before is not None else totals[0],
        "left": left_out,
    }


class _Tree:
    """Frames by path, each with a number; a parent's is smaller than its children's."""

    def __init__(self, root: str) -> None:
        self.names = [root]
        self.name_of = [0]
        self.parent_of = [0]
        self._letters = 0
        self._names: dict[str, int] = {root: 0}
        self._nodes: dict[tuple[int, int], int] = {}
        self._leaves: dict[tuple[int, str], list[float]] = {}

    def add(self, path: Iterable[str]) -> int | None:
        """Return the node of a path, or None where the page would get too large."""
        at = 0
        for name in path:
            if name not in self._names:
                letters = len(htmlsafe_json_dumps(name))
                if self._letters + letters > LETTERS:
                    return None
                self._letters += letters
                self._names[name] = len(self.names)
                self.names.append(name)
            key = (at, self._names[name])
            if key not in self._nodes:
                if len(self.name_of) >= NODES:
                    return None
                self._nodes[key] = len(self.name_of)
                self.name_of.append(key[1])
                self.parent_of.append(at)
            at = self._nodes[key]
        return at

    def leaf(self, at: int, group: str, weights: Sequence[float]) -> None:
        """Add time of a class directly in a node."""
        sums = self._leaves.setdefault((at, group), [0.0] * len(weights))
        sums[:] = [a + b for a, b in zip(sums, weights, strict=True)]

    def leaves(self) -> list[list[Any]]:
        """Return the rows [node, class, weight, ...]."""
        return [
            [at, group, *(float(f"{w:.6g}") for w in weights)]
            for (at, group), weights in self._leaves.items()
        ]


def short(name: str) -> str:
    """Return a name with its middle left out where it is very long."""
    if len(name) <= NAME_LETTERS:
        return name
    half = NAME_LETTERS // 2 - 2
    return f"{name[:half]} ... {name[-half:]}"


def managed_share(by_kind: dict[Kind, float]) -> float:
    """Return which share of a thread's time is memory management."""
    total = sum(by_kind.values())
    return sum(by_kind.get(kind, 0.0) for kind in MANAGING) / total if total else 0.0


def _columns(m: Measurement, most: int) -> int:
    return min(most, max(1, int(m.duration_s / COLUMN_S)))


def _overlaps(b: Bin, m: Measurement, columns: int) -> Iterator[tuple[int, float]]:
    """Yield the columns that a slice of time lies in, and its part in each."""
    width = m.duration_s / columns
    start = min(max((b.t - m.started) / width, 0.0), columns)
    end = min(max((b.t + b.width_s - m.started) / width, 0.0), columns)
    if end - start <= 1e-9:  # beyond an end of the window, by the clocks' difference
        yield min(int(start), columns - 1), 1.0
        return
    for at in range(int(start), min(int(end), columns - 1) + 1):
        part = (min(end, at + 1) - max(start, at)) / (end - start)
        if part > 1e-9:
            yield at, part


def _percent(share: float) -> int:
    return min(100, round(100 * share))
