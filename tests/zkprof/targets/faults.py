# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run zkprof's extension while calls that it makes fail, one after another (faults.c).

``faults.py SCENARIO`` prints, as JSON, how often each function's calls failed and
what came of it.  It ends by an exception where something else came than an error
that the caller is told, and where memory or a descriptor was left behind.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import mmap
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from zkprof import bootstrap
from zkprof._native import ffi, lib
from zkprof.classify import Classifier, NoKernelSymbolsError, default_rules
from zkprof.procfs import Process
from zkprof.sampler import PerfUnavailableError, Sampler
from zkprof.stacks import Spaces

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = {name: [errno.ENOMEM] for name in ("malloc", "calloc", "reallocarray")}
SYSTEM = {
    "syscall": [errno.EACCES, errno.EMFILE, errno.ESRCH],
    "ioctl": [errno.EINVAL],
    "mmap": [errno.EPERM, errno.EINVAL],
    "opendir": [errno.ENOENT, errno.EMFILE],
    "fopen": [errno.EMFILE],
    "poll": [errno.EINTR, errno.EBADF],
}
# Most calls are the first few: those after them are of the same places, again.
NUMBERS = [*range(1, 9), *range(9, 500, 6)]

shim = ctypes.CDLL(None)
shim.fault_live.restype = ctypes.c_size_t


def watch() -> None:
    """Let calls of the extension count, and no others."""
    spans = [
        [int(x, 16) for x in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "/zkprof/_native" in line
    ]
    shim.fault_watch(ctypes.c_size_t(min(spans)[0]), ctypes.c_size_t(max(spans)[1]))


class Work:
    """Samplers from their start to their end, on this very process."""

    def __init__(self, classifier: Classifier | None) -> None:
        self.classifier = classifier
        self.process = Process(os.getpid())
        self.spaces = Spaces(self.process)
        self.spaces.prepare()

    def __call__(self) -> None:
        self.spaces.restart()
        pid = os.getpid()
        common = {"follow": True, "keep_moments": True}
        with (
            Sampler(pid, 4999, classifier=self.classifier, **common) as sampler,
            Sampler(pid, faults=4, maps_of=sampler) as faults,
        ):
            self.spaces.supply(sampler)
            with mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
                for at in range(0, len(memory), mmap.PAGESIZE):
                    memory[at] = 1
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
            end = time.thread_time() + 0.01
            while time.thread_time() < end:
                pass
            for each in (sampler, faults):
                each.drain()
                each.take()
                each.stacks()
                each.nodes()
            self.spaces.supply(sampler)
            sampler.moments()
            sampler.pids()


class Reading:
    """Everything that reads or computes and samples nothing."""

    def __init__(self, kallsyms: Path) -> None:
        self.kallsyms = str(kallsyms)
        function = next(name for name in default_rules().symbols if "*" not in name)
        lines = [f"ffffffff{0x81000000 + 64 * i:08x} T {function}\n" for i in range(3000)]
        kallsyms.write_text("".join(lines))

    def __call__(self) -> None:
        assert len(Classifier(self.kallsyms)) == 3000
        assert len(Classifier.from_calls({4096: 1, 8192: 2})) == 2
        assert bootstrap.shares([[1.0], [1.0]], [2.0, 2.0]) == [(0.5, 0.5)]
        found = ffi.new("uint64_t[]", 4)
        needle = ffi.new("char[64]", b"needle")
        at = int(ffi.cast("uintptr_t", needle))
        n = lib.zkp_target_find(os.getpid(), at, at + 64, 64, needle, 64, found, 4)
        if n < 0:
            raise OSError(-n, os.strerror(-n))
        assert [found[i] for i in range(n)] == [at]
        rc = lib.zkp_calibrate_pages(4, ffi.new("zkp_page_cost_t *"))
        if rc:
            raise OSError(-rc, os.strerror(-rc))


def attempt(act: Callable[[], None], error: int) -> str:
    """Do it once, with the plan that was made; return how it ended."""
    descriptors = set(Path("/proc/self/fd").iterdir())
    try:
        act()
        end = "well"
    except MemoryError:
        assert error == errno.ENOMEM
        end = "MemoryError"
    except NoKernelSymbolsError as caught:
        if os.strerror(error) not in str(caught):
            raise
        end = "NoKernelSymbolsError"
    except (PerfUnavailableError, OSError) as caught:
        # Threads and CPUs that are said to be gone are left out, until none is left.
        if caught.errno not in (error, errno.ESRCH, errno.ENODEV):
            raise
        end = type(caught).__name__
    shim.fault_plan(b"", 0, 0, 0)
    gc.collect()
    assert shim.fault_live() == 0, f"{shim.fault_live()} blocks were not freed"
    assert set(Path("/proc/self/fd").iterdir()) == descriptors, "descriptors were not closed"
    return end


def main(scenario: str) -> None:
    """Let calls of each function fail in turn, once, and some from then on."""
    with tempfile.TemporaryDirectory() as folder:
        if scenario == "reading":
            act: Callable[[], None] = Reading(Path(folder, "kallsyms"))
        else:
            act = Work(Classifier() if scenario == "kernel" else None)
        watch()
        assert attempt(act, 0) == "well"
        injected: Counter[str] = Counter()
        ends: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for function, errors in (MEMORY | SYSTEM).items():
            for error in errors:
                for number in NUMBERS:
                    shim.fault_plan(function.encode(), number, error, number % 4 == 1)
                    end = attempt_counting(act, error, function, injected)
                    if not end:
                        break
                    ends[function][end] += 1
                else:
                    raise AssertionError(f"{function} has no last call")
    print(json.dumps({"injected": injected, "ends": ends}))


def attempt_counting(
    act: Callable[[], None], error: int, function: str, injected: Counter[str]
) -> str:
    """Return how it ended, or "" where the planned call did not come."""
    count = 0

    def counted() -> None:
        nonlocal count
        try:
            act()
        finally:
            count = shim.fault_injected()

    end = attempt(counted, error)
    if count == 0:
        assert end == "well"
        return ""
    injected[function] += count
    return end


if __name__ == "__main__":
    main(sys.argv[1])
