# SPDX-License-Identifier: MIT OR Apache-2.0
"""Samples of a running process, by thread, time slice and `Kind`.

`open_sampler` attaches by the best way that this user and this machine permit
and says what it had to do without.  The target is never stopped, signalled or
changed.  A `Sampler` belongs to one thread; while it waits for samples or
reads them it does not hold the GIL.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ._native import ffi, lib
from .classify import KINDS, Classifier
from .model import Kind

if TYPE_CHECKING:
    from types import TracebackType

BIN_S = 0.1
"""Width of a time slice: the blocks that intervals are made from."""

_CELL = struct.Struct("=iIIIQ")
_STACK = struct.Struct("=iIIIQ")


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
    frames: tuple[int, ...]
    """Addresses, innermost first; empty where none were recorded."""
    count: int


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

    Raises
    ------
    PerfUnavailableError
        Sampling is not permitted or not possible.
    """

    def __init__(
        self,
        pid: int,
        rate_hz: float = 199.0,
        *,
        classifier: Classifier | None = None,
        scope: Scope = Scope.TASKS,
        jitter: bool = True,
        start_ns: int | None = None,
    ) -> None:
        self.scope = scope
        self.start_ns = time.monotonic_ns() if start_ns is None else start_ns
        # C keeps a pointer to the classifier: this reference keeps it alive.
        self._classifier = classifier
        config = ffi.new(
            "zkp_sampler_config_t *",
            {
                "pid": pid,
                "scope": scope,
                "kernel": classifier is not None,
                "jitter": jitter,
                "rate_hz": rate_hz,
                "start_ns": self.start_ns,
                "bin_ns": round(BIN_S * 1e9),
                "classifier": classifier.handle if classifier else ffi.NULL,
                "overlay_roles": classifier.rules.overlay_roles if classifier else 0,
                "entry_roles": classifier.rules.entry_roles if classifier else 0,
                "user_kind": KINDS.index(Kind.USER),
            },
        )
        out = ffi.new("zkp_sampler_t **")
        rc = lib.zkp_sampler_open(config, out)
        if rc:
            raise PerfUnavailableError(-rc, _explain(-rc, kernel=classifier is not None))
        self._handle = ffi.gc(out[0], lib.zkp_sampler_close)

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
        handle, self._handle = self._handle, None
        if handle is not None:
            ffi.gc(handle, None)
            lib.zkp_sampler_close(handle)

    def drain(self, timeout_s: float = 0.0) -> None:
        """Wait up to `timeout_s` for samples to pile up, then count all."""
        rc = lib.zkp_sampler_drain(self._handle, round(timeout_s * 1000))
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))

    def take(self) -> list[Cell]:
        """Return what was counted since the last call."""
        n = lib.zkp_sampler_cells(self._handle)
        out = ffi.new("zkp_cell_t[]", max(n, 1))
        n = lib.zkp_sampler_take(self._handle, out)
        return [
            Cell(tid, bin_, KINDS[kind], overlays, count)
            for tid, bin_, kind, overlays, count in _CELL.iter_unpack(
                bytes(ffi.buffer(out, n * _CELL.size))
            )
        ]

    def stacks(self) -> list[Stack]:
        """Return the user-mode call chains of all samples so far."""
        nodes = ffi.new("zkp_node_t **")
        lib.zkp_sampler_nodes(self._handle, nodes)
        n = lib.zkp_sampler_stacks(self._handle)
        out = ffi.new("zkp_stack_t[]", max(n, 1))
        n = lib.zkp_sampler_copy_stacks(self._handle, out)

        def frames(node: int) -> tuple[int, ...]:
            path = []
            while node:
                path.append(nodes[0][node].ip)
                node = nodes[0][node].parent
            return tuple(path)

        return [
            Stack(tid, KINDS[kind], frames(node), count)
            for tid, kind, node, _, count in _STACK.iter_unpack(
                bytes(ffi.buffer(out, n * _STACK.size))
            )
        ]

    @property
    def counts(self) -> Counts:
        """What has been seen so far."""
        c = ffi.new("zkp_sampler_counts_t *")
        lib.zkp_sampler_counts(self._handle, c)
        return Counts(
            c.samples, c.lost, c.throttled, c.foreign, c.kernel, c.no_entry, c.threads, c.events
        )


def open_sampler(
    pid: int,
    rate_hz: float,
    classifier: Classifier | None,
    *,
    start_ns: int | None = None,
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
        sampler = Sampler(pid, rate_hz, classifier=classifier, jitter=jitter, start_ns=start_ns)
    except PerfUnavailableError as error:
        if error.errno != errno.EMFILE:
            raise
    else:
        return sampler, []
    try:
        sampler = Sampler(
            pid,
            rate_hz,
            classifier=classifier,
            scope=Scope.CPUS,
            jitter=jitter,
            start_ns=start_ns,
        )
    except PerfUnavailableError as error:
        raise PerfUnavailableError(errno.EMFILE, _explain(errno.EMFILE, kernel=True)) from error
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    note = (
        f"too many threads for {limit} descriptors: sampling all processes and "
        "keeping this one's samples; raise `ulimit -Hn` to sample it alone"
    )
    return sampler, [note]


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
