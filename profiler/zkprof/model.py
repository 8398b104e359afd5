# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a measurement is: plain, frozen values between measuring and advising.

The measuring side (`sampler`, `procfs`, `library`) fills a `Measurement`; the
advising side (`estimate`, `render`, `cli`) reads nothing else.  Times are in
seconds, sizes in bytes; moments are `time.monotonic()` values of one clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Tier(StrEnum):
    """How a measurement was made, best first."""

    KERNEL = "kernel-stacks"
    """perf samples with kernel call chains: every class is measured."""
    USER = "user-perf"
    """unprivileged perf: the kernel's share is what the samples miss."""
    PROC = "proc"
    """/proc only: page faults times a calibrated cost per fault."""


class Kind(StrEnum):
    """The classes of CPU time; every sample lands in exactly one."""

    FAULT_ANON = "fault.anon"
    FAULT_FILE = "fault.file"
    FAULT_COW = "fault.cow"
    FAULT_SWAP = "fault.swap"
    FAULT_NUMA = "fault.numa"
    FAULT_OTHER = "fault.other"
    PREFAULT = "prefault"
    UNMAP = "unmap"
    MADVISE = "madvise"
    MMAP = "mmap"
    KERNEL = "kernel"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Share:
    """CPU seconds of one class with their 95 % interval."""

    seconds: float
    low: float
    high: float


DEFAULT_RATE_HZ = 199.0
"""Samples per second of CPU time, unless something else is asked for."""


@dataclass(frozen=True, slots=True)
class Method:
    """How the numbers were obtained, always shown to the user."""

    tier: Tier
    rate_hz: float
    samples: int
    lost: int
    overhead: float
    """Estimated share of the target's CPU time that profiling cost, 0 to 1."""
    ns_per_fault: float
    """Calibrated cost of one anonymous first touch on this machine."""
    notes: tuple[str, ...] = ()
    """What could not be measured, and the command that would enable it."""


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """One reading of /proc/PID, taken about 20 times a second."""

    t: float
    rss: int
    rss_anon: int
    hwm: int
    minor_faults: int
    major_faults: int
    utime_s: float
    stime_s: float
    threads: int


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """CPU seconds of one thread, by class."""

    tid: int
    comm: str
    cpu_s: float
    by_kind: dict[Kind, float]


@dataclass(frozen=True, slots=True)
class Bin:
    """One slice of time, by thread.

    `mm_s` is the part of `cpu_s` that an allocator which keeps its pages could
    avoid: faults on anonymous memory, prefault, mmap, and of unmap and madvise
    as much as anonymous faults are of anonymous and file faults together.
    """

    t: float
    width_s: float
    cpu_s: dict[int, float]
    mm_s: dict[int, float]
    by_kind: dict[Kind, float] = field(default_factory=dict)
    """CPU seconds of all threads by class; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class LibraryCounters:
    """libzknalloc's own counters over the window (differences for counters)."""

    version: str
    cache_bytes: int
    copies: int
    """Statistics blocks found: more than one means more than one cache."""
    counters: dict[str, int]
    class_hits: tuple[int, ...]
    class_misses: tuple[int, ...]

    @property
    def hit_rate(self) -> float | None:
        """Hits over requests in the window, or None without requests."""
        hits, misses = self.counters.get("hits", 0), self.counters.get("misses", 0)
        return hits / (hits + misses) if hits + misses else None


@dataclass(frozen=True, slots=True)
class Target:
    """Who was measured."""

    pid: int
    comm: str
    exe: str
    allocator: str
    """glibc, libzknalloc, jemalloc, mimalloc, tcmalloc, go, static, ... or unknown."""
    preloadable: bool
    preload_reason: str
    thp: str
    """The `[selected]` word of transparent_hugepage/enabled."""
    cpus: int
    command: str = ""
    """The path by which `exe` was called, its arguments left out; empty where that is unknown.

    Of a Python program in a virtual environment it is that one's interpreter, and
    `exe` the one it was made from."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One function on a stack, told apart by name and module."""

    name: str
    """Demangled; without a symbol `FILE+0x1234`, where its function begins as far as is known."""
    module: str
    """File name of the mapped object, `python` for Python frames, or empty."""
    file: str = ""
    """Source file, where known."""
    line: int = 0
    """First line of the function in `file`, or 0."""


@dataclass(frozen=True, slots=True)
class StackTime:
    """CPU seconds of one class on one stack of one thread."""

    kind: Kind
    tid: int
    frames: tuple[int, ...]
    """Outermost first; indices into `Measurement.frames`."""
    seconds: float
    samples: int


@dataclass(frozen=True, slots=True)
class PythonJoin:
    """How Python frames were put onto native stacks."""

    source: str
    """`py-spy` (joined by thread and time) or `perf-map` (exact: trampoline)."""
    matched: float
    """Share of the Python threads' samples that found a Python stack, 0 to 1."""
    gap_s: float
    """Median distance in time between a sample and its Python stack."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the target asked of the kernel in the window, from tracepoints."""

    mapped: int
    unmapped: int
    advised: int
    calls: dict[str, int]
    """Calls by name: mmap, munmap, madvise, brk, mremap."""


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds the target and changes what memory costs."""

    huge_share: float | None = None
    """Of its anonymous memory, the share in huge pages at the end, 0 to 1."""
    psi_some_s: float | None = None
    """Seconds of memory pressure (`some`) in the window."""
    cgroup_limit: int | None = None
    cgroup_used: int | None = None
    mmap_lock_wait_s: float | None = None
    """Seconds its threads slept or spun waiting for `mmap_lock`."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything measured in one window."""

    target: Target
    method: Method
    started: float
    duration_s: float
    cpu_s: float
    classes: dict[Kind, Share]
    overlays: dict[str, float] = field(default_factory=dict)
    """Second, independent tags in seconds: zeroing, lock_spin, tlb_wait, memcg."""
    memory: tuple[MemoryPoint, ...] = ()
    threads: tuple[ThreadTime, ...] = ()
    bins: tuple[Bin, ...] = ()
    library: LibraryCounters | None = None
    exited: bool = False
    """The target ended inside the window."""
    frames: tuple[Frame, ...] = ()
    stacks: tuple[StackTime, ...] = ()
    """Where the time went; empty where the tier has no user stacks."""
    python: PythonJoin | None = None
    traffic: Traffic | None = None
    context: Context = field(default_factory=Context)
    pids: tuple[int, ...] = ()
    """With children: every process measured, the target first."""
