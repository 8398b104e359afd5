# SPDX-License-Identifier: MIT OR Apache-2.0
"""`stats`: what the cache did since the process started, as one typed value.

The fields are those of `zkn_stats_t`, in the words of `zknalloc.h`; a test
compares the two lists.  `stats_delta` takes the difference around a phase.
"""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from zk_nalloc._lib import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ClassStats", "Stats", "StatsDelta", "stats", "stats_delta"]


def _rate(hits: int, misses: int) -> float | None:
    return hits / (hits + misses) if hits + misses else None


def _bytes(number: int) -> str:
    """Write a number of bytes, which may be negative, for people."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = min(max(abs(number).bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{number / 1024**power:.{min(power, 1)}f} {units[power]}"


def _percent(rate: float | None) -> str:
    """Write a hit rate; only one without a miss is 100 %."""
    if rate is None:
        return "none"
    return "100 %" if rate == 1 else f"{min(rate, 0.9999):.2%}".replace("%", " %")


@dataclass(frozen=True, slots=True)
class ClassStats:
    """Requests of `size` bytes up to, not including, twice that."""

    size: int
    """The smallest request counted here, a power of two."""
    hits: int
    """Requests served from resident memory alone."""
    misses: int
    """Requests that needed memory from the kernel."""

    @property
    def hit_rate(self) -> float | None:
        """Hits over requests, or None without requests."""
        return _rate(self.hits, self.misses)


@dataclass(frozen=True, slots=True, repr=False)
class Stats:
    """The counters of the library at one moment.

    Counters only grow; names that end in `_now` go up and down, and `_peak` is
    the high-water mark of the same.  Large requests are those of at least
    64 KiB: smaller ones go to the system allocator and are not counted.

    The difference of two is what happened in between: its gauges say how much
    more there is of something, its peaks by how much a mark was raised.
    """

    hits: int
    """Large requests served from resident memory alone."""
    misses: int
    """Large requests that needed memory from the kernel."""
    magazine_hits: int
    """Hits served by a per-CPU magazine."""
    bytes_hit: int
    """Bytes handed out that were already resident."""
    bytes_missed: int
    """Bytes handed out fresh from the kernel."""
    frees: int
    """Large regions freed."""
    callocs: int
    """Large requests for zeroed memory."""
    bytes_cleared: int
    """Bytes cleared for zeroed requests."""
    reallocs_in_place: int
    """Large reallocs that kept their address."""
    reallocs_moved: int
    """Large reallocs that moved."""
    evictions: int
    """Times the ceiling gave cached memory back."""
    bytes_evicted: int
    """Bytes that the ceiling gave back."""
    bytes_softened: int
    """Bytes offered to the kernel by MADV_FREE."""
    bytes_released: int
    """Bytes given back when asked, idle, pressed."""
    syscalls_map: int
    """Mmap and mprotect calls made."""
    syscalls_advise: int
    """Madvise calls made."""
    syscalls_move: int
    """Mremap calls made."""
    syscalls_scan: int
    """Looks into the page table."""
    fallback_system: int
    """Large requests passed to the system."""
    fallback_thp: int
    """Huge-page advice that the kernel refused."""
    bytes_moved: int
    """Bytes moved between free runs by mremap."""
    fallback_move: int
    """Moves that the kernel refused."""
    fallback_advise: int
    """Other advice that the kernel refused."""
    fallback_watch: int
    """Times the idle watcher could not start."""
    fallback_reserve: int
    """Address-space reservations made smaller."""
    live_now: int
    """Bytes in live regions."""
    live_peak: int
    """High-water mark of live_now, magazines included."""
    cached_now: int
    """Bytes in free regions that may be resident."""
    cached_peak: int
    """High-water mark of cached_now."""
    soft_now: int
    """Bytes of cached_now that the kernel may take."""
    committed_now: int
    """Live_now + cached_now."""
    committed_peak: int
    """High-water mark of committed_now."""
    regions_now: int
    """Live regions."""
    sparse_takes: int
    """Zeroed requests served in small pages."""
    sparse_drops: int
    """Times such a region's pages were given back."""
    fallback_scan: int
    """Looks into the page table that failed."""
    bytes_spread: int
    """Bytes that the threads which touch them clear."""
    cache_bytes: int
    """The ceiling of the cache in force."""
    classes: tuple[ClassStats, ...]
    """Hits and misses by size, one row for each power of two from 64 KiB."""

    @property
    def hit_rate(self) -> float | None:
        """Hits over large requests, or None without requests."""
        return _rate(self.hits, self.misses)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `hit_rate` as plain, JSON-ready values.

        Returns
        -------
        dict
            A new dictionary on each call.
        """
        return {**dataclasses.asdict(self), "hit_rate": self.hit_rate}

    def __sub__(self, earlier: Stats) -> Stats:
        """Return the change since `earlier`; the ceiling is a setting and stays."""
        if not isinstance(earlier, Stats):
            return NotImplemented
        change = {name: getattr(self, name) - getattr(earlier, name) for name in _COUNTERS}
        classes = tuple(
            ClassStats(new.size, new.hits - old.hits, new.misses - old.misses)
            for new, old in zip(self.classes, earlier.classes, strict=True)
        )
        return Stats(**change, cache_bytes=self.cache_bytes, classes=classes)

    def __repr__(self) -> str:
        """Say in a line what matters most."""
        return (
            f"<Stats: {self.hits + self.misses} large requests, "
            f"hit rate {_percent(self.hit_rate)}, {_bytes(self.bytes_missed)} from the kernel; "
            f"live {_bytes(self.live_now)} (peak {_bytes(self.live_peak)}), "
            f"cached {_bytes(self.cached_now)}>"
        )

    def _repr_html_(self) -> str:
        """Return tables for a Jupyter notebook: sizes, then every counter that is not zero."""
        sizes = [
            [_bytes(row.size), f"{row.hits:,}", f"{row.misses:,}", _percent(row.hit_rate)]
            for row in self.classes
            if row.hits or row.misses
        ]
        counters = [
            [name, _bytes(value) if name in _BYTES else f"{value:,}"]
            for name in (*_COUNTERS, "cache_bytes")
            if (value := getattr(self, name))
        ]
        return (
            f"<p>{html.escape(repr(self)[1:-1])}</p>"
            + _table(["size from", "hits", "misses", "hit rate"], sizes)
            + _table(["counter", "value"], counters)
        )


_COUNTERS = tuple(
    field.name
    for field in dataclasses.fields(Stats)
    if field.name not in {"cache_bytes", "classes"}
)
_BYTES = frozenset(
    {name for name in _COUNTERS if name.startswith("bytes_") or name.endswith(("_now", "_peak"))}
    - {"regions_now"}
    | {"cache_bytes"}
)


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Return an HTML table, nothing where it would be empty."""
    if not rows:
        return ""
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    lines += [
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    ]
    return f"<table>{''.join(lines)}</table>"


