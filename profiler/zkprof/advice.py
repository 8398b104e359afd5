# SPDX-License-Identifier: MIT OR Apache-2.0
"""What to do next, and what to type for it.

Every verdict leads to at least one item.  Where another remedy would do as
well as this project's own library, it is said: an answer that always ends in
"install us" is not believed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .again import again, program, shown
from .curve import enough
from .estimate import Verdict, percent
from .model import Kind, Tier
from .origin import origin_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .again import Options
    from .estimate import Estimate
    from .model import LibraryCounters, Measurement

MIB = 1 << 20
GIB = 1 << 30

CACHE_DEFAULT = 512 * MIB
"""A ceiling that the library keeps warm by itself on any machine from 4 GiB on."""
GLIBC_KEEPS = 32 * MIB
"""The largest buffer that glibc keeps when it is freed (its mmap threshold's limit)."""
GOOD_HIT_RATE = 0.95

NEVER_TRIM = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "1099511627776",
    "MALLOC_TOP_PAD_": "67108864",
}
"""The variables that tell glibc to give no memory back."""

_COMPARE = (
    "for comparison, tell {} to keep everything: about as fast, but then it never gives memory back"
)
# tikv-jemallocator, as most Rust programs have it, reads the second name.
_JEMALLOC = "dirty_decay_ms:-1,muzzy_decay_ms:-1"
_RIVALS = {
    "glibc": (
        " ".join(f"{name}={value}" for name, value in NEVER_TRIM.items()),
        _COMPARE.format("glibc") + ", and with many allocating threads its arenas add to the peak",
    ),
    "jemalloc": (
        f"MALLOC_CONF={_JEMALLOC} _RJEM_MALLOC_CONF={_JEMALLOC}",
        _COMPARE.format("jemalloc"),
    ),
    "mimalloc": (
        "MIMALLOC_PURGE_DELAY=-1",
        _COMPARE.format("mimalloc"),
    ),
    "tcmalloc": (
        "TCMALLOC_RELEASE_RATE=0",
        _COMPARE.format("tcmalloc"),
    ),
    "go": (
        "GOGC=400",
        (
            "Go collects, gives back and faults in again: with a larger GOGC less often, for more "
            "memory; GOMEMLIMIT bounds that"
        ),
    ),
    "jvm": (
        None,
        (
            "let the Java virtual machine take its heap once: -Xms equal to -Xmx, and "
            "-XX:+AlwaysPreTouch"
        ),
    ),
    "v8": (
        None,
        (
            "memory of JavaScript and WebAssembly is V8's own: a native prover in its place is "
            "what an allocator could help"
        ),
    ),
}
_GAIN = (Verdict.BOUND, Verdict.HEAVY)
_LINKED_IN = ("static", "musl", "jemalloc", "mimalloc", "tcmalloc", "snmalloc")
"""Allocators of programs that could be built with libzknalloc instead."""

