# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tiers 2 and 3: CPU time by class, from counters that every user may read.

/proc tells how many page faults there were and how much CPU time was spent in
the kernel.  Faults times the calibrated cost of a first touch is the time in
faults; pages that were faulted in and are not there any more must have been
unmapped, at a calibrated cost as well; both together cannot exceed the kernel's
time.  Where some came in huge pages (`huge`), as many at least are added, and the
high end is all of the kernel's time.

How much the kernel's time is, /proc says in ticks (`Tier.PROC`).  Unprivileged
perf says it better (`Tier.USER`): its clock runs on in kernel mode but takes
no samples there, so the samples that are missing are the kernel's.  And it may
sample page faults, which says where in the program they are and whether it was
a file that was mapped there (`faults`).
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .calibrate import PageTimer, SampleCost, huge_page_ns, page_cost, sample_cost
from .estimate import ZEROING_SHARE
from .faults import FaultSampler
from .huge import HugeFaults, huge_page_bytes
from .model import Bin, Kind, Share, StackTime, ThreadTime, Tier
from .sampler import PerfUnavailableError, Sampler, open_sampler, stack_bytes
from .shares import added, capped, part, rest
from .stacks import Names, Spaces, stack_times
from .window import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .family import Family
    from .model import MemoryPoint
    from .procfs import Mapping, Stat

POLL_S = 0.5
"""How often the threads' counters are read."""

_ONE_KIND = (
    "without samples of page faults, those on mapped files are told from anonymous ones by how "
    "resident memory moves"
)
_FIRST_ROUNDS = 3
# Of the CPU time, in the kernel and not by faults on small pages: worth a word.
_UNEXPLAINED = 0.15
# Of the CPU time: rises of memory that cost less may be by chance.
_LEAST_HUGE = 0.01
# Of the faults, as copies after a fork: the same.
_COPIED = 0.05
_PAGE = os.sysconf("SC_PAGESIZE")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _Thread:
    """What one thread used in the window, and where its counters stand."""

    comm: str
    seen: Stat | None
    cpu_s: float = 0.0
    stime_s: float = 0.0
    faults: int = 0


@dataclass(frozen=True, slots=True)
class _Slice:
    """One reading of all threads: CPU seconds and faults since the one before."""

    t: float
    width_s: float
    cpu_s: dict[int, float]
    faults: dict[int, int]


@dataclass(frozen=True, slots=True)
class _Split:
    """Where the CPU time went."""

    kernel: Share
    touch: Share
    huge: Share
    """First touches of huge pages; the others are of small ones."""
    unmap: Share