class StatsDelta:
    """What the cache did during a block; `stats_delta` makes one.

    Counters are those of the whole process: what other threads do meanwhile is
    part of them.
    """

    __slots__ = ("_begin", "_end")

    def __init__(self) -> None:
        self._begin = stats()
        self._end: Stats | None = None

    def __enter__(self) -> Self:
        """Start (again) here."""
        self._end = None
        self._begin = stats()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End here, whether or not the block raised."""
        self._end = stats()

    @property
    def stats(self) -> Stats:
        """The change: until now within the block, of the whole block after it."""
        return (self._end or stats()) - self._begin

    @property
    def hit_rate(self) -> float | None:
        """Hits over large requests of the block, or None without requests."""
        return self.stats.hit_rate

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain, JSON-ready values.

        Returns
        -------
        dict
            As `Stats.to_dict` does.
        """
        return self.stats.to_dict()

    def __repr__(self) -> str:
        """Show the change."""
        return repr(self.stats).replace("<Stats:", "<StatsDelta:", 1)

    def _repr_html_(self) -> str:
        return self.stats._repr_html_()


def stats() -> Stats:
    """Read the counters of the cache that this process has.

    Other threads go on meanwhile: each value is exact at some moment of the
    call.

    Returns
    -------
    Stats
        The values.

    Examples
    --------
    >>> before = stats()
    >>> alloc(1 << 20).close()
    >>> after = stats()
    >>> after.hits + after.misses - before.hits - before.misses
    1
    """
    raw = ffi.new("zkn_stats_t *")
    raw.size = ffi.sizeof("zkn_stats_t")
    error = lib.zkn_stats_get(raw)
    if error:  # the size is right, so this is a defect
        raise RuntimeError(f"zkn_stats_get() failed with {error}")
    rows = tuple(ClassStats(row.size, row.hits, row.misses) for row in raw.classes)
    values = {name: getattr(raw, name) for name in _COUNTERS}
    return Stats(**values, cache_bytes=raw.cache_bytes, classes=rows)


def stats_delta() -> StatsDelta:
    """Read the counters around a phase.

    Returns
    -------
    StatsDelta
        A context manager; its `stats` are the change from the block's begin to
        its end, or to now.

    Examples
    --------
    >>> with stats_delta() as phase:
    ...     alloc(1 << 20).close()
    ...     alloc(1 << 20).close()
    >>> phase.stats.frees, phase.stats.regions_now
    (2, 0)
    """
    return StatsDelta()
