# SPDX-License-Identifier: MIT OR Apache-2.0
"""A process together with its descendants, read as if they were one process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import NotPermittedError, TargetGoneError
from .model import MemoryPoint
from .procfs import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .procfs import Stat


class Family:
    """A process and, where wanted, all its descendants, read as if they were one.

    Times and faults of a child that has ended are in its parent's, once that
    has waited for it.  So the sum over those that live, of their own and their
    waited-for children's, neither loses nor gains when a child ends.  What is
    lost are children that nobody waits for.

    The high-water mark of one that has ended stays in the sum: another process
    in its place must be given all its memory anew, and no allocator helps.

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
        self._last: MemoryPoint | None = None
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

    def point(self) -> tuple[MemoryPoint, Stat]:
        """Read memory and CPU time; see `Process.point`."""
        point, stat = self.process.point()
        if not self.follow:
            return point, stat
        points = [_with_children(point, stat)]
        self._hwm_alive[self.process.pid] = point.hwm
        for pid, child in list(self._children.items()):
            try:
                its, its_stat = child.point()
            except TargetGoneError:
                self._children.pop(pid).close()
                self._hwm_gone += self._hwm_alive.pop(pid, 0)
                continue
            self._hwm_alive[pid] = max(its.hwm, self._hwm_alive.get(pid, 0))
            points.append(_with_children(its, its_stat))
        last = self._last
        self._last = MemoryPoint(
            t=point.t,
            rss=sum(p.rss for p in points),
            rss_anon=sum(p.rss_anon for p in points),
            hwm=self._hwm_gone + sum(self._hwm_alive.values()),
            # Never backwards, even where a child was missed for once.
            minor_faults=max(sum(p.minor_faults for p in points), last.minor_faults if last else 0),
            major_faults=max(sum(p.major_faults for p in points), last.major_faults if last else 0),
            utime_s=max(sum(p.utime_s for p in points), last.utime_s if last else 0.0),
            stime_s=max(sum(p.stime_s for p in points), last.stime_s if last else 0.0),
            threads=sum(p.threads for p in points),
        )
        return self._last, stat


def _with_children(point: MemoryPoint, stat: Stat) -> MemoryPoint:
    return replace(
        point,
        minor_faults=point.minor_faults + stat.children.minor_faults,
        major_faults=point.major_faults + stat.children.major_faults,
        utime_s=point.utime_s + stat.children.utime_s,
        stime_s=point.stime_s + stat.children.stime_s,
    )