class CountedWindow:
    """A window of measuring without kernel call chains.

    Parameters
    ----------
    family
        The target, with or without its children.
    rate_hz
        Samples per second of CPU time; None reads /proc only.

    Raises
    ------
    PerfUnavailableError
        `rate_hz` was given and perf is not permitted.
    """

    def __init__(self, family: Family, rate_hz: float | None) -> None:
        self.tier = Tier.PROC if rate_hz is None else Tier.USER
        self._family = family
        self._rate_hz = rate_hz
        page_cost()  # warms up
        self._timer = PageTimer()
        for _ in range(_FIRST_ROUNDS):
            self._timer.round()
        self._cost = sample_cost(None, stack_bytes(rate_hz)) if rate_hz else SampleCost(0.0, 0.0)
        self._user_samples = 0
        self._threads: dict[int, _Thread] = {}
        self._slices: list[_Slice] = []
        self._sampler: Sampler | None = None
        self._faults: FaultSampler | None = None
        self._notes: list[str] = []
        self._spaces = Spaces(family.process)
        self._names = Names(self._spaces)
        if rate_hz is not None:
            self._open(family, rate_hz)
        family.watch_kinds()
        self._huge = HugeFaults(family)
        self._polled = time.monotonic()
        for tid, stat in self._stats():
            self._threads[tid] = _Thread(stat.comm, stat)

    def _open(self, family: Family, rate_hz: float) -> None:
        self._spaces.prepare()
        try:
            self._sampler, self._notes = open_sampler(
                family.process.pid, rate_hz, None, follow=family.follow
            )
        except PerfUnavailableError:
            self._spaces.close()
            raise
        try:
            self._faults = FaultSampler(family, self._sampler)
        except PerfUnavailableError as error:
            self._notes.append(f"page faults are not sampled: {error}")

    def close(self) -> None:
        """Stop sampling."""
        if self._faults:
            self._faults.close()
        if self._sampler:
            self._sampler.close()
        self._spaces.close()

    def wait(self, timeout_s: float) -> None:
        """Let `timeout_s` pass."""
        timeout_s -= self._huge.burst(timeout_s)
        if self._sampler:
            self._spaces.supply(self._sampler)
            if self._faults:
                timeout_s -= self._faults.burst()
            self._sampler.drain(max(0.0, timeout_s))
        else:
            time.sleep(max(0.0, timeout_s))
        if time.monotonic() - self._polled >= POLL_S:
            self._poll()

    def look(self, mappings: Sequence[Mapping]) -> None:
        """Nothing here depends on what is mapped."""

    def finish(self) -> None:
        """Nothing is left to the end."""

    def update(self) -> None:
        """Gather what was counted since the last call."""
        if self._sampler:
            self._sampler.drain()
            self._user_samples += sum(cell.count for cell in self._sampler.take())
        if time.monotonic() - self._polled >= POLL_S / 10:
            self._poll()

    def pids(self) -> list[int]:
        """Return the processes that samples came from."""
        return self._sampler.pids() if self._sampler else []

    def _stats(self) -> Iterator[tuple[int, Stat]]:
        for member in self._family.members:
            yield from member.threads().items()

    def _poll(self) -> None:
        now = time.monotonic()
        cpu_s, faults = {}, {}
        for tid, stat in self._stats():
            # A thread that is new has used all that it ever used just now.
            thread = self._threads.setdefault(tid, _Thread(stat.comm, None))
            before = thread.seen
            cpu_s[tid] = stat.cpu_s - (before.cpu_s if before else 0.0)
            faults[tid] = stat.minor_faults - (before.minor_faults if before else 0)
            thread.comm, thread.seen = stat.comm, stat
            thread.cpu_s += cpu_s[tid]
            thread.stime_s += stat.stime_s - (before.stime_s if before else 0.0)
            thread.faults += faults[tid]
        self._timer.round()
        self._slices.append(_Slice(self._polled, now - self._polled, cpu_s, faults))
        self._polled = now

    def findings(self, first: MemoryPoint, last: MemoryPoint) -> Findings:
        """Return what is known so far."""
        cpu_s = last.utime_s + last.stime_s - first.utime_s - first.stime_s
        counted = max(0, last.minor_faults - first.minor_faults)
        copies = min(self._family.copies, counted)
        split = self._split(first, last, cpu_s, copies)
        kinds = self._faults.kinds() if self._faults else {}
        copied = copies / counted if counted else 0.0
        # Copies are of anonymous memory, too.
        anon = max(
            0.0, (kinds.get(Kind.FAULT_ANON, 0.0) if kinds else 1 - self._family.files) - copied
        )
        touch_s = split.touch.seconds + split.huge.seconds
        mm_s = touch_s + split.unmap.seconds
        # Threads were read at other moments than the process, and some ended
        # unread: their sums are made to agree with the process's totals.
        in_threads_s = sum(thread.cpu_s for thread in self._threads.values())
        scale = cpu_s / in_threads_s if in_threads_s else 0.0
        faults = sum(thread.faults for thread in self._threads.values())
        per_fault = mm_s / faults if faults else 0.0
        nothing = Share(0.0, 0.0, 0.0)
        classes = dict.fromkeys(Kind, nothing) | {
            Kind.FAULT_ANON: added(part(split.touch, anon), split.huge, split.kernel.high),
            Kind.FAULT_COW: part(split.touch, copied),
            Kind.FAULT_FILE: part(split.touch, max(0.0, 1 - anon - copied)),
            Kind.UNMAP: split.unmap,
            Kind.KERNEL: rest(split.kernel, mm_s),
            Kind.USER: Share(
                cpu_s - split.kernel.seconds, cpu_s - split.kernel.high, cpu_s - split.kernel.low
            ),
        }
        cleared = _cleared(part(split.touch, anon), split.huge)
        if touch_s:
            # Of the time of faults from here on, not of their number.
            anon = classes[Kind.FAULT_ANON].seconds / touch_s
            copied = classes[Kind.FAULT_COW].seconds / touch_s
        unmap_part = split.unmap.seconds / mm_s if mm_s else 0.0
        threads = [
            _thread_time(tid, thread, scale, per_fault, unmap_part, (anon, copied))
            for tid, thread in self._threads.items()
            if thread.cpu_s > 0
        ]
        return Findings(
            cpu_s=cpu_s,
            classes=classes,
            overlays=cleared,
            threads=tuple(sorted(threads, key=lambda thread: -thread.cpu_s)),
            bins=tuple(_bin(piece, scale, per_fault, anon) for piece in self._slices),
            samples=self._user_samples,
            lost=self._sampler.counts.lost if self._sampler else 0,
            ns_per_fault=self._timer.cost().touch_ns,
            overhead=self._overhead(split, cpu_s),
            notes=(
                *self._notes,
                *([] if kinds else [_ONE_KIND]),
                *_forks(copied),
                *_limits(rest(split.kernel, mm_s).seconds, split.huge.seconds, cpu_s),
            ),
            stacks=self._stacks(classes),
            frames=tuple(self._names.frames),
        )

    def _overhead(self, split: _Split, cpu_s: float) -> float:
        if not cpu_s:
            return 0.0
        of_samples = self._cost.overhead(self._rate_hz or 0.0, 1 - split.kernel.seconds / cpu_s)
        of_faults = self._faults.overhead * split.touch.seconds / cpu_s if self._faults else 0.0
        return of_samples + of_faults

    def _stacks(self, classes: dict[Kind, Share]) -> tuple[StackTime, ...]:
        """Return where user time and faults went, as far as samples of them show."""
        counted = []
        for sampler in [self._sampler, self._faults and self._faults.sampler]:
            if not sampler:
                continue
            paths = self._names.update(sampler)
            stacks = [stack for stack in sampler.stacks() if stack.kind is not Kind.FAULT_OTHER]
            totals = Counter[Kind]()
            for stack in stacks:
                totals[stack.kind] += stack.count
            counted += [
                (
                    stack.tid,
                    stack.kind,
                    paths[stack.node],
                    classes[stack.kind].seconds * stack.count / totals[stack.kind],
                    stack.count,
                )
                for stack in stacks
            ]
        return stack_times(counted)

    def _split(self, first: MemoryPoint, last: MemoryPoint, cpu_s: float, copies: int) -> _Split:
        kernel = self._kernel(first, last, cpu_s)
        counted = max(0, last.minor_faults - first.minor_faults)
        least, likely = self._huge.count(last.t - first.t)
        faults = max(0, counted - round(likely))
        grown = max(0, last.rss - first.rss) // _PAGE
        released = max(0, faults - copies - grown)
        cost = self._timer.cost()
        # The kernel's time is known to some error only: its upper end is the cap.
        limit = kernel.high
        touch = capped(faults, cost.touch_low, cost.touch_ns, cost.touch_high, limit)
        limit -= touch.seconds
        unmap = capped(released, cost.unmap_low, cost.unmap_ns, cost.unmap_high, limit)
        # Giving back huge pages takes hardly any time.
        limit -= unmap.seconds
        huge_s = huge_page_ns(self._huge.page_bytes) / 1e9 if likely else 0.0
        huge = Share(min(likely * huge_s, limit), min(least * huge_s, limit), limit)
        if huge.seconds < _LEAST_HUGE * cpu_s:
            huge = Share(0.0, 0.0, 0.0)
        at_least = touch.seconds + unmap.seconds + huge.seconds
        kernel = Share(max(kernel.seconds, at_least), kernel.low, kernel.high)
        return _Split(kernel, touch, huge, unmap)

    def _kernel(self, first: MemoryPoint, last: MemoryPoint, cpu_s: float) -> Share:
        """Return the kernel's part of `cpu_s`."""
        if self._rate_hz is None:
            quantum, seconds = _TICK_S, last.stime_s - first.stime_s
        else:
            quantum = 1 / self._rate_hz
            seconds = cpu_s - self._user_samples * quantum
        seconds = min(max(seconds, 0.0), cpu_s)
        # Both ways look at the CPU once a quantum: a binomial sample.
        looks = max(cpu_s / quantum, 1.0)
        share = seconds / cpu_s if cpu_s > 0 else 0.0
        error = 1.96 * math.sqrt(looks * share * (1 - share)) * quantum + quantum
        return Share(seconds, max(0.0, seconds - error), min(cpu_s, seconds + error))


