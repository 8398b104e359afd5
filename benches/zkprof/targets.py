# SPDX-License-Identifier: MIT OR Apache-2.0
"""The programs whose truth is known: what they do, and what zkprof must say of them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from zkprof.model import Kind

HERE = Path(__file__).parent
MIB_KIB = 1024

Parts = tuple[str, ...]
CLASSES: dict[str, tuple[tuple[Kind, ...], Parts]] = {
    "page faults": ((Kind.FAULT_ANON, Kind.PREFAULT), ("touch_s",)),
    "giving back": ((Kind.UNMAP, Kind.MADVISE), ("give_s",)),
    "file faults": ((Kind.FAULT_FILE,), ("files_s",)),
    "copying": ((Kind.FAULT_COW,), ("copy_s",)),
    "own work": ((Kind.USER,), ("compute_s",)),
}
"""What zkprof tells apart and the program itself counts: kinds, and parts of a batch."""


@dataclass(frozen=True, slots=True)
class Target:
    """One program.

    Attributes
    ----------
    name, what
        A short name, and what it does, for the table.
    kind, options
        The arguments of ``c/target.c``; `rounds` is added.
    rounds
        Rounds of a batch of about a second.
    negative
        No allocator saves anything here, and zkprof must not say that one would.
    reached
        Preloading reaches the memory. Where it does not there is nothing to compare the
        prediction with, and zkprof must warn of it.
    batches
        The most batches of a run, for those that keep memory.
    """

    name: str
    what: str
    kind: str
    options: dict[str, int]
    rounds: int
    negative: bool = False
    reached: bool = True
    batches: int = 1000

    def command(self, program: Path) -> list[str]:
        """Return the command line."""
        options = {"rounds": self.rounds} | self.options
        words = [f"{name}={value}" for name, value in options.items()]
        return [str(program), self.kind, *words]


def _mib(size: int) -> int:
    return size * MIB_KIB


TARGETS = (
    Target("compute", "arithmetic only", "none", {"spin": 20_000}, 36, negative=True),
    Target(
        "small",
        "8 MiB buffers, which glibc keeps",
        "malloc",
        {"size": _mib(8), "spin": 2_000},
        350,
        negative=True,
    ),
    Target(
        "light",
        "1 to 2 % in faults",
        "malloc",
        {"size": _mib(34), "spin": 200_000, "touch": 20},
        4,
        negative=True,
    ),
    Target(
        "file",
        "reads a mapped file",
        "file",
        {"size": _mib(128), "spin": 20_000},
        30,
        negative=True,
    ),
    Target(
        "cow",
        "writes to what a forked child shares",
        "cow",
        {"size": _mib(64), "spin": 10_000},
        15,
        negative=True,
    ),
    Target(
        "growth",
        "keeps all of its memory",
        "grow",
        {"size": _mib(40), "keep": 1, "spin": 60_000},
        4,
        negative=True,
        batches=12,
    ),
    Target(
        "faults-20", "20 % in memory management", "malloc", {"size": _mib(40), "spin": 60_000}, 10
    ),
    Target("faults-40", "40 %", "malloc", {"size": _mib(48), "spin": 30_000}, 15),
    Target("faults-65", "65 %", "malloc", {"size": _mib(64), "spin": 12_000}, 20),
    Target(
        "growth-half",
        "keeps every second buffer",
        "grow",
        {"size": _mib(40), "keep": 2, "count": 2, "spin": 30_000},
        4,
        batches=12,
    ),
    Target(
        "growth-tenth",
        "keeps every tenth buffer",
        "grow",
        {"size": _mib(40), "keep": 10, "count": 2, "spin": 15_000},
        10,
        batches=20,
    ),
    Target("calloc", "calloc, every page used", "calloc", {"size": _mib(48), "spin": 30_000}, 15),
    Target(
        "calloc-sparse",
        "calloc, 10 % of the pages used",
        "calloc",
        {"size": _mib(128), "touch": 10, "spin": 10_000},
        40,
    ),
    Target(
        "burst",
        "16 buffers at once",
        "malloc",
        {"size": _mib(33), "count": 16, "touch": 50, "spin": 10_000},
        3,
    ),
    Target("resize", "buffers that double", "resize", {"size": _mib(128), "spin": 60_000}, 5),
    Target(
        "pool",
        "2 threads, a barrier a round",
        "malloc",
        {"size": _mib(40), "spin": 30_000, "threads": 2},
        12,
    ),
    Target(
        "one-of-two",
        "1 of 2 threads faults",
        "malloc",
        {"size": _mib(64), "spin": 30_000, "threads": 2, "alone": 1},
        14,
    ),
    Target(
        "serial",
        "serial faults, parallel work",
        "malloc",
        {"size": _mib(64), "spin": 30_000, "threads": 2, "serial": 1},
        10,
    ),
    Target(
        "lock",
        "8 threads map and unmap",
        "malloc",
        {"size": _mib(33), "touch": 2, "spin": 300, "threads": 8},
        200,
    ),
    Target(
        "own-mmap",
        "the program's own mmap and munmap",
        "mmap",
        {"size": _mib(48), "spin": 30_000},
        15,
        reached=False,
    ),
    Target(
        "own-madvise",
        "the program's own MADV_DONTNEED",
        "dontneed",
        {"size": _mib(48), "spin": 30_000},
        15,
        reached=False,
    ),
)


def build(folder: Path) -> Path:
    """Compile the program into `folder` and return its path."""
    program = folder / "target"
    flags = ["-std=gnu11", "-O2", "-g", "-fno-omit-frame-pointer", "-pthread", "-D_GNU_SOURCE"]
    compiler = os.environ.get("CC", "cc")
    source = str(HERE / "c" / "target.c")
    subprocess.run([compiler, *flags, source, "-o", str(program)], check=True)
    return program
