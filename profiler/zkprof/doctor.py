# SPDX-License-Identifier: MIT OR Apache-2.0
"""What zkprof can measure here, and what would let it measure the rest.

Nothing is concluded from settings: each thing is tried, as it would be while
measuring, and the settings are read only to say what to change.
"""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._native import ffi, lib
from .classify import Classifier, NoKernelSymbolsError
from .context import NoTracepointsError, cgroup_memory, tracepoints
from .model import Tier
from .perf_map import PerfMap
from .procfs import Mapping, Process, printable
from .python_stacks import is_python, py_spy
from .sampler import PerfUnavailableError, Sampler, paranoid_level
from .symbols import Module
from .target import describe, selected_thp

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_FILES = 64


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    id: str
    """Stable, for programs."""
    ok: bool
    detail: str
    fix: str = ""
    """The command, or the one thing, that would make it work; "" where nothing would."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was tried, and what it comes to."""

    tier: Tier
    """How this target, or one's own processes, would be measured."""
    checks: tuple[Check, ...]


def diagnose(pid: int | None) -> Diagnosis:
    """Try everything on process `pid`, or on this one where it is None.

    Raises
    ------
    NoSuchProcessError, ZombieError, KernelThreadError, NotPermittedError
        The target cannot be measured at all.
    """
    with Process(os.getpid() if pid is None else pid) as process:
        checks = list(_machine(process))
        if pid is not None:
            checks += _target(process)
    works = {check.id for check in checks if check.ok}
    if "kernel-stacks" in works:
        tier = Tier.KERNEL
    else:
        tier = Tier.USER if "user-perf" in works else Tier.PROC
    return Diagnosis(tier, tuple(checks))


def _machine(process: Process) -> Iterator[Check]:
    yield _sampling(process.pid, kernel=True)
    yield _kernel_symbols()
    yield _sampling(process.pid, kernel=False)
    yield _descriptors(process)
    yield from _tracing(process.pid)
    found = py_spy()
    yield Check(
        "py-spy",
        found is not None,
        "Python functions: py-spy is installed" if found else "Python functions: no py-spy",
        "" if found else "pip install py-spy",
    )
    yield Check(
        "psi",
        Path("/proc/pressure/memory").exists(),
        "memory pressure is accounted for"
        if Path("/proc/pressure/memory").exists()
        else "memory pressure is not accounted for by this kernel",
        "" if Path("/proc/pressure/memory").exists() else "boot with psi=1",
    )
    yield Check("thp", True, f"transparent huge pages: {selected_thp()}")


def _sampling(pid: int, *, kernel: bool) -> Check:
    what = "kernel and user stacks" if kernel else "user stacks and page faults"
    id_ = "kernel-stacks" if kernel else "user-perf"
    try:
        Sampler(pid, learn=kernel).close()
    except PerfUnavailableError as error:
        if error.errno == errno.ESRCH:
            return Check(id_, False, f"{what}: the process has ended")
        return Check(id_, False, f"{what}: {error}", _perf_fix(error.errno, kernel=kernel))
    return Check(id_, True, f"{what} can be sampled")


def _perf_fix(code: int, *, kernel: bool) -> str:
    if code == errno.EPERM:  # a sandbox; for want of privilege, perf answers EACCES
        return "docker run --cap-add=PERFMON --cap-add=SYS_PTRACE ... (or zkprof on the host)"
    level = paranoid_level()
    needed = 1 if kernel else 2
    if level is None:
        return ""  # this kernel has no perf
    if level > needed:
        return f"sudo sysctl kernel.perf_event_paranoid={needed}"
    return "run as the target's user, or as root"


def _kernel_symbols() -> Check:
    try:
        Classifier()
    except NoKernelSymbolsError:
        return Check(
            "kernel-symbols",
            False,
            "kernel symbols are hidden: classes are told apart by learned addresses, "
            "zeroing and lock spinning are not",
            "sudo sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=1",
        )
    return Check("kernel-symbols", True, "kernel symbols are readable")


