# SPDX-License-Identifier: MIT OR Apache-2.0
"""What surrounds a target: memory pressure, limits, huge pages, its requests.

None of this is needed for a verdict, so whatever cannot be had here is left
out, and said.  Two things come from tracepoints, where this user may use them:
the bytes that the target maps and gives back, and how long its threads waited
for ``mmap_lock``.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._native import lib
from .errors import ZkprofError
from .model import Context, Traffic
from .sampler import PerfUnavailableError, Sampler, Tracepoints

if TYPE_CHECKING:
    from .family import Family
    from .procfs import Process

_CALLS = ("mmap", "munmap", "madvise", "brk", "mremap")
_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_PER_VMA_LOCKS = (6, 4)
# What each event costs (measured; and system calls of any kind 0.1 us).
_EVENT_S = 0.8e-6
_MAX_OVERHEAD = 0.005
_FIRST_CHECK_S = 0.1
# What version 1 of cgroups writes for "no limit" is a little below 2**63.
_NO_LIMIT = 1 << 62


class Surroundings:
    """The surroundings of a target, from a first reading on.

    Parameters
    ----------
    family
        The target, with or without its children.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self.notes: list[str] = []
        """What could not be had, and how to have it."""
        self._pressure = _pressure_s()
        self._tracer: Sampler | None = None
        self._traced_s = 0.0
        self._started = time.monotonic()
        self._open_tracer()

    def close(self) -> None:
        """Stop tracing."""
        if self._tracer:
            self._tracer.close()
            self._tracer = None

    def _open_tracer(self) -> None:
        if self._family.process.is_32_bit():
            self.notes.append("bytes mapped are not known: 32-bit programs are not traced")
            return
        try:
            points = tracepoints()
            self._tracer = Sampler(
                self._family.process.pid, trace=points, follow=self._family.follow
            )
        except NoTracepointsError as error:
            self.notes.append(str(error))
        except PerfUnavailableError as error:
            self.notes.append(f"bytes mapped and waits for mmap_lock are not known: {error}")
        else:
            self._waits_known = bool(points.lock)

    def update(self) -> None:
        """Take in what was traced; stop where tracing would cost too much."""
        if not self._tracer or self._traced_s:
            return
        self._tracer.drain()
        elapsed = time.monotonic() - self._started
        counts = self._tracer.counts
        events = counts.samples + counts.lost
        if elapsed > _FIRST_CHECK_S and events * _EVENT_S > _MAX_OVERHEAD * elapsed:
            self._tracer.enable(on=False)
            self._traced_s = elapsed
            self.notes.append(
                f"tracing {events / elapsed:.0f} memory calls and locks a second would slow it "
                f"down: done for {elapsed:.1f} s, bytes mapped are extrapolated from that"
            )

    def _scale(self) -> float:
        """Return what to multiply counts by: for events lost, and after tracing."""
        counts = self._tracer.counts if self._tracer else None
        seen = (counts.samples + counts.lost) / counts.samples if counts and counts.samples else 1.0
        return seen * (
            (time.monotonic() - self._started) / self._traced_s if self._traced_s else 1.0
        )

    def traffic(self) -> Traffic | None:
        """Return what the target has asked of the kernel so far."""
        if not self._tracer:
            return None
        raw, scale = self._tracer.traffic, self._scale()
        return Traffic(
            mapped=round(raw.mapped * scale),
            unmapped=round(raw.unmapped * scale),
            advised=round(raw.advised * scale),
            calls={name: round(n * scale) for name, n in zip(_CALLS, raw.calls, strict=True)},
        )

    def context(self, *, final: bool) -> Context:
        """Return what is known so far; some is asked for at the end only."""
        before, now = self._pressure, _pressure_s()
        limit, used = cgroup_memory(self._family.process)
        waited = None
        if self._tracer and self._waits_known:
            waited = self._tracer.traffic.waited_s * self._scale()
        return Context(
            huge_share=huge_share(self._family) if final else None,
            psi_some_s=None if now is None or before is None else now - before,
            cgroup_limit=limit,
            cgroup_used=used,
            mmap_lock_wait_s=waited,
        )


