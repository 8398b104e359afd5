# SPDX-License-Identifier: MIT OR Apache-2.0
"""A live process and its libzknalloc counters, read as often as one likes.

`stats` shows them and `openmetrics` exports them.  Reading stops nothing and
costs the target nothing: the process is looked at from outside.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .library import (
    BadBlockError,
    Snapshot,
    UnreadableError,
    counter_rows,
    difference,
    find_blocks,
    read_block,
)
from .procfs import NoSuchProcessError, Process

if TYPE_CHECKING:
    from typing import Self

    from .model import LibraryCounters, MemoryPoint

FIRST_CLASS = 64 << 10
"""The smallest request of the first class; each class doubles it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look has found."""

    t: float
    point: MemoryPoint
    snapshots: dict[int, Snapshot]
    """By the address of the statistics block."""
    unreadable: str = ""
    """Why its memory, and so the library's counters, could not be read."""

    @property
    def library(self) -> LibraryCounters | None:
        """All that was counted since the process started; None without the library."""
        return difference([None] * len(self.snapshots), list(self.snapshots.values()))

    def since(self, before: Reading) -> LibraryCounters | None:
        """Return what was counted since an earlier reading."""
        earlier = [before.snapshots.get(address) for address in self.snapshots]
        return difference(earlier, list(self.snapshots.values()))


class Watched:
    """A process that is read again and again.

    Raises
    ------
    NoSuchProcessError, NotPermittedError
        It is not there, or may not be observed.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process = Process(pid)
        self.comm = self._process.stat().comm

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process."""
        self._process.close()

    def read(self) -> Reading:
        """Look at it once.

        Raises
        ------
        NoSuchProcessError
            It has ended.
        """
        point, stat = self._process.point()
        if stat.ended:
            raise NoSuchProcessError(f"process {self.pid} has ended")
        snapshots, unreadable = {}, ""
        try:
            # Looked for each time: a library may be loaded later, or replaced by exec.
            for address in find_blocks(self.pid, self._process.maps()):
                try:
                    snapshots[address] = read_block(self.pid, address)
                except BadBlockError:
                    continue
        except UnreadableError as error:
            self._process.stat()  # raises where it has just ended
            unreadable = str(error)
        return Reading(time.monotonic(), point, snapshots, unreadable)


def class_rows(library: LibraryCounters) -> list[tuple[int, int, int]]:
    """Return (size, hits, misses) of every class that saw a request."""
    rows = zip(library.class_hits, library.class_misses, strict=True)
    return [(FIRST_CLASS << i, h, m) for i, (h, m) in enumerate(rows) if h or m]


def is_total(name: str) -> bool:
    """Say whether a counter only ever grows."""
    return dict(counter_rows())[name] == "c"
