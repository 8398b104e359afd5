# SPDX-License-Identifier: MIT OR Apache-2.0
"""A report that has everything, made up, and one with hostile names in it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from tests.zkprof.advising.conftest import library, measurement
from zkprof.model import (
    Bin,
    Context,
    Frame,
    Kind,
    LibraryCounters,
    Measurement,
    MemoryPoint,
    Method,
    PythonJoin,
    Share,
    StackTime,
    Target,
    ThreadTime,
    Tier,
    Traffic,
)
from zkprof.report import Report

__all__ = ["library", "measurement"]

GB = 10**9
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n\u202e\udcff'\"&;[bold]x[/bold]"

# Where a prover spends its time: stack, class, share.
_STACKS: tuple[tuple[str, Kind, float], ...] = (
    ("main prove commit_trace ntt::forward butterflies", Kind.USER, 0.22),
    ("main prove commit_trace ntt::forward alloc_zeroed memset", Kind.FAULT_ANON, 0.17),
    ("main prove commit_trace ntt::forward drop free munmap", Kind.UNMAP, 0.05),
    ("main prove commit_trace merkle::build hash_rows blake2s", Kind.USER, 0.15),
    ("main prove commit_trace merkle::build collect memcpy", Kind.FAULT_ANON, 0.09),
    ("main prove quotient evaluate_constraints", Kind.USER, 0.10),
    ("main prove quotient with_capacity memset", Kind.FAULT_ANON, 0.06),
    ("main prove fri::fold", Kind.USER, 0.06),
    ("main prove fri::fold drop free madvise", Kind.MADVISE, 0.02),
    ("main load_key read_points", Kind.FAULT_FILE, 0.04),
    ("main load_key read", Kind.KERNEL, 0.04),
)


def doing_well() -> LibraryCounters:
    """Counters of a library that is doing well."""
    hits = tuple(900 - 30 * i if i < 12 else 0 for i in range(24))
    misses = tuple(20 + i if i < 12 else 0 for i in range(24))
    counters = {
        "hits": sum(hits),
        "misses": sum(misses),
        "magazine_hits": 2000,
        "bytes_hit": 90 * GB,
        "bytes_missed": 5 * GB,
        "bytes_evicted": GB,
        "live_now": 3 * GB,
        "cached_now": GB // 2,
    }
    return LibraryCounters("0.1.0", 1 << 30, 1, counters, hits, misses)


def everything(
    threads: int = 4,
    duration_s: float = 10.0,
    **changes: Any,  # noqa: ANN401
) -> Measurement:
    """Make a measurement in which every field is filled."""
    cpu_s = duration_s * threads * 0.8
    names = list(dict.fromkeys(name for text, _, _ in _STACKS for name in text.split()))
    frames = tuple(
        Frame(name, "libc.so.6" if name in {"memset", "memcpy"} else "prove", "src/x.rs", 10 + i)
        for i, name in enumerate(names)
    )
    tids = [4242 + i for i in range(threads)]
    stacks = tuple(
        StackTime(
            kind,
            tid,
            tuple(names.index(name) for name in text.split()),
            share * cpu_s / threads,
            round(share * cpu_s / threads * 199),
        )
        for text, kind, share in _STACKS
        for tid in tids
    )
    by_kind = dict.fromkeys(Kind, 0.0)
    for stack in stacks:
        by_kind[stack.kind] += stack.seconds
    n = round(duration_s * 20)
    bins = []
    for i in range(n):
        phase = math.sin(i / 14) ** 2
        busy = {tid: 0.05 * (0.6 + 0.4 * phase) for j, tid in enumerate(tids) if (i + 9 * j) % 50}
        total = sum(busy.values())
        kinds = {k: s / cpu_s * total for k, s in by_kind.items()}
        moved = kinds[Kind.USER] * 0.5 * phase
        kinds[Kind.USER] -= moved
        kinds[Kind.FAULT_ANON] += moved
        share = (kinds[Kind.FAULT_ANON] + kinds[Kind.UNMAP]) / total if total else 0.0
        managed = {tid: s * share for tid, s in busy.items()}
        bins.append(Bin(1000 + i / 20, 0.05, busy, managed, kinds))
    memory = tuple(
        MemoryPoint(
            1000 + i / 20,
            rss := int(4 * GB + 3 * GB * math.sin(i / 14)),
            rss - GB // 10,
            min(7 * GB, 4 * GB + i * GB // 20),
            i * 40_000,
            i // 50,
            i / 20 * 0.6,
            i / 20 * 0.3,
            threads,
        )
        for i in range(n + 1)
    )
    per_thread = {k: s / threads for k, s in by_kind.items()}
    return dataclasses.replace(
        Measurement(
            target=Target(
                4242, "prove", "/opt/prove", "glibc", True, "it resolves malloc", "madvise", 8
            ),
            method=Method(Tier.KERNEL, 199.0, round(cpu_s * 199), 3, 0.006, 2300.0, ("a note",)),
            started=1000.0,
            duration_s=duration_s,
            cpu_s=cpu_s,
            classes={k: Share(s, 0.95 * s, 1.05 * s) for k, s in by_kind.items()},
            overlays={"zeroing": 0.1 * cpu_s, "lock_spin": 0.01 * cpu_s},
            memory=memory,
            threads=tuple(
                ThreadTime(tid, f"worker-{i}", cpu_s / threads, per_thread)
                for i, tid in enumerate(tids)
            ),
            bins=tuple(bins),
            frames=frames,
            stacks=stacks,
            python=PythonJoin("py-spy", 0.94, 0.003),
            traffic=Traffic(90 * GB, 88 * GB, GB, {"mmap": 1200, "munmap": 1190, "brk": 4}),
            context=Context(0.12, 0.4, 16 * GB, 9 * GB, 1.25),
            pids=(4242,),
        ),
        **changes,
    )


def hostile() -> Measurement:
    """Make a measurement whose every name tries to break out of its place."""
    m = everything()
    evil = HOSTILE + ESCAPES
    return dataclasses.replace(
        m,
        target=dataclasses.replace(m.target, comm=evil, exe="/" + evil, preload_reason=evil),
        threads=tuple(dataclasses.replace(t, comm=evil) for t in m.threads),
        frames=tuple(
            dataclasses.replace(f, name=evil + f.name, module=evil, file=evil) for f in m.frames
        ),
        method=dataclasses.replace(m.method, notes=(evil,)),
    )


@pytest.fixture
def full() -> Report:
    return Report.of(everything(library=doing_well()))


@pytest.fixture
def evil() -> Report:
    return Report.of(hostile())


@pytest.fixture
def made() -> Any:  # noqa: ANN401
    return everything
