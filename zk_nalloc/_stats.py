# SPDX-License-Identifier: MIT OR Apache-2.0
"""`stats`: what the cache did since the process started, as one typed value.

The fields are those of `zkn_stats_t`, in the words of `zknalloc.h`; a test
compares the two lists.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from zk_nalloc._lib import ffi, lib

__all__ = ["ClassStats", "Stats", "stats"]


def _rate(hits: int, misses: int) -> float | None:
    return hits / (hits + misses) if hits + misses else None


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


@dataclass(frozen=True, slots=True)
class Stats:
    """The counters of the library at one moment.

    Counters only grow; names that end in `_now` go up and down, and `_peak` is
    the high-water mark of the same.  Large requests are those of at least
    64 KiB: smaller ones go to the system allocator and are not counted.
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
    names = (field.name for field in dataclasses.fields(Stats) if field.name != "classes")
    rows = tuple(ClassStats(row.size, row.hits, row.misses) for row in raw.classes)
    return Stats(**{name: getattr(raw, name) for name in names}, classes=rows)
