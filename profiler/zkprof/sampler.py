# SPDX-License-Identifier: MIT OR Apache-2.0
"""Samples of a running process, by thread, time slice and `Kind`.

`open_sampler` attaches by the best way that this user and this machine permit
and says what it had to do without.  The target is never stopped, signalled or
changed.  A `Sampler` belongs to one thread; while it waits for samples or
reads them it does not hold the GIL.
"""

from __future__ import annotations

import errno
import math
import os
import platform
import resource
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ._native import ffi, lib
from .classify import KINDS, Classifier
from .model import Kind
from .procfs import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from .call_frames import CallFrames

BIN_S = 0.1
"""Width of a time slice: the blocks that intervals are made from."""

_CELL = struct.Struct("=iIIIQ")
_STACK = struct.Struct("=iIIIQ")
_NODE = struct.Struct("=QII")
_MOMENT = struct.Struct("=QiIII")

# A ring must hold the copied stacks of a quarter of a second.
_RING_BYTES = 512 * 1024
_SPARE = 24
_STACK_LIMITS = (256, 8192)


class PerfUnavailableError(Exception):
    """The kernel will not sample that process for us; the message says why.

    Attributes
    ----------
    errno
        The error of ``perf_event_open``.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.errno = code

    def __str__(self) -> str:
        return str(self.args[1])


def stack_bytes(rate_hz: float) -> int:
    """Return how much of the stack each sample should bring along.

    Call frame information of other processors than x86-64 is not read; there
    the kernel's walk by frame pointers has to do.
    """
    if platform.machine() != "x86_64":
        return 0
    low, high = _STACK_LIMITS
    if not 1 <= rate_hz < math.inf:
        return low  # what is wrong with it, the sampler says
    fits = int(_RING_BYTES / (rate_hz * 0.25))
    return max(low, min(high, 1 << (max(fits, 1).bit_length() - 1)))


class Scope(IntEnum):
    """What events are opened on; see native/attach.c."""

    TASKS = lib.ZKP_SCOPE_TASKS
    CPUS = lib.ZKP_SCOPE_CPUS


@dataclass(frozen=True, slots=True)
class Cell:
    """So many samples of one thread in one time slice."""

    tid: int
    bin: int
    kind: Kind
    overlays: int
    count: int


@dataclass(frozen=True, slots=True)
class Stack:
    """So many samples of one thread with the same user-mode call chain."""

    tid: int
    kind: Kind
    node: int
    """The innermost frame, an index into `Sampler.nodes`; 0 where none is known."""
    count: int


class Node(NamedTuple):
    """A frame under its caller."""

    ip: int
    """An address of the process, or of the file where `module` is not 0."""
    parent: int
    """Its caller's index, 0 for the outermost frame."""
    module: int


def chain(nodes: Sequence[Node], node: int) -> tuple[int, ...]:
    """Return the addresses from `node` outwards."""
    path = []
    while node:
        path.append(nodes[node].ip)
        node = nodes[node].parent
    return tuple(path)


class Moment(NamedTuple):
    """One sample."""

    time_ns: int
    tid: int
    kind: Kind
    node: int


class Map(NamedTuple):
    """A stretch of a process's memory, for `Sampler.set_maps`."""

    start: int
    end: int
    bias: int
    """Addresses of the process minus those of the file."""
    module: int
    """The number of the file, 0 for none."""
    flags: int


@dataclass(frozen=True, slots=True)
class Tracepoints:
    """The numbers that this kernel gives its tracepoints; 0 for none."""

    syscalls: int
    lock: int
    locked: int


