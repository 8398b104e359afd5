# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof stats PID`: libzknalloc's counters of a running process.

Once, they are the totals since its start.  With --watch there is a line for
each interval, as vmstat writes them; with --json an object for each.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from zkprof.arguments import duration, pid
from zkprof.counters import FIRST_CLASS, Watched, class_rows, is_total
from zkprof.errors import Exit, NotPermittedError, TargetGoneError, ZkprofError
from zkprof.estimate import percent
from zkprof.render import console, show
from zkprof.text import clean, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rich.console import RenderableType

    from zkprof.arguments import Commands
    from zkprof.counters import Reading
    from zkprof.model import LibraryCounters

SCHEMA = "zkprof-stats/1"

_COLUMNS = (
    ("hits/s", 9), ("misses/s", 9), ("hit rate", 8), ("recycled/s", 10), ("fresh/s", 10),
    ("cached", 9), ("live", 9), ("RSS", 9),
)  # fmt: skip
_HEADING_EVERY = 20


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "stats",
        help="show libzknalloc's counters of a running process",
        description="Show the counters that libzknalloc keeps in a running process: since its "
        "start, or with --watch a line for each interval, until it ends or Ctrl-C.",
    )
    parser.add_argument("pid", metavar="PID", type=pid, help="the process")
    parser.add_argument("--watch", action="store_true", help="go on, with rates")
    parser.add_argument(
        "--every", metavar="SECONDS", type=duration, default=1.0, help="with --watch (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="write JSON, one object a line")
    parser.set_defaults(call=stats)


def stats(args: argparse.Namespace) -> int:
    """Show the counters of a process."""
    with Watched(args.pid) as process:
        first = process.read()
        if first.unreadable:
            raise NotPermittedError(first.unreadable)
        if not first.snapshots and not args.watch:
            raise ZkprofError(
                f"process {args.pid} is not on libzknalloc: start it with "
                "`zk-nalloc run -- CMD`, or link it"
            )
        if not args.watch:
            _write_once(process, first, as_json=args.json)
            return Exit.OK
        try:
            _watch(process, first, args.every, as_json=args.json)
        except (KeyboardInterrupt, TargetGoneError):
            return Exit.OK
    raise AssertionError  # it is watched until one of these


def _write_once(process: Watched, reading: Reading, *, as_json: bool) -> None:
    library = reading.library
    assert library  # noqa: S101  (there are snapshots)
    if as_json:
        sys.stdout.write(json.dumps(_plain(process, reading, library, None)) + "\n")
    else:
        show(console(sys.stdout), _screen(process, reading, library))


def _watch(process: Watched, before: Reading, every_s: float, *, as_json: bool) -> None:
    for line in count():
        time.sleep(max(0.0, before.t + every_s - time.monotonic()))
        now = process.read()
        library = now.since(before)
        seconds = now.t - before.t
        if as_json:
            sys.stdout.write(json.dumps(_plain(process, now, library, seconds)) + "\n")
        else:
            if line % _HEADING_EVERY == 0:
                sys.stdout.write(_line(name for name, _ in _COLUMNS))
            sys.stdout.write(_line(_cells(now, library, seconds)))
        sys.stdout.flush()
        before = now


def _line(cells: Iterator[str]) -> str:
    return " ".join(f"{c:>{width}}" for c, (_, width) in zip(cells, _COLUMNS, strict=True)) + "\n"


def _cells(now: Reading, library: LibraryCounters | None, seconds: float) -> Iterator[str]:
    if library is None:
        yield from ["-"] * (len(_COLUMNS) - 1)
    else:
        counted = library.counters
        yield f"{counted['hits'] / seconds:,.0f}"
        yield f"{counted['misses'] / seconds:,.0f}"
        yield "-" if library.hit_rate is None else percent(library.hit_rate)
        yield size(counted["bytes_hit"] / seconds)
        yield size(counted["bytes_missed"] / seconds)
        yield size(counted["cached_now"])
        yield size(counted["live_now"])
    yield size(now.point.rss)


def _plain(
    process: Watched, now: Reading, library: LibraryCounters | None, seconds: float | None
) -> dict[str, Any]:
    """Return a reading as JSON's types; with `seconds`, counters are of that time."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "pid": process.pid,
        "comm": process.comm,
        "seconds": seconds,
        "rss": now.point.rss,
        "minor_faults": now.point.minor_faults,
        "library": None,
    }
    if library:
        data["library"] = {
            "version": library.version,
            "cache_bytes": library.cache_bytes,
            "copies": library.copies,
            "hit_rate": library.hit_rate,
            "counters": library.counters,
            "classes": [{"size": s, "hits": h, "misses": m} for s, h, m in class_rows(library)],
        }
        if seconds:
            data["library"]["per_second"] = {
                name: value / seconds for name, value in library.counters.items() if is_total(name)
            }
    return data


def _screen(process: Watched, now: Reading, library: LibraryCounters) -> RenderableType:
    rate = "no large requests yet" if library.hit_rate is None else percent(library.hit_rate)
    heading = Text.assemble(
        ("zkprof stats ", "bold"),
        f"{process.pid} {clean(process.comm)}  libzknalloc {library.version}",
    )
    copies = f" in {library.copies} copies" if library.copies > 1 else ""
    parts: list[RenderableType] = [
        heading,
        Text(),
        Text(f"hit rate  {rate}"),
        Text(
            f"memory    {size(now.point.rss)} resident, "
            f"{size(library.counters['cached_now'])} of it cached, "
            f"of at most {size(library.cache_bytes)}{copies}"
        ),
        Text(),
    ]
    if rows := class_rows(library):
        parts += [_classes(rows), Text()]
    return Group(*parts, _counters(library))


def _classes(rows: list[tuple[int, int, int]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("requests of", "hits", "misses", "hit rate"):
        table.add_column(name, justify="right")
    for smallest, hits, misses in rows:
        shown = f"{smallest // FIRST_CLASS * 64} KiB"
        if smallest >= 1 << 20:
            shown = f"{smallest >> 20} MiB" if smallest < 1 << 30 else f"{smallest >> 30} GiB"
        table.add_row(shown, f"{hits:,}", f"{misses:,}", percent(hits / (hits + misses)))
    return table


def _counters(library: LibraryCounters) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in library.counters.items():
        if value:
            in_bytes = name.startswith("bytes_") or name.split("_")[0] in _BYTES
            table.add_row(name, size(value) if in_bytes else f"{value:,}")
    return table


_BYTES = {"live", "cached", "soft", "committed"}
