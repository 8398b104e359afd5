# SPDX-License-Identifier: MIT OR Apache-2.0
"""One window of measuring: the only entry point that the advising side calls.

Everything happens in the calling thread, in one loop: read samples, read
/proc twenty times a second, tell the caller what is known twice a second.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from .classify import NoKernelSymbolsError
from .context import Surroundings
from .counted import CountedWindow
from .errors import ZkprofError
from .family import Family
from .library import Library
from .model import DEFAULT_RATE_HZ, Measurement, Method, Tier
from .procfs import NoSuchProcessError, Process
from .sampled import SampledWindow
from .sampler import PerfUnavailableError
from .target import describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from .model import LibraryCounters, MemoryPoint, Target
    from .window import Window

POLL_S = 0.05
TICK_S = 0.5
# Programs load their libraries at the start: look at their files again then.
_LOOK_AGAIN_S = (0.5, 2.0, 8.0)
# Telling the caller may take this share of our time; long windows tick slower.
_TICK_SHARE = 0.1


class TierUnavailableError(ZkprofError):
    """The way of measuring that was asked for is not possible here."""


def measure(
    pid: int,
    duration_s: float,
    rate_hz: float = DEFAULT_RATE_HZ,
    on_tick: Callable[[Measurement], None] | None = None,
    stop: Event | None = None,
    *,
    tier: Tier | None = None,
    children: bool = False,
    python: bool = True,
    on_open: Callable[[], None] | None = None,
) -> Measurement:
    """Measure process `pid` for `duration_s` seconds, or until it ends.

    Parameters
    ----------
    pid
        The process; every thread that it has or starts is measured.
    duration_s
        The longest window; ``math.inf`` measures until `stop` or the end.
    rate_hz
        Samples per second of CPU time, for the tiers that sample.
    on_tick
        Called about twice a second with what is known so far.
    stop
        When set, measuring ends within a tenth of a second.
    tier
        Measure in exactly this way; None takes the best that is permitted.
    children
        Measure its child processes too, present and future, all as one.
    python
        Where the target is a Python program, say which of its functions time
        was spent in.
    on_open
        Called once, when measuring has begun: a target that waits may go on.

    Returns
    -------
    Measurement
        What was measured, the same in every tier.  When the target ended it
        is complete as long as its parent had not collected it (``wait``).

    Raises
    ------
    NoSuchProcessError, ZombieError, KernelThreadError, NotPermittedError
        The target cannot be measured.
    TierUnavailableError
        `tier` was asked for and is not possible here.
    """
    with Process(pid) as process, closing(Family(process, follow=children)) as family:
        # Before anything is sampled: to read a large program's file takes a while.
        target = describe(process, process.maps())
        window, notes = _attach(family, rate_hz, tier, python=python)
        with closing(window), closing(_Run(family, window, target, rate_hz, notes)) as run:
            if on_open:
                on_open()
            run.loop(duration_s, on_tick, stop)
            return run.result(final=True)


def _attach(
    family: Family, rate_hz: float, tier: Tier | None, *, python: bool
) -> tuple[Window, list[str]]:
    """Attach in the best way that is possible; also say why not in a better one."""
    notes: list[str] = []
    for candidate in (tier,) if tier else Tier:
        try:
            if candidate is Tier.KERNEL:
                return SampledWindow(family, rate_hz, python=python), notes
            return CountedWindow(family, rate_hz if candidate is Tier.USER else None), notes
        except (PerfUnavailableError, NoKernelSymbolsError) as error:
            family.process.stat()  # raises where the target has just ended
            if tier:
                raise TierUnavailableError(str(error)) from error
            notes.append(str(error))
    raise AssertionError  # Tier.PROC needs nothing


class _Run:
    """The state of one window."""

    def __init__(
        self, family: Family, window: Window, target: Target, rate_hz: float, notes: list[str]
    ) -> None:
        self._family = family
        self._process = process = family.process
        self._window = window
        self._rate_hz = rate_hz
        self._notes = notes
        self._ended = False
        self._points: list[MemoryPoint] = []
        self._stack = 0
        self._poll()
        mappings = process.maps()
        self._library = Library(process.pid, mappings)
        window.look(mappings)
        self._counters: LibraryCounters | None = self._library.read()
        self._target = target
        self._looks = list(_LOOK_AGAIN_S)
        self._surroundings = Surroundings(family)

    def loop(
        self,
        duration_s: float,
        on_tick: Callable[[Measurement], None] | None,
        stop: Event | None,
    ) -> None:
        """Measure until the time is over, the target ends, or `stop` is set."""
        start = self._points[0].t
        end, tick = start + duration_s, start + TICK_S
        while not self._ended and not (stop and stop.is_set()):
            now = time.monotonic()
            if now >= end:
                break
            self._window.wait(min(POLL_S, end - now))
            self._surroundings.update()
            self._family.look(self._window.pids())
            if not self._poll():
                break
            self._look_again(time.monotonic() - start)
            if time.monotonic() >= tick:
                began = time.monotonic()
                if on_tick:
                    on_tick(self.result())
                done = time.monotonic()
                tick = done + max(TICK_S, (done - began) / _TICK_SHARE)

    def _poll(self) -> bool:
        """Read the target's counters; return whether it is still running."""
        try:
            point, stat = self._family.point()
        except NoSuchProcessError:
            self._ended = True
        else:
            self._points.append(point)
            self._ended = stat.ended
            if self._stack not in (0, stat.stack) and not stat.ended:
                # It has executed another program: look at that one's files, too.
                self._looks = [0.0, *_LOOK_AGAIN_S]
            self._stack = stat.stack
        return not self._ended

    def _look_again(self, elapsed_s: float) -> None:
        if not self._looks or elapsed_s < self._looks[0]:
            return
        self._looks.pop(0)
        try:
            mappings = self._process.maps()
            self._library.look_again(mappings)
            self._window.look(mappings)
            target = describe(self._process, mappings)
            if target.exe:  # a process that is about to be gone hides it
                self._target = target
        except NoSuchProcessError:
            self._ended = True

    def close(self) -> None:
        """Let go of what was observed besides the target itself."""
        self._surroundings.close()

    def result(self, *, final: bool = False) -> Measurement:
        """Return what is known so far."""
        self._window.update()
        if final:
            self._window.finish()
        self._family.look(self._window.pids())
        if not self._ended:
            self._poll()
        self._counters = self._library.read()
        first, last = self._points[0], self._points[-1]
        found = self._window.findings(first, last)
        # A process that has ended has no memory left to report.
        memory = tuple(point for point in self._points if point.rss)
        return Measurement(
            target=self._target,
            method=Method(
                tier=self._window.tier,
                rate_hz=0.0 if self._window.tier is Tier.PROC else self._rate_hz,
                samples=found.samples,
                lost=found.lost,
                overhead=found.overhead,
                ns_per_fault=found.ns_per_fault,
                notes=(
                    *self._notes,
                    *found.notes,
                    *self._surroundings.notes,
                    *self._library.problems,
                ),
            ),
            started=first.t,
            duration_s=last.t - first.t,
            cpu_s=found.cpu_s,
            classes=found.classes,
            overlays=found.overlays,
            memory=memory,
            threads=found.threads,
            bins=found.bins,
            library=self._counters,
            exited=self._ended,
            frames=found.frames,
            stacks=found.stacks,
            python=found.python,
            traffic=self._surroundings.traffic(),
            context=self._surroundings.context(final=final),
            pids=self._family.pids,
        )
