# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tier 1: CPU time by class, from samples with kernel call chains.

Samples are proportional to CPU time.  How much CPU time there was, the kernel
knows exactly; so a class's time is its share of the samples times that.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .calibrate import page_cost, sample_cost
from .classify import ATTRIBUTED_FAULTS, Classifier, NoKernelSymbolsError
from .divide import (
    Bins,
    Seconds,
    add,
    anon_share,
    bin_of,
    classes_of,
    fault_split,
    first_touches,
    seconds_of,
)
from .learn import learned_classifier
from .model import Kind, PythonJoin, ThreadTime, Tier
from .perf_map import PYTHON
from .procfs import NoSuchProcessError
from .python_stacks import Joined, PySpy, fold, is_python
from .sampler import BIN_S, PerfUnavailableError, Sampler, Scope, open_sampler, stack_bytes
from .skid import corrections, fault_skid_s
from .stacks import Names, Spaces, stack_times
from .window import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .family import Family
    from .model import MemoryPoint, StackTime
    from .procfs import Mapping as MemoryMapping

# Of kernel chains without a known way in: above this, the symbol table is
# not for this kernel.
_MAX_UNKNOWN = 0.02
# Of the samples expected: below this, threads are too short to be sampled.
_MIN_COVERAGE = 0.8
# How often this is looked at, for how many samples due, and below which part of
# them another way is taken: a thread's first sample is a whole period after its
# start, so threads briefer than that have none.
_CHECK_S = 0.5
_ENOUGH_DUE = 60
_BRIEF = 0.6
# Of the stacks: below this, where the time goes is only told in part.
_MIN_COMPLETE = 0.7


@dataclass(frozen=True, slots=True)
class _Coverage:
    """CPU time, and the samples that there were of it."""

    cpu_s: float
    samples: int


