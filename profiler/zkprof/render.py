# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reports for people: the verdict first, then why, then what to type.

Everything is drawn by rich, which leaves out colours where the output is no
terminal; the width is then 80 columns.  Commands are never wrapped inside of
a word and go on after a backslash, so that they can be pasted.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .estimate import Verdict, percent
from .model import Kind, Tier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rich.console import RenderableType

    from .advice import Item
    from .estimate import Estimate, Range
    from .model import Measurement, Share
    from .report import Report

WIDTH = 80
_MAX_WIDTH = 100
_BAR = 21

_STYLES = {
    Verdict.BOUND: "bold red",
    Verdict.HEAVY: "bold yellow",
    Verdict.NOT_BOUND: "bold green",
    Verdict.GROWTH: "bold cyan",
    Verdict.INCONCLUSIVE: "bold magenta",
}

_TIERS = {
    Tier.KERNEL: "samples with kernel stacks",
    Tier.USER: "unprivileged samples and counters",
    Tier.PROC: "counters in /proc",
}

# How classes are shown: what belongs together, and in this order.
_ROWS: tuple[tuple[str, tuple[Kind, ...], str], ...] = (
    ("page faults, anonymous", (Kind.FAULT_ANON,), "red"),
    ("prefaulting", (Kind.PREFAULT,), "red"),
    ("munmap", (Kind.UNMAP,), "red"),
    ("madvise", (Kind.MADVISE,), "red"),
    ("mmap, brk, mprotect", (Kind.MMAP,), "red"),
    ("page faults, files", (Kind.FAULT_FILE,), "yellow"),
    (
        "page faults, other",
        (Kind.FAULT_COW, Kind.FAULT_SWAP, Kind.FAULT_NUMA, Kind.FAULT_OTHER),
        "yellow",
    ),
    ("other kernel work", (Kind.KERNEL,), "blue"),
    ("its own work", (Kind.USER,), "green"),
)


def console(file: TextIO) -> Console:
    """Return a console for `file`: as wide as the terminal, 80 columns elsewhere."""
    plain = not file.isatty()
    probe = Console(file=file, width=WIDTH if plain else None, highlight=False)
    if probe.width > _MAX_WIDTH:
        probe = Console(file=file, width=_MAX_WIDTH, highlight=False)
    return probe


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
    m, e = report.measurement, report.estimate
    parts: list[RenderableType] = [_headline(m), Text(), _verdict(m, e, live=live)]
    parts += [
        Padding(Text(_sentence(e.why)), (0, 0, 0, 2)),
        Text(),
        _classes(m),
        Text(),
        _facts(m, e),
    ]
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
    return text[:1].upper() + text[1:] + "."


def _headline(m: Measurement) -> Text:
    threads = len([t for t in m.threads if t.cpu_s > 0]) or 1
    return Text.assemble(
        ("zkprof ", "bold"),
        f"{m.target.pid} {m.target.comm}  {m.duration_s:.1f} s",
        f"  {threads} thread{'s' if threads > 1 else ''}",
        "  it has ended" if m.exited else "",
        style="dim",
    )


def _verdict(m: Measurement, e: Estimate, *, live: bool) -> Text:
    text = Text.assemble((str(e.verdict).upper(), _STYLES[e.verdict]))
    if e.verdict is Verdict.INCONCLUSIVE:
        return text.append(", so far" if live else ": no verdict from this window")
    if m.library:
        text.append(f": on libzknalloc, {_about(e.saving_wall)} of wall time is left to save")
        return text
    wall = e.saving_wall
    text.append(f": recycling its memory should cut wall time by {_about(wall)}")
    if e.verdict is not Verdict.NOT_BOUND and wall.mid > 0.005:
        text.append(f", {e.speed_up.mid:.2f} times as fast")
    return text


def _about(r: Range) -> str:
    if r.high < 0.005:
        return "nothing"
    return f"{percent(r.mid)} [{percent(r.low)} to {percent(r.high)}]"


def _classes(m: Measurement) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
    table.add_column(width=24)
    table.add_column(width=_BAR)
    table.add_column(justify="right", width=7)
    table.add_column(style="dim")
    table.add_row("CPU time", "", "100%", f"{m.cpu_s:.2f} s")
    for name, kinds, style in _ROWS:
        row = _total([m.classes[kind] for kind in kinds if kind in m.classes])
        if m.cpu_s <= 0 or row[2] / m.cpu_s < 0.0005:
            continue
        mid, low, high = (seconds / m.cpu_s for seconds in row)
        table.add_row(
            f"  {name}",
            Text("#" * max(round(mid * _BAR), 1 if mid >= 0.005 else 0), style=style),
            f"{mid:.1%}",
            f"{low:.1%} to {high:.1%}",
        )
    return table


def _total(shares: list[Share]) -> tuple[float, float, float]:
    return (
        sum(s.seconds for s in shares),
        sum(s.low for s in shares),
        sum(s.high for s in shares),
    )


def _facts(m: Measurement, e: Estimate) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="bold", width=11)
    table.add_column(overflow="fold")
    for name, text in _fact_rows(m, e):
        table.add_row(name, text)
    return table


def _fact_rows(m: Measurement, e: Estimate) -> Iterator[tuple[str, str]]:
    yield "Saving", f"{_about(e.saving_cpu)} of CPU time, {_about(e.saving_wall)} of wall time"
    if m.memory:
        last = m.memory[-1]
        faults = last.minor_faults - m.memory[0].minor_faults
        text = f"{_bytes(last.rss)} now, peak {_bytes(last.hwm)}; {faults:,} page faults brought "
        text += f"{_bytes(e.growth.faulted)}, {percent(e.growth.share)} of it growth"
        yield "Memory", text
    zeroing = m.overlays.get("zeroing")
    if zeroing and zeroing >= 0.005 * m.cpu_s:
        text = f"{percent(zeroing / m.cpu_s)} of CPU time; it comes back where buffers are asked "
        yield "Zeroing", text + "for by calloc, which the low ends assume"
    preload = "works" if m.target.preloadable else "does not help"
    text = f"{m.target.allocator}; preloading {preload}: {m.target.preload_reason}"
    yield "Allocator", text
    if m.library:
        yield "Library", _library(m)
    method = m.method
    how = _TIERS[method.tier]
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
        f"{text}; {_bytes(count('bytes_hit', 0))} recycled, "
        f"{_bytes(count('bytes_evicted', 0))} evicted, "
        f"{_bytes(count('cached_now', 0))} cached now of at most {_bytes(m.library.cache_bytes)}"
    )


def _bytes(size: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


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