def _descriptors(process: Process) -> Check:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # For each thread and CPU: one to sample, one for faults, three to trace.
    needed = 5 * len(process.threads()) * (os.cpu_count() or 1) + 64
    enough = limit == resource.RLIM_INFINITY or needed <= limit
    return Check(
        "descriptors",
        enough,
        f"{needed} descriptors are needed, {limit} permitted",
        "" if enough else f"ulimit -Hn {needed} (as root), then zkprof from that shell",
    )


def _tracing(pid: int) -> Iterator[Check]:
    try:
        points = tracepoints()
        Sampler(pid, trace=points).close()
    except (NoTracepointsError, PerfUnavailableError):
        fix = "" if os.geteuid() == 0 else "run zkprof as root (sudo zkprof ...)"
        yield Check("tracepoints", False, "bytes mapped and given back: no tracepoints", fix)
        return
    yield Check("tracepoints", True, "bytes mapped and given back can be traced")
    yield Check(
        "mmap-lock",
        bool(points.lock),
        "waits for mmap_lock can be traced"
        if points.lock
        else "waits for mmap_lock: tracing them is cheap since Linux 6.4 only",
    )


def _target(process: Process) -> Iterator[Check]:
    mappings = process.maps()
    yield _memory(process, mappings)
    yield from _symbols(process, mappings)
    target = describe(process, mappings)
    yield Check(
        "preload",
        target.preloadable,
        f"allocator {target.allocator}: {target.preload_reason}",
    )
    if is_python(mappings):
        announced = PerfMap(process).exists()
        yield Check(
            "python-exact",
            announced,
            "Python functions are announced by the program itself"
            if announced
            else "Python functions: joined by time with what py-spy sees",
            "" if announced else "start it as: PYTHONPERFSUPPORT=1 python3 ... (3.12 or later)",
        )
    status = process.status()
    inner = status.get("NSpid", "").split()
    if len(inner) > 1:
        yield Check("namespace", True, f"it is process {inner[-1]} in its own PID namespace")
    limit, used = cgroup_memory(process)
    if limit is not None:
        yield Check("cgroup", True, f"memory limit {limit >> 20} MiB, {(used or 0) >> 20} in use")


def _memory(process: Process, mappings: list[Mapping]) -> Check:
    """Whether libzknalloc's counters could be read."""
    buffer = ffi.new("char[]", 1)
    code = 0
    for m in mappings:
        if m.perms.startswith("r") and not m.path.startswith("[v"):
            code = -lib.zkp_target_read(process.pid, m.start, buffer, 1)
            if code != errno.EFAULT:
                break
    if code == 0:
        return Check("counters", True, "libzknalloc's counters are readable, where it is loaded")
    scope = ""
    with suppress(OSError):
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text(encoding="ascii").strip()
    fix = "sudo sysctl kernel.yama.ptrace_scope=0" if scope == "1" else "run as root"
    return Check("counters", False, "libzknalloc's counters: its memory is not readable", fix)


def _symbols(process: Process, mappings: list[Mapping]) -> Iterator[Check]:
    if process.is_32_bit():
        yield Check(
            "32-bit", False, "a 32-bit program: stacks by frame pointers only, calls not traced"
        )
    seen: set[str] = set()
    nameless: list[str] = []
    unreadable: list[str] = []
    for m in mappings:
        if "x" not in m.perms or not m.file_backed or m.path in seen or len(seen) >= _MAX_FILES:
            continue
        seen.add(m.path)
        file = process.open_mapped(m)
        name = m.path.rsplit("/", 1)[-1]
        if file is None:
            unreadable.append(name)
            continue
        module = Module(name, file)
        if not module.has_symbols():
            nameless.append(name)
        module.close()
    if unreadable:
        yield Check(
            "files",
            False,
            f"not readable, so their functions stay numbers: {_some(unreadable)}",
            "run as root",
        )
    yield Check(
        "symbols",
        not nameless,
        f"stripped, so most of their functions stay numbers: {_some(nameless)}"
        if nameless
        else f"all {len(seen)} mapped programs and libraries have symbols",
        "build without -s / strip (Rust: strip = false)" if nameless else "",
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
