# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tables of a measurement: classes of time, threads, functions.

The report shows them once, the live screen again and again.  They fit into 80
columns and expect a measurement that `text.cleaned` has gone over.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from .perf_map import PYTHON
from .words import GROUPS, MANAGING, managing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions

    from .model import Frame, Measurement, Share, StackTime, ThreadTime

_BAR = 21
_CALLERS = 3
_SHORTEST_NAME = 8

THREAD_SORTS: dict[str, Callable[[ThreadTime], tuple[float, ...]]] = {
    "CPU time": lambda t: (-t.cpu_s, t.tid),
    "memory management": lambda t: (-managing(t.by_kind), t.tid),
    "thread number": lambda t: (t.tid,),
}


def classes_table(m: Measurement) -> Table:
    """Return the classes of CPU time with their intervals."""
    table = _plain()
    table.add_column(width=24)
    table.add_column(width=_BAR)
    table.add_column(justify="right", width=7)
    table.add_column(style="dim")
    table.add_row("CPU time", "", "100%", f"{m.cpu_s:.2f} s")
    for group in GROUPS:
        row = _total([m.classes[kind] for kind in group.kinds if kind in m.classes])
        if m.cpu_s <= 0 or row[2] / m.cpu_s < 0.0005:
            continue
        mid, low, high = (seconds / m.cpu_s for seconds in row)
        table.add_row(
            f"  {group.name}",
            _bar(mid, group.colour),
            f"{mid:.1%}",
            f"{low:.1%} to {high:.1%}",
        )
    return table


def threads_table(m: Measurement, sort: str, limit: int) -> Table:
    """Return the threads, sorted by one of `THREAD_SORTS`."""
    table = _plain(header=True)
    table.add_column("thread", justify="right", width=8)
    table.add_column("name", width=15, no_wrap=True)
    table.add_column("CPU s", justify="right", width=9)
    table.add_column("of all", justify="right", width=6)
    table.add_column("memory management", width=_BAR)
    table.add_column("", justify="right", width=6)
    threads = sorted(m.threads, key=THREAD_SORTS[sort])
    for thread in threads[:limit]:
        share = managing(thread.by_kind) / thread.cpu_s if thread.cpu_s > 0 else 0.0
        table.add_row(
            str(thread.tid),
            Text(thread.comm),
            f"{thread.cpu_s:.2f}",
            f"{thread.cpu_s / m.cpu_s:.0%}" if m.cpu_s > 0 else "",
            _bar(share, "red"),
            f"{share:.0%}",
        )
    _and_more(table, len(threads) - limit)
    return table


def functions_table(m: Measurement, limit: int) -> Table:
    """Return where memory management is asked for, each function with its callers."""
    table = _plain()
    table.add_column(justify="right", min_width=6, no_wrap=True)
    table.add_column()
    rows = asking(m)
    for seconds, chain in rows[:limit]:
        share = f"{seconds / m.cpu_s:.1%}" if m.cpu_s > 0 else ""
        table.add_row(share, _Chain(chain))
    _and_more(table, len(rows) - limit)
    return table


def asking(m: Measurement) -> list[tuple[float, tuple[str, ...]]]:
    """Return the seconds of memory management by innermost functions, most first."""
    found: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for stack in m.stacks:
        if stack.kind in MANAGING:
            names = tuple(_label(frame) for frame in _inner(m, stack))
            found[names or ("[no stack]",)] += stack.seconds
    return sorted(((s, names) for names, s in found.items()), key=lambda row: -row[0])


def fitted(names: Sequence[str], width: int) -> str:
    """Return a function and its callers in so many columns: long names lose their middle."""
    longest = max(len(name) for name in names)
    text = " < ".join(names)
    while len(text) > width and longest > _SHORTEST_NAME:
        longest -= 1
        text = " < ".join(_shortened(name, longest) for name in names)
    return text


class _Chain:
    """A function and its callers, on one line as wide as there is room."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Width:
        del console
        full = len(" < ".join(self._names))
        return Width(min(full, _SHORTEST_NAME), min(full, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        del console
        yield Text(fitted(self._names, options.max_width), no_wrap=True, overflow="ellipsis")


def _shortened(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 2
    return f"{name[: longest - 1 - tail]}…{name[len(name) - tail :]}"


def _inner(m: Measurement, stack: StackTime) -> list[Frame]:
    """Return the innermost functions of a stack.

    Between a Python function and the C code that it calls are frames of the
    interpreter, so the innermost Python function takes the last place.
    """
    inner = [m.frames[i] for i in reversed(stack.frames)]
    callers = inner[:_CALLERS]
    python = next((frame for frame in inner if frame.module == PYTHON), None)
    if python and python not in callers:
        callers[-1] = python
    return callers


def _label(frame: Frame) -> str:
    if not frame.file:
        return frame.name
    name = frame.file.rsplit("/", 1)[-1]
    return f"{frame.name} ({name}:{frame.line})" if frame.line else f"{frame.name} ({name})"


def _plain(*, header: bool = False) -> Table:
    return Table(
        box=None, padding=(0, 1, 0, 0), show_header=header, pad_edge=False, header_style="bold"
    )


def _bar(share: float, style: str) -> Text:
    length = max(round(min(share, 1.0) * _BAR), 1 if share >= 0.005 else 0)
    return Text("#" * length, style=style)


def _and_more(table: Table, n: int) -> None:
    if n > 0:
        table.add_row(*_words_in_second(f"and {n} more", len(table.columns)), style="dim")


def _words_in_second(text: str, columns: int) -> Iterator[str]:
    yield ""
    yield text
    yield from [""] * (columns - 2)


def _total(shares: list[Share]) -> tuple[float, float, float]:
    return (
        sum(s.seconds for s in shares),
        sum(s.low for s in shares),
        sum(s.high for s in shares),
    )