class SampledWindow:
    """A window of measuring by samples of user and kernel mode.

    A fault that copies a page on writing is of its own kind after a fork. In a
    process that shares no pages it is the second half of a first touch: the
    page was read before it was written, so the kernel had mapped its zero page
    there. Rust provers do that a lot, and memory that stays saves both halves.

    Parameters
    ----------
    family
        The target, with or without its children.
    rate_hz
        Samples per second of CPU time.
    python
        Whether to look for the functions of a Python program.

    Raises
    ------
    PerfUnavailableError, NoKernelSymbolsError
        This tier is not possible here.
    """

    tier = Tier.KERNEL

    def __init__(self, family: Family, rate_hz: float, *, python: bool = False) -> None:
        process = family.process
        self._rate_hz = rate_hz
        self._classifier, notes = _classifier()
        self._cost = sample_cost(self._classifier, stack_bytes(rate_hz))
        self._skid_s = fault_skid_s(self._classifier)
        self._process = process
        self._alone = not process.shares_pages()
        # bin -> tid -> kind -> samples
        self._bins: Bins = defaultdict(lambda: defaultdict(Counter))
        self._overlays: Counter[str] = Counter()
        self._spaces = Spaces(process)
        self._spaces.prepare()
        try:
            self._sampler, more = open_sampler(
                process.pid,
                rate_hz,
                self._classifier,
                follow=family.follow,
                keep_moments=python,
            )
        except PerfUnavailableError:
            self._spaces.close()
            raise
        self._family = family
        self._coverage = _Coverage(0.0, 0)
        self._next_check = time.monotonic()
        self._brief = False
        self._python = python
        self._py_spy: PySpy | None = None
        self._joined: Joined | None = None
        self._notes = notes + more
        self._frames = Names(self._spaces)
        self._spaces.supply(self._sampler)

    def close(self) -> None:
        """Stop sampling."""
        self._sampler.close()
        self._spaces.close()
        if self._py_spy:
            self._py_spy.close()

    def wait(self, timeout_s: float) -> None:
        """Read samples for up to `timeout_s`."""
        self._spaces.supply(self._sampler)
        self._sampler.drain(timeout_s)
        if self._sampler.scope is Scope.TASKS and time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + _CHECK_S
            self._check_coverage()

    def _check_coverage(self) -> None:
        """Sample CPUs instead of threads where these end before they are sampled."""
        counts = self._sampler.counts
        with suppress(NoSuchProcessError):
            # With children that have ended: brief ones are there no more when asked.
            point, _ = self._family.point()
            now = _Coverage(point.utime_s + point.stime_s, counts.samples + counts.lost)
            before = self._coverage
            due = (now.cpu_s - before.cpu_s) * self._rate_hz
            if before.cpu_s and due < _ENOUGH_DUE:
                return
            self._coverage = now
            if before.cpu_s and now.samples - before.samples < _BRIEF * due:
                self._sample_cpus()

    def _sample_cpus(self) -> None:
        try:
            sampler = Sampler(
                self._process.pid,
                self._rate_hz,
                classifier=self._classifier,
                scope=Scope.CPUS,
                start_ns=self._sampler.start_ns,
                follow=self._family.follow,
                keep_moments=self._python,
            )
        except PerfUnavailableError:
            return  # the shortfall is noted as it is
        self._sampler.close()
        self._sampler = sampler
        self._spaces.restart()
        self._frames.look_again()
        # What was seen until now is of those threads only that lived longer.
        self._bins.clear()
        self._overlays.clear()
        self._brief = True
        self._notes.append(
            "threads or children live for a few milliseconds only: sampling all processes and "
            "keeping this one's samples"
        )

    def look(self, mappings: Sequence[MemoryMapping]) -> None:
        """Start py-spy as soon as the target is seen to run Python."""
        if self._python and not self._py_spy and is_python(mappings):
            self._py_spy = PySpy(self._process.pid, follow=self._family.follow)

    def finish(self) -> None:
        """Join the samples with what py-spy has seen, unless names are known exactly."""
        self._frames.look_again()
        paths = self._frames.update(self._sampler)
        announced = any(frame.module == PYTHON for frame in self._frames.frames)
        if self._py_spy is None or announced:
            return
        timeline = self._py_spy.finish()
        if timeline is None:
            self._notes.append(f"Python functions are not known: {self._py_spy.problem}")
            return
        self._joined = Joined(
            timeline, self._py_spy.started, self._sampler.moments(), paths, self._frames
        )

    def update(self) -> None:
        """Take in what was sampled since the last call."""
        self._sampler.drain()
        for cell in self._sampler.take():
            self._bins[cell.bin][cell.tid][cell.kind] += cell.count
            for name in self._classifier.overlays(cell.overlays):
                self._overlays[name] += cell.count
        if self._alone:
            # Once it has ended, what was known stands; until its parent has
            # taken note it is there, without a stack.
            with suppress(NoSuchProcessError):
                self._alone = not self._process.stat().stack or not self._process.shares_pages()

    def pids(self) -> list[int]:
        """Return the processes that samples came from."""
        return self._sampler.pids()

    def findings(self, first: MemoryPoint, last: MemoryPoint) -> Findings:
        """Return what is known so far."""
        cpu_s = last.utime_s + last.stime_s - first.utime_s - first.stime_s
        samples = sum(
            kinds.total() for threads in self._bins.values() for kinds in threads.values()
        )
        scale = cpu_s / samples if samples else 0.0
        bins_seen = self._bins
        if self._alone:
            bins_seen = first_touches(bins_seen)
        split = fault_split(bins_seen)
        anon = anon_share(split)
        factors = self._factors(bins_seen, scale, last.minor_faults - first.minor_faults)
        by_thread: defaultdict[int, Seconds] = defaultdict(dict)
        bins, blocks = [], []
        for index in sorted(bins_seen):
            block: Seconds = {}
            seconds = {
                tid: seconds_of(kinds, scale, split, factors)
                for tid, kinds in bins_seen[index].items()
            }
            for tid, thread in seconds.items():
                add(by_thread[tid], thread)
                add(block, thread)
            bins.append(bin_of(self._sampler.start_ns / 1e9 + index * BIN_S, seconds, block, anon))
            blocks.append(block)
        threads = [
            ThreadTime(tid, self._sampler.name(tid), sum(kinds.values()), kinds)
            for tid, kinds in by_thread.items()
        ]
        found = self._paths()
        classes = classes_of(blocks, cpu_s)
        return Findings(
            cpu_s=cpu_s,
            classes=classes,
            overlays={
                name: self._overlays[name] * scale
                for name in self._classifier.rules.overlays
                if not self._classifier.learned
            },
            threads=tuple(sorted(threads, key=lambda thread: -thread.cpu_s)),
            bins=tuple(bins),
            samples=samples,
            lost=self._sampler.counts.lost,
            ns_per_fault=page_cost().touch_ns,
            overhead=self._cost.overhead(
                self._rate_hz, classes[Kind.USER].seconds / cpu_s if cpu_s else 1.0
            ),
            notes=(*self._notes, *self._doubts(cpu_s)),
            stacks=self._stacks(found, scale, split, factors),
            frames=tuple(self._frames.frames),
            python=self._python_join(found),
        )

    def _factors(self, bins: Bins, scale: float, faults: int) -> Seconds:
        """Return what gives faults back the ends that samples do not show; see skid.py."""
        shown: Counter[Kind] = Counter()
        for threads in bins.values():
            for kinds in threads.values():
                shown.update(kinds)
        seconds = {kind: n * scale for kind, n in shown.items()}
        return corrections(seconds, max(0, faults) * self._skid_s)

    def _stacks(
        self,
        found: Mapping[tuple[int, Kind, tuple[int, ...]], int],
        scale: float,
        split: Seconds,
        factors: Seconds,
    ) -> tuple[StackTime, ...]:
        """Return where each class's time went, divided as the classes are."""
        places: defaultdict[tuple[int, tuple[int, ...]], Counter[Kind]] = defaultdict(Counter)
        for (tid, seen, frames), n in found.items():
            copied = seen is Kind.FAULT_COW and self._alone
            places[tid, frames][Kind.FAULT_ANON if copied else seen] += n
        counted = []
        for (tid, frames), kinds in places.items():
            # A fault of no visible kind is of those that were seen at its
            # place, or else of those seen anywhere.
            here = {k: kinds[k] for k in ATTRIBUTED_FAULTS if kinds[k]}
            own = {k: n / sum(here.values()) for k, n in here.items()}
            for kind, seconds in seconds_of(kinds, scale, own or split, factors).items():
                counted.append((tid, kind, frames, seconds, kinds[kind]))
        return stack_times(counted)

    def _paths(self) -> Mapping[tuple[int, Kind, tuple[int, ...]], int]:
        """Return how many samples there are of each thread, kind and stack."""
        if self._joined:
            return self._joined.samples
        paths = self._frames.update(self._sampler)
        found: Counter[tuple[int, Kind, tuple[int, ...]]] = Counter()
        for stack in self._sampler.stacks():
            found[stack.tid, stack.kind, fold(paths[stack.node], (), self._frames)] += stack.count
        return found

    def _python_join(
        self, found: Mapping[tuple[int, Kind, tuple[int, ...]], int]
    ) -> PythonJoin | None:
        if self._joined:
            return self._joined.join
        is_of_python = {i for i, f in enumerate(self._frames.frames) if f.module == PYTHON}
        if not is_of_python:
            return None
        with_, tids = 0, set()
        for (tid, _, frames), n in found.items():
            if not is_of_python.isdisjoint(frames):
                with_ += n
                tids.add(tid)
        of_python = sum(n for (tid, _, _), n in found.items() if tid in tids)
        return PythonJoin("perf-map", with_ / of_python if of_python else 0.0, 0.0)

    def _doubts(self, cpu_s: float) -> list[str]:
        counts = self._sampler.counts
        doubts = []
        if counts.lost:
            share = counts.lost / (counts.lost + counts.samples)
            doubts.append(f"{counts.lost} samples ({share:.1%}) were lost: lower --rate")
        if counts.samples > 100 and counts.complete < _MIN_COMPLETE * counts.samples:
            doubts.append(
                f"{1 - counts.complete / counts.samples:.0%} of the stacks lack their outer part: "
                "they are deeper than was copied, or cross code that only frame pointers lead "
                "through (-fno-omit-frame-pointer; Rust: -C force-frame-pointers=yes; Java: "
                "-XX:+PreserveFramePointer)"
            )
        if counts.throttled:
            doubts.append(f"the kernel slowed sampling down {counts.throttled} times: lower --rate")
        # Interrupts cannot be learned.
        known = not self._classifier.learned
        if known and counts.kernel and counts.no_entry / counts.kernel > _MAX_UNKNOWN:
            share = counts.no_entry / counts.kernel
            doubts.append(
                f"{share:.0%} of the kernel's call chains start in a way that zkprof does not "
                "know; times of classes may be too low: report `uname -r` to its authors"
            )
        expected = cpu_s * self._rate_hz
        if (
            not self._brief
            and expected > 200
            and counts.samples + counts.lost < _MIN_COVERAGE * expected
        ):
            doubts.append(
                f"{counts.samples} samples where {expected:.0f} were due: threads that live "
                "for a few milliseconds only are under-represented: raise --rate"
            )
        return doubts


def _classifier() -> tuple[Classifier, list[str]]:
    """Return a classifier, by symbols or else learned, and what to say about it."""
    try:
        return Classifier(), []
    except NoKernelSymbolsError as hidden:
        note = f"kernel functions were told apart by sampling zkprof's own calls: {hidden}"
        return learned_classifier(), [note]