# ---------------------------------------------------------------- tracepoints


class NoTracepointsError(Exception):
    """Tracepoints are hidden from this user, or there are none."""


def tracepoints() -> Tracepoints:
    """Find the numbers of the tracepoints that are used here.

    Raises
    ------
    NoTracepointsError
        They are hidden or absent; the message says what would show them.
    """
    with _Tracefs() as directory:
        number = _number(directory, "raw_syscalls/sys_enter")
        if not number:
            msg = "bytes mapped are not known: this kernel has no tracepoints for system calls"
            raise NoTracepointsError(msg)
        if _kernel_version() < _PER_VMA_LOCKS:
            # The lock is taken for every page fault there: too dear to trace.
            return Tracepoints(number, 0, 0)
        lock = _number(directory, "mmap_lock/mmap_lock_start_locking")
        locked = _number(directory, "mmap_lock/mmap_lock_acquire_returned")
        return Tracepoints(number, lock, locked) if lock and locked else Tracepoints(number, 0, 0)


class _Tracefs:
    """The kernel's list of tracepoints, mounted or not."""

    def __enter__(self) -> int:
        for path in _TRACEFS:
            with suppress(OSError):
                self._fd = os.open(f"{path}/events", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                return self._fd
        root = lib.zkp_tracefs_open()
        if root < 0:
            msg = (
                "bytes mapped and waits for mmap_lock are not known: tracepoints need root, or "
                "sudo mount -o remount,mode=755 /sys/kernel/tracing and perf_event_paranoid=-1"
            )
            raise NoTracepointsError(msg)
        try:
            self._fd = os.open("events", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        finally:
            os.close(root)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _number(directory: int, event: str) -> int:
    try:
        fd = os.open(f"{event}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(fd, "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return 0


def _kernel_version() -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


# --------------------------------------------------------------------- memory


def _pressure_s() -> float | None:
    """Return for how long something on this machine has waited for memory."""
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/pressure/memory").read_text(encoding="utf-8")
        some = next(line for line in text.splitlines() if line.startswith("some "))
        return int(some.rsplit("total=", 1)[1]) / 1e6
    return None


def huge_share(family: Family) -> float | None:
    """Return how much of the anonymous memory is in huge pages.

    Reading this holds up the target's own mapping calls for a moment.
    """
    huge = anonymous = 0
    for member in family.members:
        with suppress(ZkprofError, OSError, ValueError, KeyError):
            sizes = member.memory_sizes()
            anonymous += sizes["Anonymous"]
            huge += sizes["AnonHugePages"]
    return huge / anonymous if anonymous else None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The files of one version of cgroups."""

    limit: str
    used: str


_V1 = _Layout("memory.limit_in_bytes", "memory.usage_in_bytes")
_V2 = _Layout("memory.max", "memory.current")


def cgroup_memory(process: Process, sys_root: Path | None = None) -> tuple[int | None, int | None]:
    """Return the tightest memory limit on a process, and how much of it is used.

    Parameters
    ----------
    process
        The process.
    sys_root
        Where cgroups are mounted; None for the usual place.
    """
    root = sys_root or Path("/sys/fs/cgroup")
    with suppress(ZkprofError, OSError, ValueError):
        for line in process.read("cgroup").decode("utf-8", "replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return _tightest(root / "memory", path, _V1)
            if not controllers and (root / "cgroup.controllers").exists():
                return _tightest(root, path, _V2)
    return None, None


def _tightest(root: Path, path: str, layout: _Layout) -> tuple[int | None, int | None]:
    """Walk from a group up to the root; the smallest limit is in force."""
    best: tuple[int | None, int | None] = (None, None)
    # The path is the kernel's, but seen from another namespace it may begin
    # with "..": such a group is not ours to look up.
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        parts = []
    for depth in range(len(parts), -1, -1):
        folder = root.joinpath(*parts[:depth])
        with suppress(OSError, ValueError):
            limit = int((folder / layout.limit).read_text(encoding="ascii"))
            if limit < (best[0] or _NO_LIMIT):
                best = (limit, int((folder / layout.used).read_text(encoding="ascii")))
    return best