class RawTraffic(NamedTuple):
    """What tracepoints have counted; see ``zkp_traffic_t``."""

    calls: tuple[int, ...]
    """mmap, munmap, madvise, brk, mremap."""
    mapped: int
    unmapped: int
    advised: int
    waited_s: float
    waits: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What a sampler has seen so far."""

    samples: int
    lost: int
    throttled: int
    foreign: int
    """Samples of other processes, dropped."""
    kernel: int
    no_entry: int
    """Kernel call chains without any known way into the kernel."""
    complete: int
    """User-mode call chains that reach the outermost frame."""
    guessed: int
    """Those found by frame pointers, at least in part."""
    unmapped: int
    """Those with an address in no known mapping."""
    threads: int
    events: int


class Sampler:
    """Samples all present and future threads of a process.

    Parameters
    ----------
    pid
        The process.
    rate_hz
        Samples per second of CPU time of each thread.
    classifier
        Classifies kernel call chains; None samples user mode only, which
        needs no privilege for a process of one's own.
    scope
        What to open events on.
    jitter
        Vary the sampling period, so that it cannot keep step with a loop in
        the target.  Costs a fortieth of the samples, so it is off where their
        number is compared with the clock.
    start_ns
        ``time.monotonic_ns()`` at the start of time slice 0; None for now.
    follow
        Sample its child processes too.
    learn
        Keep the kernel's call chains as stacks, in place of the program's.
    keep_moments
        Keep the samples one by one as well, for `moments`.
    faults
        Sample not CPU time but every so many page faults in user mode.
    maps_of
        Another sampler of the same processes, to be closed later than this
        one, which is supplied with what is mapped in them.
    trace
        Sample not CPU time but count what passes these tracepoints.
    copied
        How many bytes of the stack each sample brings along; None for what suits the rate.

    Raises
    ------
    PerfUnavailableError
        Sampling is not permitted or not possible.
    """

    handle: Any
    """The C object; None when closed."""

    def __init__(
        self,
        pid: int,
        rate_hz: float = 199.0,
        *,
        classifier: Classifier | None = None,
        scope: Scope = Scope.TASKS,
        jitter: bool = True,
        start_ns: int | None = None,
        follow: bool = False,
        learn: bool = False,
        keep_moments: bool = False,
        faults: int = 0,
        maps_of: Sampler | None = None,
        trace: Tracepoints | None = None,
        copied: int | None = None,
    ) -> None:
        self.scope = scope
        self.start_ns = time.monotonic_ns() if start_ns is None else start_ns
        # C keeps pointers to these: the references keep them alive.
        self._classifier = classifier
        self._maps_of = maps_of
        config = ffi.new(
            "zkp_sampler_config_t *",
            {
                "pid": pid,
                "scope": scope,
                "event": lib.ZKP_EVENT_TRACE
                if trace
                else lib.ZKP_EVENT_PAGE_FAULTS
                if faults
                else lib.ZKP_EVENT_CPU_CLOCK,
                "follow": follow,
                "kernel": classifier is not None or learn,
                "keep_kernel": learn,
                "keep_moments": keep_moments,
                "jitter": jitter,
                "stack_bytes": 0
                if learn or trace
                else stack_bytes(rate_hz)
                if copied is None
                else copied,
                "rate_hz": rate_hz,
                "faults": faults,
                "maps_of": maps_of.handle if maps_of else ffi.NULL,
                "all_maps": classifier is None and not learn,
                "trace_syscalls": trace.syscalls if trace else 0,
                "trace_lock": trace.lock if trace else 0,
                "trace_locked": trace.locked if trace else 0,
                "start_ns": self.start_ns,
                "bin_ns": round(BIN_S * 1e9),
                "classifier": classifier.handle if classifier else ffi.NULL,
                "overlay_roles": classifier.rules.overlay_roles if classifier else 0,
                "entry_roles": classifier.rules.entry_roles if classifier else 0,
                "user_kind": KINDS.index(Kind.FAULT_ANON if faults else Kind.USER),
                "file_kind": KINDS.index(Kind.FAULT_FILE),
                "lost_kind": KINDS.index(Kind.FAULT_OTHER),
            },
        )
        out = ffi.new("zkp_sampler_t **")
        rc = lib.zkp_sampler_open(config, out)
        if rc:
            raise PerfUnavailableError(-rc, _explain(-rc, kernel=classifier is not None or learn))
        self.handle = ffi.gc(out[0], lib.zkp_sampler_close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop sampling and give everything back; a second call does nothing."""
        handle, self.handle = self.handle, None
        if handle is not None:
            ffi.gc(handle, None)
            lib.zkp_sampler_close(handle)

    def drain(self, timeout_s: float = 0.0) -> None:
        """Wait up to `timeout_s` for samples to pile up, then count all."""
        rc = lib.zkp_sampler_drain(self.handle, round(timeout_s * 1000))
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))

    def take(self) -> list[Cell]:
        """Return what was counted since the last call."""
        n = lib.zkp_sampler_cells(self.handle)
        out = ffi.new("zkp_cell_t[]", max(n, 1))
        n = lib.zkp_sampler_take(self.handle, out)
        return [
            Cell(tid, bin_, KINDS[kind], overlays, count)
            for tid, bin_, kind, overlays, count in _CELL.iter_unpack(
                bytes(ffi.buffer(out, n * _CELL.size))
            )
        ]

    def stacks(self) -> list[Stack]:
        """Return the call chains of all samples so far; `nodes` has their frames."""
        n = lib.zkp_sampler_stacks(self.handle)
        out = ffi.new("zkp_stack_t[]", max(n, 1))
        n = lib.zkp_sampler_copy_stacks(self.handle, out)
        return [
            Stack(tid, KINDS[kind], node, count)
            for tid, kind, node, _, count in _STACK.iter_unpack(
                bytes(ffi.buffer(out, n * _STACK.size))
            )
        ]

    def nodes(self, start: int = 0) -> list[Node]:
        """Return the frames that call chains are made of, from index `start` on."""
        nodes = ffi.new("zkp_node_t **")
        n = lib.zkp_sampler_nodes(self.handle, nodes)
        if n <= start:
            return []
        size = _NODE.size
        data = bytes(ffi.buffer(nodes[0] + start, (n - start) * size))
        return [Node(*node) for node in _NODE.iter_unpack(data)]

    def moments(self) -> list[Moment]:
        """Return all samples one by one, the first million, where they were to be kept."""
        moments = ffi.new("zkp_moment_t **")
        n = lib.zkp_sampler_moments(self.handle, moments)
        data = bytes(ffi.buffer(moments[0], n * _MOMENT.size)) if n else b""
        return [
            Moment(time_ns, tid, KINDS[kind], node)
            for time_ns, tid, kind, node, _ in _MOMENT.iter_unpack(data)
        ]

    def enable(self, *, on: bool) -> None:
        """Let events count or not; they do from the start on."""
        lib.zkp_sampler_enable(self.handle, on)

    def name(self, tid: int) -> str:
        """Return the name of a thread that was seen to start or be named, or ""."""
        return printable(
            ffi.string(lib.zkp_sampler_name(self.handle, tid)).decode("utf-8", "replace")
        )

    def pids(self, *, stale: bool = False) -> list[int]:
        """Return the processes seen so far, the target first.

        With `stale`, those only whose mappings are to be read (again).
        """
        n = lib.zkp_sampler_pids(self.handle, stale, ffi.NULL, 0)
        out = ffi.new("int32_t[]", max(n, 1))
        n = min(n, lib.zkp_sampler_pids(self.handle, stale, out, n))
        return [out[i] for i in range(n)]

    def add_module(self, cfi: CallFrames | None) -> int:
        """Hand over a file's call frame information; return the file's number."""
        c = ffi.new("zkp_cfi_t *")
        if cfi:
            c.hdr, c.hdr_len = ffi.from_buffer("uint8_t[]", cfi.hdr), len(cfi.hdr)
            c.frames, c.frames_len = ffi.from_buffer("uint8_t[]", cfi.frames), len(cfi.frames)
            c.hdr_vaddr, c.frames_vaddr = cfi.hdr_vaddr, cfi.frames_vaddr
        number: int = lib.zkp_sampler_add_module(self.handle, c)
        if number < 0:
            raise MemoryError
        return number

    def set_maps(self, pid: int, maps: Sequence[Map]) -> None:
        """Hand over a process's mappings, sorted by address."""
        rc = lib.zkp_sampler_set_maps(
            self.handle, pid, ffi.new("zkp_map_t[]", [tuple(m) for m in maps]), len(maps)
        )
        if rc:
            raise OSError(-rc, os.strerror(-rc))

    @property
    def traffic(self) -> RawTraffic:
        """What the tracepoints have counted."""
        t = ffi.new("zkp_traffic_t *")
        lib.zkp_sampler_traffic(self.handle, t)
        return RawTraffic(
            tuple(t.calls), t.mapped, t.unmapped, t.advised, t.waited_ns / 1e9, t.waits
        )

    @property
    def counts(self) -> Counts:
        """What has been seen so far."""
        c = ffi.new("zkp_sampler_counts_t *")
        lib.zkp_sampler_counts(self.handle, c)
        return Counts(
            samples=c.samples,
            lost=c.lost,
            throttled=c.throttled,
            foreign=c.foreign,
            kernel=c.kernel,
            no_entry=c.no_entry,
            complete=c.complete,
            guessed=c.guessed,
            unmapped=c.unmapped,
            threads=c.threads,
            events=c.events,
        )