HUGE_PAGES = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"
"""Lets glibc ask for huge pages, where the kernel gives them to who asks."""
_LEAST_CLASS = 64 << 10
"""The smallest request that the library counts; classes double from there."""
OWN_CALLS = 0.2
"""Of the time for giving memory back, by the program's own munmap and madvise: worth a word."""
LOCKED = 0.05
"""Waiting for mmap_lock, over CPU time: worth a word from here on."""
PRESSURE = 0.05
"""Of the window, with some task waiting for memory: the same."""
PRESSED = 0.9
"""Of a memory limit: beyond this share a cache may cost more than it saves."""


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of advice."""

    id: str
    """A stable name, for scripts."""
    text: str
    command: str | None = None


def advise(
    m: Measurement,
    e: Estimate,
    argv: Sequence[str] | None = None,
    options: Options | None = None,
) -> tuple[Item, ...]:
    """Return what to do, the most useful first.

    Parameters
    ----------
    m, e
        What was measured and estimated.
    argv
        The command that was run, where zkprof started it.
    options
        What zkprof was told besides; None takes what the measurement shows of it.

    Returns
    -------
    tuple of Item
        At least one.
    """
    return tuple(_items(m, e, argv, shown(m) if options is None else options))


def size_text(size: int) -> str:
    """Write a size the way that ``ZK_NALLOC_CACHE_BYTES`` takes it, rounded up."""
    if size > 4 * GIB:
        return f"{math.ceil(size / GIB)}G"
    return f"{math.ceil(size / (256 * MIB)) * 256}M"


def _items(
    m: Measurement, e: Estimate, argv: Sequence[str] | None, options: Options
) -> Iterator[Item]:
    if m.library:
        yield from _about_library(m.library, e)
        if e.verdict in _GAIN:
            yield from _own_mappings(m)
    if e.verdict is Verdict.INCONCLUSIVE:
        yield _measure_more(m, argv, options)
        return
    if not m.library:
        if e.verdict in _GAIN:
            yield from _switch(m, e, argv)
        elif e.verdict is Verdict.NOT_BOUND:
            yield from _leave(m, e)
    if e.verdict is Verdict.GROWTH:
        longer = "-d", f"{max(30.0, m.duration_s):.0f}"
        yield Item(
            "measure-warm",
            "measure once the process has made its first proof and reuses its memory; "
            "if it makes one proof and exits, keep it alive for the next one instead",
            None if m.exited or argv else again(m, None, options, longer),
        )
        yield from _huge_pages(m, argv)
    yield from _asides(m, e, options)


def _measure_more(m: Measurement, argv: Sequence[str] | None, options: Options) -> Item:
    if m.method.lost > m.method.samples * 0.05:
        text = "take fewer samples a second"
        change = "--rate", f"{max(1, m.method.rate_hz / 4):.0f}"
    elif m.exited:
        # It gave all that it had: only more samples of the same help.
        text, change = "take more samples a second, or give it more work", ("--rate", "999")
    else:
        text = "measure for longer, while it is proving"
        change = "-d", f"{m.duration_s * 4:.0f}"
    return Item("measure-more", text, again(m, argv, options, change))


def _switch(m: Measurement, e: Estimate, argv: Sequence[str] | None) -> Iterator[Item]:
    start = program(m, argv)
    if not m.target.preloadable:
        yield Item(
            "not-preloadable",
            f"libzknalloc cannot be preloaded here: {m.target.preload_reason}",
            "zk-nalloc config --cflags --libs" if m.target.allocator in _LINKED_IN else None,
        )
        yield from _rival(m, start)
        return
    yield from _own_mappings(m)
    if (origin := origin_of(m)) and origin.own > 1 - OWN_CALLS:
        return
    cache = ""
    text = "run it on libzknalloc and measure again"
    best = enough(e.cache_curve)
    # The curve's sizes are coarse; more than comes and goes is never needed.
    wanted = min(best.bytes if best else e.growth.swing, e.growth.swing)
    if wanted > CACHE_DEFAULT:
        cache = f" --cache {size_text(wanted)}"
        text += (
            f"; up to {wanted / 1e9:.1f} GB of its memory comes and goes, "
            "and the cache should hold that"
        )
    yield Item("preload", text, f"zk-nalloc run{cache} -- {start}")
    yield from _rival(m, start)
    yield from _huge_pages(m, argv)


def _own_mappings(m: Measurement) -> Iterator[Item]:
    """Name the program's own calls that give memory back, which no allocator sees."""
    origin = origin_of(m)
    if origin and origin.own > OWN_CALLS:
        yield Item(
            "own-mappings",
            f"{percent(origin.own)} of the time for giving memory back is in calls of its own, "
            f"most of them by {origin.function}, and not in free(): no preloaded allocator is "
            "asked; take those buffers from zkn_alloc(), or from malloc()",
            "zk-nalloc config --cflags --libs",
        )


def _rival(m: Measurement, start: str) -> Iterator[Item]:
    if m.target.allocator in _RIVALS:
        variables, text = _RIVALS[m.target.allocator]
        yield Item("rival", text, f"{variables} {start}" if variables else None)


def _leave(m: Measurement, e: Estimate) -> Iterator[Item]:
    text = "leave its allocator as it is: it computes, and no allocator changes that"
    if m.target.allocator == "glibc" and e.mm_share < 0.05:
        text += (
            f"; glibc itself keeps freed buffers of up to {GLIBC_KEEPS // MIB} MiB, "
            "so measure again with a larger circuit"
        )
    yield Item("leave", text)


def _huge_pages(m: Measurement, argv: Sequence[str] | None) -> Iterator[Item]:
    """Yield the one thing that makes all faults cheaper, where it can be had."""
    huge = m.context.huge_share
    if m.target.allocator != "glibc" or m.target.thp != "madvise" or (huge or 0.0) > 0.5:
        return
    yield Item(
        "huge-pages",
        "memory in huge pages costs fewer faults; in a virtual machine each may be dear, "
        "so measure it",
        f"zkprof run --ab {HUGE_PAGES} -- {program(m, argv)}",
    )


