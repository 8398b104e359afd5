# SPDX-License-Identifier: MIT OR Apache-2.0
"""One target on every allocator in turns, with zkprof watching the first.

Each process makes a batch when told and sleeps otherwise. Two are on the system allocator:
zkprof measures one of them, and the other is what the caches are compared with, so that what
measuring costs is neither saved nor lost. All are compared within the round: what a fault costs
here changes from minute to minute, and a prediction is about the time that it was made at.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from threading import Event, Thread

from zk_nalloc._config import preload_path
from zkprof.demo import clean_environment
from zkprof.errors import ZkprofError
from zkprof.measure import measure
from zkprof.model import Measurement, Tier

WATCHED, SYSTEM = "glibc, watched", "glibc"
OURS, KEPT, HUGE = "libzknalloc", "glibc, kept", "libzknalloc, huge pages"

_KEEP = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1099511627776"
    ":glibc.malloc.trim_threshold=1099511627776:glibc.malloc.top_pad=67108864"
    ":glibc.malloc.arena_max=1"
}


class BenchError(Exception):
    """A target did not do what it was told."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch cost, as the target counted."""

    wall_s: float
    cpu_s: float
    faults: int
    parts: dict[str, float]


@dataclass(slots=True)
class Outcome:
    """The batches on each allocator, and what zkprof said of the watched copy."""

    batches: dict[str, list[Batch]] = field(default_factory=dict)
    reports: dict[Tier, Measurement] = field(default_factory=dict)
    problems: dict[Tier, str] = field(default_factory=dict)

    def savings(self, name: str, of: Callable[[Batch], float]) -> list[float]:
        """Return the share that each round saved against the system allocator."""
        pairs = zip(self.batches[SYSTEM], self.batches[name], strict=True)
        return [1 - of(mine) / of(base) for base, mine in pairs]

    def cpu_saving(self, name: str) -> float:
        """Return the median share of the CPU time that was saved."""
        return median(self.savings(name, lambda batch: batch.cpu_s))

    def parts_s(self) -> dict[str, float]:
        """Return where the watched copy's CPU time went by its own clocks."""
        total: dict[str, float] = {}
        for batch in self.batches[WATCHED]:
            for part, seconds in batch.parts.items():
                total[part] = total.get(part, 0.0) + seconds
        return total


def allocators(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the environments to compare, the watched one first."""
    base = clean_environment(environ)
    preloaded = base | {"LD_PRELOAD": str(preload_path())}
    return {
        WATCHED: base,
        SYSTEM: base,
        # Recycling alone, which is what zkprof predicts.
        OURS: preloaded | {"ZK_NALLOC_THP": "0"},
        KEPT: base | _KEEP,
        HUGE: preloaded,
    }


def race(
    command: Sequence[str],
    environments: Mapping[str, dict[str, str]],
    rounds: int,
    tiers: Sequence[Tier],
    rate_hz: float,
) -> Outcome:
    """Run a target on every allocator.

    Parameters
    ----------
    command
        The target.
    environments
        The allocators by name; `WATCHED` is profiled.
    rounds
        Batches on each allocator, besides a first one that does not count.
    tiers
        The ways of measuring, all at once.
    rate_hz
        Samples per second of CPU time.

    Raises
    ------
    BenchError
        The target failed.
    """
    outcome = Outcome({name: [] for name in environments})
    with ExitStack() as stack:
        pages = stack.enter_context(_pages())
        running = {
            name: stack.enter_context(_started(command, env, pages))
            for name, env in environments.items()
        }
        for process in running.values():
            _batch(process)
        with _watched(running[WATCHED].pid, tiers, rate_hz, outcome):
            names = list(running)
            for number in range(rounds):
                # Each comes first, second ... equally often, and after each neighbour: what
                # zkprof makes of one batch, it makes during the next.
                turn = number % len(names)
                order = names[turn:] + names[:turn]
                for name in order if number % 2 else reversed(order):
                    outcome.batches[name].append(_batch(running[name]))
    return outcome


def watched_or_not(
    command: Sequence[str],
    env: dict[str, str],
    rounds: int,
    batches: int,
    tier: Tier,
    rate_hz: float,
) -> tuple[list[float], list[float], list[Measurement]]:
    """Run one process, watched and unwatched in turns.

    Attaching takes a second, for which it waits. That alone makes a batch dearer, by most of a
    percent where it only faults: its caches and the pages it gave back are cold. So it waits as
    long before the batches that are not watched. And a window has several batches, as what
    attaching leaves behind is paid once.

    Returns
    -------
    tuple
        The CPU seconds of so many batches while nobody watched, of as many that were watched,
        round by round, and what zkprof said of these.

    Raises
    ------
    BenchError
        The target failed, or cannot be measured so.
    """
    plain: list[float] = []
    watched: list[float] = []
    reports = []
    waited_s = 0.0

    def some() -> float:
        return sum(_batch(process).cpu_s for _ in range(batches))

    def rested() -> float:
        time.sleep(waited_s)
        return some()

    with _pages() as pages, _started(command, env, pages) as process:
        _batch(process)
        for number in range(rounds):
            outcome = Outcome()
            if number % 2:
                plain.append(rested())
            began = time.monotonic()
            with _watched(process.pid, (tier,), rate_hz, outcome):
                waited_s = time.monotonic() - began
                watched.append(some())
            if not number % 2:
                plain.append(rested())
            if problem := outcome.problems.get(tier):
                raise BenchError(f"cannot be measured by {tier}: {problem}")
            reports.append(outcome.reports[tier])
    return plain, watched, reports


@contextmanager
def _pages() -> Iterator[int]:
    """Make a file in memory, for all copies: pages that lie elsewhere may cost others."""
    pages = os.memfd_create("pages")
    try:
        yield pages
    finally:
        os.close(pages)


@contextmanager
def _started(
    command: Sequence[str], env: dict[str, str], pages: int
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        env=env | {"TARGET_PAGES": str(pages)},
        pass_fds=(pages,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise BenchError(f"{' '.join(command)} did not start")
            yield process
        finally:
            process.kill()


def _batch(process: subprocess.Popen[str]) -> Batch:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"a target ended with exit code {process.wait()}")
    numbers = json.loads(line)
    parts = {
        name: numbers[name]
        for name in numbers
        if name.endswith("_s") and name not in ("wall_s", "user_s", "system_s")
    }
    return Batch(
        wall_s=numbers["wall_s"],
        cpu_s=numbers["user_s"] + numbers["system_s"],
        faults=numbers["faults"],
        parts=parts,
    )


@contextmanager
def _watched(pid: int, tiers: Sequence[Tier], rate_hz: float, outcome: Outcome) -> Iterator[None]:
    """Measure a process in each of `tiers` for the length of the block."""
    stop = Event()
    ready = {tier: Event() for tier in tiers}

    def watch(tier: Tier) -> None:
        try:
            # The first tick comes when the window is open.
            outcome.reports[tier] = measure(
                pid, math.inf, rate_hz, lambda _: ready[tier].set(), stop, tier=tier
            )
        except (ZkprofError, OSError) as error:
            outcome.problems[tier] = str(error)
            ready[tier].set()

    threads = [Thread(target=watch, args=(tier,)) for tier in tiers]
    for thread in threads:
        thread.start()
    try:
        for event in ready.values():
            event.wait(30)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
