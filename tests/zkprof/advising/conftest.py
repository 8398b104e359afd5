# SPDX-License-Identifier: MIT OR Apache-2.0
"""Measurements whose truth is known, because they were made up."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.model import (
    Bin,
    Kind,
    LibraryCounters,
    Measurement,
    MemoryPoint,
    Method,
    Share,
    Target,
    ThreadTime,
    Tier,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = resource.getpagesize()
GB = 10**9
DEMO = Path(__file__).parents[3] / "profiler" / "demo"


def made_up(
    shares: dict[Kind, float] | None = None,
    *,
    cpu_s: float = 5.0,
    duration_s: float = 5.0,
    growth: float = 0.0,
    faulted: int = 4 * GB,
    noise: float = 0.0,
    zeroing: float | None = 0.0,
    tier: Tier = Tier.KERNEL,
    samples: int = 1000,
    lost: int = 0,
    bins: tuple[Bin, ...] | None = None,
    library: LibraryCounters | None = None,
    exited: bool = False,
    **target: Any,  # noqa: ANN401
) -> Measurement:
    """Make a measurement of one thread with classes of the given shares of CPU time."""
    shares = dict(shares or {})
    shares[Kind.USER] = 1.0 - sum(shares.values())
    seconds = {kind: shares.get(kind, 0.0) * cpu_s for kind in Kind}
    managing = sum(
        seconds[kind]
        for kind in (Kind.FAULT_ANON, Kind.PREFAULT, Kind.UNMAP, Kind.MADVISE, Kind.MMAP)
    )
    if bins is None:
        bins = tuple(Bin(i / 10, 0.1, {7: cpu_s / 50}, {7: managing / 50}) for i in range(50))
    grown = int(growth * faulted)
    base = GB
    first = MemoryPoint(0.0, base, base, base, 0, 0, 0.0, 0.0, 1)
    last = MemoryPoint(
        duration_s, base + grown, base + grown, base + grown, faulted // PAGE, 0, cpu_s, 0.0, 1
    )
    return Measurement(
        target=Target(
            **{
                "pid": 4242,
                "comm": "prover",
                "exe": "/opt/prover",
                "allocator": "glibc",
                "preloadable": True,
                "preload_reason": "the program resolves malloc at run time",
                "thp": "madvise",
                "cpus": 2,
            }
            | target
        ),
        method=Method(tier, 199.0, samples, lost, 0.003, 2300.0),
        started=0.0,
        duration_s=duration_s,
        cpu_s=cpu_s,
        classes={
            kind: Share(s, max(0.0, s - noise * cpu_s), s + noise * cpu_s)
            for kind, s in seconds.items()
        },
        overlays={} if zeroing is None else {"zeroing": zeroing * cpu_s},
        memory=(first, last),
        threads=(ThreadTime(7, "prover", cpu_s, seconds),),
        bins=bins,
        library=library,
        exited=exited,
    )


@pytest.fixture
def measurement() -> Callable[..., Measurement]:
    return made_up


def counters(*, copies: int = 1, cache_bytes: int = 1 << 30, **values: int) -> LibraryCounters:
    """Make the counters of a window on libzknalloc."""
    return LibraryCounters("0.1.0", cache_bytes, copies, values, (0,) * 24, (0,) * 24)


@pytest.fixture
def library() -> Callable[..., LibraryCounters]:
    return counters


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the demonstration prover, without CMake."""
    program = tmp_path_factory.mktemp("demo") / "prover"
    sources = sorted(str(path) for path in (DEMO / "src").glob("*.c"))
    flags = ["-std=gnu11", "-O2", "-pthread"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, *sources, "-o", program], check=True)
    return program