def open_sampler(
    pid: int,
    rate_hz: float,
    classifier: Classifier | None,
    *,
    start_ns: int | None = None,
    follow: bool = False,
    keep_moments: bool = False,
) -> tuple[Sampler, list[str]]:
    """Attach to `pid` as well as possible; also return what to tell the user.

    Raises
    ------
    PerfUnavailableError
        No way of attaching is open to us.
    """
    raise_descriptor_limit()
    # Without kernel samples, the number of samples is compared with the
    # clock, so none may be thrown away.
    jitter = classifier is not None
    try:
        sampler = Sampler(
            pid,
            rate_hz,
            classifier=classifier,
            jitter=jitter,
            start_ns=start_ns,
            follow=follow,
            keep_moments=keep_moments,
        )
    except PerfUnavailableError as error:
        if error.errno != errno.EMFILE:
            raise
    else:
        if _descriptors_left():
            return sampler, []
        sampler.close()
    try:
        sampler = Sampler(
            pid,
            rate_hz,
            classifier=classifier,
            scope=Scope.CPUS,
            jitter=jitter,
            start_ns=start_ns,
            follow=follow,
            keep_moments=keep_moments,
        )
    except PerfUnavailableError as error:
        raise PerfUnavailableError(errno.EMFILE, _explain(errno.EMFILE, kernel=True)) from error
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    note = (
        f"too many threads for {limit} descriptors: sampling all processes and "
        "keeping this one's samples; raise `ulimit -Hn` to sample it alone"
    )
    return sampler, [note]