def _about_library(library: LibraryCounters, e: Estimate) -> Iterator[Item]:
    if library.copies > 1:
        yield Item(
            "two-caches",
            f"{library.copies} copies of libzknalloc are loaded, each with a cache of its "
            "own: link the shared library, and preload the one of the same installation",
        )
    rate = library.hit_rate
    if rate is None:
        yield Item(
            "no-requests",
            "it is on libzknalloc, but asked for no buffer of 64 KiB or more in this window",
        )
        return
    count = library.counters.get
    said = (
        f"it is on libzknalloc {library.version}, hit rate {percent(rate)}, "
        f"{count('bytes_hit', 0) / 1e9:.1f} GB recycled"
    )
    evicted = count("bytes_evicted", 0)
    if rate < GOOD_HIT_RATE and evicted:
        ceiling = max(count("committed_peak", 0), library.cache_bytes + e.growth.swing)
        yield Item(
            "raise-ceiling",
            f"{said}; its ceiling of {library.cache_bytes / 1e9:.2f} GB gave "
            f"{evicted / 1e9:.1f} GB back only to fetch it again: raise the ceiling",
            f"export ZK_NALLOC_CACHE_BYTES={size_text(ceiling)}",
        )
    elif rate < GOOD_HIT_RATE and count("bytes_released", 0) > count("bytes_missed", 0) / 2:
        yield Item(
            "released",
            f"{said}; {count('bytes_released', 0) / 1e9:.1f} GB were given back because they "
            "were idle, the program asked for it, or memory was short, and fetched again",
            "export ZK_NALLOC_IDLE_SECONDS=600",
        )
    elif rate < GOOD_HIT_RATE and e.growth.share >= 0.5:
        yield Item("warming-up", f"{said}; it is still growing: measure again when it is warm")
    elif rate < GOOD_HIT_RATE:
        yield Item(
            "misses",
            f"{said}, and no eviction: the misses asked for memory that was live elsewhere "
            f"at the time, which no cache can serve{_where_missed(library)}",
        )
    elif e.verdict in _GAIN:
        yield Item(
            "not-its-memory",
            f"{said}, so the faults that are left are on memory that it does not hand out: "
            "blocks below 64 KiB, stacks of new threads, or the program's own mappings; "
            "the stacks of the faults say which",
        )
    else:
        yield Item("keep", f"{said}: nothing to change")
    if failed := count("fallback_system", 0):
        yield Item(
            "no-address-space",
            f"{failed} large requests went to the system allocator, for want of address space: "
            "look at ulimit -v and ZK_NALLOC_RESERVE_BYTES",
        )


def _where_missed(library: LibraryCounters) -> str:
    """Name the size of request that missed most, where one stands out."""
    misses = library.class_misses
    most = max(misses, default=0)
    if 2 * most <= sum(misses) or not most:
        return ""
    least = _LEAST_CLASS << misses.index(most)
    return f"; {percent(most / sum(misses))} of them are of {_class_text(least)} and more"


def _class_text(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size >> 10} KiB"


def _asides(m: Measurement, e: Estimate, options: Options) -> Iterator[Item]:
    """Yield what is worth knowing whatever the verdict."""
    file_faults = m.classes.get(Kind.FAULT_FILE)
    if file_faults and m.cpu_s > 0 and file_faults.seconds / m.cpu_s >= 0.05:
        yield Item(
            "file-faults",
            f"{percent(file_faults.seconds / m.cpu_s)} of its CPU time goes into faults on mapped "
            "files (proving keys, perhaps), which no allocator saves: map them with "
            "MAP_POPULATE, or read them once into memory",
        )
    context = m.context
    limit, used = context.cgroup_limit, context.cgroup_used
    near = bool(limit and used and used > PRESSED * limit)
    if near or (context.psi_some_s or 0.0) > PRESSURE * m.duration_s:
        yield Item(
            "memory-is-short",
            "memory is short here"
            + (
                f": {(used or 0) / (limit or 1):.0%} of the control group's limit is used"
                if near
                else ""
            )
            + "; a cache would have to give back what it keeps, so raise the limit first",
        )
    wait_s = context.mmap_lock_wait_s or 0.0
    if m.cpu_s > 0 and wait_s > LOCKED * m.cpu_s:
        yield Item(
            "mmap-lock",
            f"its threads waited {wait_s:.1f} s for each other's changes to the address space "
            "(mmap_lock), on top of the CPU time: a cache makes fewer of them",
        )
    if e.running < 0.5 and m.bins:
        yield Item(
            "idle",
            f"it ran in {percent(e.running)} of the window, and waited or had no CPU in the rest; "
            "predictions are for the part in which it ran",
        )
    if m.method.tier is Tier.PROC and e.verdict is not Verdict.NOT_BOUND:
        yield Item(
            "better-tier",
            "this was computed from counters; with permission to sample the kernel it "
            "would be measured",
            f"sudo {again(m, None, options)}" if not m.exited else None,
        )
