# SPDX-License-Identifier: MIT OR Apache-2.0
"""What things are called on every screen, page and export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .estimate import PAGES_IN, PAGES_OUT
from .model import Kind, Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

TIERS = {
    Tier.KERNEL: "samples with kernel stacks",
    Tier.USER: "unprivileged samples and counters",
    Tier.PROC: "counters in /proc",
}

KINDS = {
    Kind.FAULT_ANON: "page faults, anonymous",
    Kind.FAULT_FILE: "page faults, files",
    Kind.FAULT_COW: "page faults, copy on write",
    Kind.FAULT_SWAP: "page faults, swap",
    Kind.FAULT_NUMA: "page faults, NUMA balancing",
    Kind.FAULT_OTHER: "page faults, unknown",
    Kind.PREFAULT: "prefaulting",
    Kind.UNMAP: "munmap",
    Kind.MADVISE: "madvise",
    Kind.MMAP: "mmap, brk, mprotect",
    Kind.KERNEL: "other kernel work",
    Kind.USER: "its own work",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Classes that are shown as one: what belongs together."""

    id: str
    name: str
    kinds: tuple[Kind, ...]
    colour: str
    """On a terminal: red can be saved, yellow and blue cannot, green is wanted."""


GROUPS = (
    Group("anon", KINDS[Kind.FAULT_ANON], (Kind.FAULT_ANON,), "red"),
    Group("prefault", KINDS[Kind.PREFAULT], (Kind.PREFAULT,), "red"),
    Group("unmap", KINDS[Kind.UNMAP], (Kind.UNMAP,), "red"),
    Group("madvise", KINDS[Kind.MADVISE], (Kind.MADVISE,), "red"),
    Group("mmap", KINDS[Kind.MMAP], (Kind.MMAP,), "red"),
    Group("file", KINDS[Kind.FAULT_FILE], (Kind.FAULT_FILE,), "yellow"),
    Group(
        "other",
        "page faults, other",
        (Kind.FAULT_COW, Kind.FAULT_SWAP, Kind.FAULT_NUMA, Kind.FAULT_OTHER),
        "yellow",
    ),
    Group("kernel", KINDS[Kind.KERNEL], (Kind.KERNEL,), "blue"),
    Group("user", KINDS[Kind.USER], (Kind.USER,), "green"),
)
"""Every class is in one of them, in the order of showing."""

MANAGING = (*PAGES_IN, *PAGES_OUT)
"""The classes that are memory management."""


def managing(seconds: Mapping[Kind, float]) -> float:
    """Return the seconds that went into memory management."""
    return sum(seconds.get(kind, 0.0) for kind in MANAGING)
