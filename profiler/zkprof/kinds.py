# SPDX-License-Identifier: MIT OR Apache-2.0
"""Kinds of page faults, told apart by counters alone.

**Copies.** After a fork the first write to each page copies it. No allocator saves that, and the
counter of page faults does not tell it from a first touch. But resident memory does: a first
touch adds a page, a copy replaces one. And there is a bound: a fork leaves no more to copy than
was resident then. So while a relative shares its pages with a process, from one reading to the
next,

    copies = min(faults - pages that resident memory rose by, what is left to copy)

and where a child came or went between the two, there may have been any number of forks, and the
bound does not hold. That is exact where the process only copies. Faults on memory that it gave back
between the readings are taken for copies as well: of a process that forks all the time the saving
is then said too low, and never too high.

Two processes share pages when their stacks start at one address: an exec moves the stack.

**Mapped files.** A first touch adds a page of anonymous memory, a fault on a file up to sixteen of
the file's, as the kernel maps those around it, too. What comes and goes between two readings
is not seen, of neither kind; what is seen to move, up or down, of each kind is in proportion.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from .model import MemoryPoint
    from .procfs import Process, Stat

_PAGE = os.sysconf("SC_PAGESIZE")
_FAULT_AROUND = 16
"""Pages that the kernel maps for one fault on a file."""
# The counters are exact to some pages a thread, and programs load libraries.
_LEAST_MOVED = 64 << 20


class Sharing:
    """What one process copies of the pages that it shares.

    Parameters
    ----------
    process
        The process.
    point, stat
        Its counters now.
    sharers
        The processes that share pages with it now.
    """

    def __init__(
        self, process: Process, point: MemoryPoint, stat: Stat, sharers: Collection[int]
    ) -> None:
        self.copies = 0
        """Page faults, since then, that were copies."""
        # Of what was forked before, some is copied already.
        self._left = shared_pages(process) if sharers else 0
        self._sharers = frozenset(sharers)
        self._forks = bool(sharers)
        self._point, self._stat = point, stat

    def update(self, point: MemoryPoint, stat: Stat, sharers: Collection[int]) -> None:
        """Take in new readings of the counters and of who shares pages."""
        before, self._point = self._point, point
        reaped = stat.children.minor_faults > self._stat.children.minor_faults
        self._stat = stat
        new = not self._sharers.issuperset(sharers)
        self._sharers = frozenset(sharers)
        self._forks |= new
        rose = max(0, point.rss_anon - before.rss_anon) // _PAGE
        copied = max(0, point.minor_faults - before.minor_faults - rose)
        # A child that came and went between the readings leaves its faults.
        if new or (reaped and self._forks):
            self._left = max(copied, before.rss_anon // _PAGE)
        copied = min(copied, self._left)
        self.copies += copied
        self._left = self._left - copied if sharers else 0


class Moved:
    """How much resident memory of each kind came and went.

    Parameters
    ----------
    point
        The counters now.
    """

    def __init__(self, point: MemoryPoint) -> None:
        self._point = point
        self._anon = self._file = 0

    def update(self, point: MemoryPoint) -> None:
        """Take in a new reading."""
        before, self._point = self._point, point
        if point.rss:  # one that has ended has none
            self._anon += abs(point.rss_anon - before.rss_anon)
            self._file += abs((point.rss - point.rss_anon) - (before.rss - before.rss_anon))

    @property
    def file_share(self) -> float:
        """The share of the faults that were on files; 0 where hardly any moved."""
        if self._file < _LEAST_MOVED:
            return 0.0
        files = self._file / _FAULT_AROUND
        return files / (files + self._anon)


def shared_pages(process: Process) -> int:
    """Return how many anonymous pages a process has in common with others, at most.

    Reading this holds up the target's own mapping calls for a moment.
    """
    sizes = process.memory_sizes()
    anonymous = sizes.get("Anonymous", 0)
    # Of a page that n share, each is told 1/n; n is 2 or more.
    shared = 2 * (anonymous - sizes.get("Pss_Anon", 0))
    return min(anonymous, max(0, shared)) // _PAGE
