# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reports for people: the verdict first, then why, then what to type.

Everything is drawn by rich, which leaves out colours where the output is no
terminal; the width is then 80 columns.  Commands are never wrapped inside of
a word and go on after a backslash, so that they can be pasted.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleDimensions, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .estimate import Verdict, percent
from .text import cleaned, size
from .views import asking, classes_table, functions_table
from .words import TIERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rich.console import RenderableType

    from .advice import Item
    from .estimate import Estimate, Range
    from .model import Context, Measurement, PythonJoin, Traffic
    from .report import Report

WIDTH = 80
_MAX_WIDTH = 100

_STYLES = {
    Verdict.BOUND: "bold red",
    Verdict.HEAVY: "bold yellow",
    Verdict.NOT_BOUND: "bold green",
    Verdict.GROWTH: "bold cyan",
    Verdict.INCONCLUSIVE: "bold magenta",
}


def console(file: TextIO) -> Console:
    """Return a console for `file`: as wide as the terminal, 80 columns elsewhere."""
    # Neither [markup] nor :emoji: is meant by names that hold such words.
    width = None if file.isatty() else WIDTH
    return _Console(file=file, width=width, highlight=False, markup=False, emoji=False)


class _Console(Console):
    """As wide as the terminal is at the moment, but no wider than reads well."""

    @property
    def size(self) -> ConsoleDimensions:
        found = super().size
        return ConsoleDimensions(min(found.width, _MAX_WIDTH), found.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new


def show(out: Console, what: RenderableType) -> None:
    """Print something; outside of a terminal, without the padding to full width."""
    if out.is_terminal:
        out.print(what)
        return
    with out.capture() as captured:
        out.print(what)
    for line in captured.get().splitlines():
        out.file.write(line.rstrip() + "\n")
    out.file.flush()


def screen(report: Report, *, live: bool = False) -> RenderableType:
    """Return a report as it is shown.

    Parameters
    ----------
    report
        What to show.
    live
        Whether measuring goes on, so that advice would come too early.
    """
    report = cleaned(report)
    m, e = report.measurement, report.estimate
    parts: list[RenderableType] = [title(m), Text(), _verdict(m, e, live=live)]
    parts += [
        Padding(Text(_sentence(e.why)), (0, 0, 0, 2)),
        Text(),
        classes_table(m),
        Text(),
    ]
    if not live and asking(m):
        parts += [Text("Memory management, by where it is asked for", "bold")]
        parts += [functions_table(m, 5), Text()]
    parts += [_facts(m, e)]
    if not live:
        parts += [Text(), *(_item(item) for item in report.advice)]
    return Group(*parts)


def command_lines(command: str, width: int = WIDTH) -> list[str]:
    """Break a command at its words, with a backslash at each line's end.

    A word is never broken, so a line is longer than `width` where a word is.
    """
    words = [shlex.quote(word) for word in shlex.split(command)]
    lines = words[:1]
    for word in words[1:]:
        # Two columns for the backslash, and two for the indent.
        if len(lines[-1]) + 1 + len(word) <= width - 4:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [
        ("  " if i else "") + line + (" \\" if i + 1 < len(lines) else "")
        for i, line in enumerate(lines)
    ]


def _sentence(text: str) -> str:
    if text.startswith("libzknalloc"):
        return f"{text}."
    return text[:1].upper() + text[1:] + "."


def headline(m: Measurement) -> str:
    """Say in a line what was measured, without its name."""
    threads = len([t for t in m.threads if t.cpu_s > 0]) or 1
    words = [f"{m.duration_s:.1f} s", f"{threads} thread{'s' if threads > 1 else ''}"]
    if len(m.pids) > 1:
        words.append(f"{len(m.pids)} processes")
    if m.exited:
        words.append("it has ended")
    return "  ".join(words)


def verdict_sentence(m: Measurement, e: Estimate) -> str:
    """Say what the verdict means."""
    if e.verdict is Verdict.INCONCLUSIVE:
        return "No verdict from this window"
    wall = e.saving_wall
    if m.library:
        return f"On libzknalloc, {_about(wall)} of wall time is left to save"
    text = f"Recycling its memory should cut wall time by {_about(wall)}"
    if e.verdict is not Verdict.NOT_BOUND and wall.mid > 0.005:
        times = e.speed_up.mid
        text += f", {times:.0f} times as fast" if times >= 10 else f", {times:.2f} times as fast"
    return text


def title(m: Measurement) -> Text:
    """Return the first line of every screen."""
    return Text.assemble(
        ("zkprof ", "bold"), f"{m.target.pid} {m.target.comm}  {headline(m)}", style="dim"
    )


def _verdict(m: Measurement, e: Estimate, *, live: bool) -> Text:
    text = Text.assemble((str(e.verdict).upper(), _STYLES[e.verdict]))
    if e.verdict is Verdict.INCONCLUSIVE and live:
        return text.append(", so far")
    said = verdict_sentence(m, e)
    return text.append(f": {said[0].lower()}{said[1:]}")


def _about(r: Range) -> str:
    if r.high < 0.005:
        return "nothing"
    return f"{percent(r.mid)} [{percent(r.low)} to {percent(r.high)}]"


def _facts(m: Measurement, e: Estimate) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="bold", width=11)
    table.add_column(overflow="fold")
    for name, text in fact_rows(m, e):
        table.add_row(name, text)
    return table


