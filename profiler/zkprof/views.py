# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tables of a measurement: classes of time, threads, functions.

The report shows them once, the live screen again and again.  They fit into 80
columns and expect a measurement that `text.cleaned` has gone over.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from .words import GROUPS, MANAGING, managing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .model import Measurement, Share, ThreadTime

_BAR = 21
_CALLERS = 3

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
    table.add_column(justify="right", width=6)
    table.add_column(overflow="ellipsis", no_wrap=True)
    rows = asking(m)
    for seconds, chain in rows[:limit]:
        share = f"{seconds / m.cpu_s:.1%}" if m.cpu_s > 0 else ""
        table.add_row(share, Text(" < ".join(chain)))
    _and_more(table, len(rows) - limit)
    return table


def asking(m: Measurement) -> list[tuple[float, tuple[str, ...]]]:
    """Return the seconds of memory management by innermost functions, most first."""
    found: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for stack in m.stacks:
        if stack.kind in MANAGING:
            inner = stack.frames[::-1][:_CALLERS]
            names = tuple(m.frames[i].name for i in inner)
            found[names or ("[no stack]",)] += stack.seconds
    return sorted(((s, names) for names, s in found.items()), key=lambda row: -row[0])


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