def _thread_time(
    tid: int,
    thread: _Thread,
    scale: float,
    per_fault: float,
    unmap_part: float,
    parts: tuple[float, float],
) -> ThreadTime:
    cpu_s = thread.cpu_s * scale
    mm_s = min(thread.faults * per_fault, cpu_s)
    kernel = max(thread.stime_s * scale, mm_s)
    touch_s = mm_s * (1 - unmap_part)
    anon, copied = parts
    by_kind = {
        Kind.FAULT_ANON: touch_s * anon,
        Kind.FAULT_COW: touch_s * copied,
        Kind.FAULT_FILE: touch_s * max(0.0, 1 - anon - copied),
        Kind.UNMAP: mm_s * unmap_part,
        Kind.KERNEL: kernel - mm_s,
        Kind.USER: max(0.0, cpu_s - kernel),
    }
    return ThreadTime(tid, thread.comm, cpu_s, by_kind)


def _bin(piece: _Slice, scale: float, per_fault: float, anon: float) -> Bin:
    cpu_s = {tid: seconds * scale for tid, seconds in piece.cpu_s.items()}
    mm_s = {tid: anon * min(n * per_fault, cpu_s[tid]) for tid, n in piece.faults.items()}
    return Bin(piece.t, piece.width_s, cpu_s, mm_s)


def _cleared(small: Share, huge: Share) -> dict[str, float]:
    """Say how much of the time the kernel clears pages, where nearly all of a fault is that."""
    return {"zeroing": ZEROING_SHARE * small.seconds + huge.seconds} if huge.seconds else {}


def _forks(copied: float) -> list[str]:
    """Say how many faults were copies, where they are worth a word."""
    text = (
        f"{copied:.0%} of the page faults are taken for copies of pages that a fork left shared: "
        "that many at most, by the counters; only kernel stacks show them"
    )
    return [text] if copied >= _COPIED else []


def _limits(unexplained_s: float, huge_s: float, cpu_s: float) -> list[str]:
    """Say what these numbers cannot show."""
    notes = []
    if huge_s:
        notes.append(
            f"memory rises in huge pages: their faults take {huge_s / cpu_s:.0%} of the time by "
            "how fast it rises, and perhaps more; kernel stacks would show it"
        )
    if unexplained_s > _UNEXPLAINED * cpu_s:
        possible = "" if huge_s or not huge_page_bytes() else " (faults on huge pages are possible)"
        notes.append(
            f"{unexplained_s / cpu_s:.0%} of the time is in the kernel for reasons that only "
            f"kernel stacks can show{possible}"
        )
    return notes
