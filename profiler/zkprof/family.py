# SPDX-License-Identifier: MIT OR Apache-2.0
"""A process together with its descendants, read as if they were one process."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import NotPermittedError, TargetGoneError
from .kinds import Moved, Sharing
from .model import MemoryPoint
from .procfs import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .procfs import Stat

_PAGE = os.sysconf("SC_PAGESIZE")
# Finding out who shares pages may take this part of our time.
_LOOK_SHARE = 0.02


class Family:
    """A process and, where wanted, all its descendants, read as if they were one.

    Times and faults of a child that has ended are in its parent's, once that
    has waited for it.  So the sum over those that live, of their own and their
    waited-for children's, neither loses nor gains when a child ends.  What is
    lost are children that nobody waits for.

    The high-water mark of one that has ended stays in the sum: another process
    in its place must be given all its memory anew, and no allocator helps. Of one
    that came and went between two readings only its faults are known, from its
    parent: they are what it grew by, at most. Memory that a fork left shared is
    no growth.

    Parameters
    ----------
    process
        The target.
    follow
        Whether its descendants count.
    """

    def __init__(self, process: Process, *, follow: bool) -> None:
        self.process = process
        self.follow = follow
        # Parents come before children: one that is waited for between the two
        # readings is then missed for once, and not counted twice.
        self._children: dict[int, Process] = {}
        self._seen = dict.fromkeys([process.pid])  # in order
        self._hwm_alive: dict[int, int] = {}
        self._hwm_gone = 0
        self._inherited: dict[int, tuple[int, int]] = {}
        self._own_faults: dict[int, int] = {}
        self._unseen_faults: int | None = None
        self._unseen_grown = 0
        self._last: MemoryPoint | None = None
        self._sharing: dict[int, Sharing] | None = None
        self._sharers: set[int] = set()
        self._moved: Moved | None = None
        self._next_look = 0.0
        self.look()

    def close(self) -> None:
        """Let go of the children."""
        for child in self._children.values():
            child.close()
        self._children = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Every process seen, the target first; empty without children wanted."""
        return tuple(self._seen) if self.follow else ()

    @property
    def members(self) -> list[Process]:
        """The processes that there are."""
        return [self.process, *self._children.values()]

    def look(self, pids: Sequence[int] = ()) -> None:
        """Look for new descendants.

        Parameters
        ----------
        pids
            Those that a sampler has seen start; with none, /proc is searched.
        """
        if not self.follow:
            return
        found = list(pids)
        for member in self.members if not pids else []:
            found += member.children()
        while found:
            pid = found.pop(0)
            if pid in self._seen:
                continue
            self._seen[pid] = None
            try:
                self._children[pid] = Process(pid)
                found += self._children[pid].children()
            except (TargetGoneError, NotPermittedError):
                continue

    def watch_kinds(self) -> None:
        """From now on tell kinds of faults apart: see `copies` and `files`."""
        self._sharing = {}
        self._moved = Moved(self.point()[0])

    @property
    def files(self) -> float:
        """The share of the page faults on mapped files, going by resident memory."""
        return self._moved.file_share if self._moved else 0.0

    @property
    def copies(self) -> int:
        """Page faults that copied what a fork had left shared; see kinds.py."""
        return sum(s.copies for s in (self._sharing or {}).values())

    def point(self) -> tuple[MemoryPoint, Stat]:
        """Read memory and CPU time; see `Process.point`."""
        point, stat = self.process.point()
        read = {self.process.pid: (point, stat)}
        for pid, child in list(self._children.items()):
            try:
                read[pid] = child.point()
            except TargetGoneError:
                self._children.pop(pid).close()
                self._hwm_gone += self._hwm_alive.pop(pid, 0)
        if self._sharing is not None:
            self._count_copies(self._sharing, read)
        total = self._sum(read) if self.follow else point
        if self._moved:
            self._moved.update(total)
        return total, stat

    def _sum(self, read: dict[int, tuple[MemoryPoint, Stat]]) -> MemoryPoint:
        for pid, (point, stat) in read.items():
            if pid not in self._own_faults:
                self._inherited[pid] = stat.stack, self._inheritance(pid, point, stat, read)
            self._own_faults[pid] = point.minor_faults
            stack, inherited = self._inherited[pid]
            grown = point.hwm - (inherited if stat.stack == stack else 0)
            self._hwm_alive[pid] = max(grown, self._hwm_alive.get(pid, 0))
        points = [_with_children(point, stat) for point, stat in read.values()]
        faults = sum(p.minor_faults for p in points)
        # What is in the sum and not of a process that was ever read itself. Those
        # that end are missed for a moment, until their parents have waited.
        unseen = faults - sum(self._own_faults.values())
        if self._unseen_faults is None:
            self._unseen_faults = unseen
        self._unseen_grown = max(self._unseen_grown, (unseen - self._unseen_faults) * _PAGE)
        last = self._last
        self._last = MemoryPoint(
            t=points[0].t,
            rss=sum(p.rss for p in points),
            rss_anon=sum(p.rss_anon for p in points),
            hwm=self._hwm_gone + self._unseen_grown + sum(self._hwm_alive.values()),
            # Never backwards, even where a child was missed for once.
            minor_faults=max(faults, last.minor_faults if last else 0),
            major_faults=max(sum(p.major_faults for p in points), last.major_faults if last else 0),
            utime_s=max(sum(p.utime_s for p in points), last.utime_s if last else 0.0),
            stime_s=max(sum(p.stime_s for p in points), last.stime_s if last else 0.0),
            threads=sum(p.threads for p in points),
        )
        return self._last

    def _inheritance(
        self,
        pid: int,
        point: MemoryPoint,
        stat: Stat,
        read: dict[int, tuple[MemoryPoint, Stat]],
    ) -> int:
        """Return how much of a new child's memory is its parent's, until an exec."""
        if self._last is None or pid == self.process.pid:
            return 0  # counts from where it stands
        if all(other.stack != stat.stack for of, (_, other) in read.items() if of != pid):
            return 0
        return max(0, point.hwm - point.minor_faults * _PAGE)

    def _count_copies(
        self, sharing: dict[int, Sharing], read: dict[int, tuple[MemoryPoint, Stat]]
    ) -> None:
        self._look_for_sharers()
        by_stack: defaultdict[int, set[int]] = defaultdict(set)
        for pid, (_, stat) in read.items():
            by_stack[stat.stack].add(pid)
        for pid, (point, stat) in read.items():
            sharers = by_stack[stat.stack] - {pid} if stat.stack else set()
            if pid == self.process.pid:
                sharers |= self._sharers
            if known := sharing.get(pid):
                known.update(point, stat, sharers)
            else:
                with suppress(TargetGoneError, NotPermittedError, OSError):
                    member = self._children.get(pid, self.process)
                    sharing[pid] = Sharing(member, point, stat, sharers)

    def _look_for_sharers(self) -> None:
        """Look who shares the target's pages, as often as that is cheap."""
        if time.monotonic() >= self._next_look:
            began = time.thread_time()
            with suppress(TargetGoneError, OSError):
                self._sharers = self.process.sharers()
            took = time.thread_time() - began
            self._next_look = time.monotonic() + took / _LOOK_SHARE


def _with_children(point: MemoryPoint, stat: Stat) -> MemoryPoint:
    return replace(
        point,
        minor_faults=point.minor_faults + stat.children.minor_faults,
        major_faults=point.major_faults + stat.children.major_faults,
        utime_s=point.utime_s + stat.children.utime_s,
        stime_s=point.stime_s + stat.children.stime_s,
    )