def _descriptors_left() -> bool:
    """Whether enough descriptors are left for everything else."""
    spare: list[int] = []
    try:
        spare += (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(_SPARE))
    except OSError:
        return False
    finally:
        for fd in spare:
            os.close(fd)
    return True


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as it may: events need them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def paranoid_level() -> int | None:
    """Return kernel.perf_event_paranoid, or None where the kernel has no perf."""
    try:
        return int(Path("/proc/sys/kernel/perf_event_paranoid").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _explain(code: int, *, kernel: bool) -> str:
    """Say in one line why sampling failed and what would enable it."""
    if code in (errno.EACCES, errno.EPERM):
        level = paranoid_level()
        if code == errno.EPERM:  # for want of privilege, perf itself answers EACCES
            return (
                "perf is refused, as sandboxes do: run zkprof outside of it; "
                "in a container, docker run --cap-add=PERFMON --cap-add=SYS_PTRACE"
            )
        if kernel and level is not None and level > 1:
            return (
                f"kernel stacks are not permitted (perf_event_paranoid is {level}): "
                "sudo sysctl kernel.perf_event_paranoid=1, or run as root"
            )
        if level is not None and level > 2:
            return (
                f"perf is not permitted (perf_event_paranoid is {level}): "
                "sudo sysctl kernel.perf_event_paranoid=2, or run as root"
            )
        return (
            "perf is not permitted for this process: run as its user or as root; "
            "in a container, docker run --cap-add=PERFMON --cap-add=SYS_PTRACE"
        )
    if code in (errno.ENOSYS, errno.ENOENT, errno.EOPNOTSUPP):
        return "this kernel or sandbox has no perf events"
    if code == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"one event per thread and CPU is more than {limit} descriptors: raise `ulimit -Hn`"
    return f"perf_event_open: {os.strerror(code)}"