def fact_rows(m: Measurement, e: Estimate) -> Iterator[tuple[str, str]]:
    """Yield what else is worth knowing: a name and a text each."""
    yield "Saving", f"{_about(e.saving_cpu)} of CPU time, {_about(e.saving_wall)} of wall time"
    if m.memory:
        last = m.memory[-1]
        faults = last.minor_faults - m.memory[0].minor_faults
        text = f"{size(last.rss)} now, peak {size(last.hwm)}; {faults:,} page faults brought "
        text += f"{size(e.growth.faulted)}, {percent(e.growth.share)} of it growth"
        yield "Memory", text
    zeroing = m.overlays.get("zeroing")
    if zeroing and m.cpu_s and zeroing >= 0.005 * m.cpu_s:
        text = f"{percent(zeroing / m.cpu_s)} of CPU time; it comes back where buffers are asked "
        yield "Zeroing", text + "for by calloc, which the low ends assume"
    preload = "works" if m.target.preloadable else "does not help"
    text = f"{m.target.allocator}; preloading {preload}: {m.target.preload_reason}"
    yield "Allocator", text
    if m.library:
        yield "Library", _library(m)
    if m.traffic:
        yield "Traffic", _traffic(m.traffic)
    if around := _context(m.context):
        yield "Context", around
    if m.python:
        yield "Python", _python(m.python)
    method = m.method
    how = TIERS[method.tier]
    if method.rate_hz:
        how += f", {method.samples} at {method.rate_hz:.0f} Hz, {method.lost} lost"
    how += f"; cost it {percent(method.overhead)}; {method.ns_per_fault / 1e3:.1f} us a fault here"
    yield "Method", how
    for note in method.notes:
        yield "Not shown", note


def _library(m: Measurement) -> str:
    assert m.library  # noqa: S101  (the caller looked)
    rate = m.library.hit_rate
    count = m.library.counters.get
    text = f"libzknalloc {m.library.version}, hit rate "
    text += percent(rate) if rate is not None else "unknown (no requests)"
    return (
        f"{text}; {size(count('bytes_hit', 0))} recycled, "
        f"{size(count('bytes_evicted', 0))} evicted, "
        f"{size(count('cached_now', 0))} cached now of at most {size(m.library.cache_bytes)}"
    )


def _traffic(t: Traffic) -> str:
    calls = ", ".join(f"{n:,} {name}" for name, n in t.calls.items() if n)
    return f"{size(t.mapped)} mapped, {size(t.unmapped)} unmapped, {size(t.advised)} advised" + (
        f"; {calls}" if calls else ""
    )


def _context(c: Context) -> str:
    words = []
    if c.huge_share is not None:
        words.append(f"{percent(c.huge_share)} of its anonymous memory is in huge pages")
    if c.mmap_lock_wait_s is not None and c.mmap_lock_wait_s >= 0.005:
        words.append(f"its threads waited {c.mmap_lock_wait_s:.2f} s for mmap_lock")
    if c.psi_some_s:
        words.append(f"memory was short for {c.psi_some_s:.2f} s")
    if c.cgroup_limit is not None:
        used = f" ({size(c.cgroup_used)} used)" if c.cgroup_used is not None else ""
        words.append(f"its control group may use {size(c.cgroup_limit)}{used}")
    return "; ".join(words)


def _python(p: PythonJoin) -> str:
    if p.source == "perf-map":
        return "frames from its perf trampoline, exact"
    return (
        f"frames by {p.source}, matched to {percent(p.matched)} of the samples, "
        f"{1e3 * p.gap_s:.1f} ms apart"
    )


def _item(item: Item) -> RenderableType:
    text = Text(_sentence(item.text))
    grid = Table(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
    grid.add_column(width=2, style="bold")
    grid.add_column()
    grid.add_row("->", text)
    if not item.command:
        return grid
    lines = command_lines(item.command, WIDTH - 5)
    command = Text("\n".join(f"     {line}" for line in lines), style="bold", no_wrap=True)
    command.overflow = "ignore"
    return Group(grid, command)
