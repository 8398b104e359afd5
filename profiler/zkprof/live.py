# SPDX-License-Identifier: MIT OR Apache-2.0
"""The live screen: what is known so far, twice a second, with keys.

It takes the whole terminal and gives it back as it was.  Measuring goes on in
the caller's thread and hands in each new state; a second thread waits for
keys, so that a key acts at once.  Both draw under one lock.

Keys are read only where standard input is the terminal that we may read: in
the background, or with input from elsewhere, the screen works without them.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, RLock, Thread, current_thread, main_thread
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from .render import screen, title
from .text import cleaned
from .views import THREAD_SORTS, functions_table, threads_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Self

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from .report import Report

OVERVIEW, THREADS, FUNCTIONS = "classes", "threads", "functions"
_VIEWS = {"c": OVERVIEW, "t": THREADS, "f": FUNCTIONS}
_KEY_WAIT_S = 0.2
# What arrows and function keys send holds letters, too.
_NO_LETTER = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O?.|$)")
# Lines around a table: title, heading, keys, and what separates them.
_FRAME = 7


class LiveScreen:
    """A report that changes while it is looked at.

    Parameters
    ----------
    out
        A terminal.
    stop
        Set by the key that ends measuring.
    """

    def __init__(self, out: Console, stop: Event) -> None:
        self._out = out
        self._stop = stop
        self._lock = RLock()
        self._report: Report | None = None
        self._view = OVERVIEW
        self._sorts = list(THREAD_SORTS)
        self._paused = False
        self._keys = False
        self._closed = Event()
        self._live = Live(console=out, screen=True, auto_refresh=False, vertical_overflow="crop")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(_ended_in_order())
            self._keys = stack.enter_context(_keys())
            stack.enter_context(self._live)
            if self._keys:
                reader = Thread(target=self._read_keys, name="zkprof-keys", daemon=True)
                reader.start()
                stack.callback(reader.join)
            stack.callback(self._closed.set)
            self._stack = stack.pop_all()
        self._draw()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def update(self, report: Report) -> None:
        """Show a new state, unless the screen is paused."""
        with self._lock:
            if not self._paused:
                self._report = report
                self._draw()

    def press(self, key: str) -> None:
        """Do what a key asks for."""
        with self._lock:
            if key == "q":
                self._stop.set()
            elif key in {"p", " "}:
                self._paused = not self._paused
            elif key == "s":
                self._sorts.append(self._sorts.pop(0))
            elif key in _VIEWS:
                self._view = _VIEWS[key]
            else:
                return
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            self._live.update(self._content(), refresh=True)

    def _content(self) -> RenderableType:
        if self._report is None:
            return _Page(Text("attaching ..."), self._help())
        if self._view == OVERVIEW:
            return _Page(screen(self._report, live=True), self._help())
        m = cleaned(self._report.measurement)
        rows = max(3, self._out.height - _FRAME)
        heading: str
        table: RenderableType
        if self._view == THREADS:
            heading = f"Threads by {self._sorts[0]}"
            table = threads_table(m, self._sorts[0], rows)
        else:
            heading = "Memory management, by where it is asked for"
            table = functions_table(m, rows)
            if not m.stacks:
                table = Text("No stacks so far: they need permission to sample.", style="dim")
        body = Group(title(m), Text(), Text(heading, "bold"), table)
        return _Page(body, self._help())

    def _help(self) -> Text:
        if not self._keys:
            return Text("Ctrl-C ends and reports", style="dim")
        text = Text("PAUSED  " if self._paused else "", style="bold yellow")
        words = ["q end and report", "p go on" if self._paused else "p pause"]
        words += [f"{key} {view}" for key, view in _VIEWS.items() if view != self._view]
        if self._view == THREADS:
            words.append("s sort")
        return text.append("   ".join(words), style="not bold dim")

    def _read_keys(self) -> None:
        number = sys.stdin.fileno()
        while not self._closed.is_set():
            if not select.select([number], [], [], _KEY_WAIT_S)[0]:
                continue
            try:
                keys = os.read(number, 64)
            except OSError:
                return
            if not keys:
                return
            for key in _NO_LETTER.sub(b"", keys).decode("ascii", "ignore"):
                self.press(key)


class _Page:
    """As much of something as the terminal has room for above the line of keys."""

    def __init__(self, body: RenderableType, keys: Text) -> None:
        self._body, self._keys = body, keys

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        free = options.update(height=None)
        keys = console.render_lines(self._keys, free, pad=False)
        lines = console.render_lines(self._body, free, pad=False)
        room = max(1, console.size.height - len(keys) - 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], [Segment("...")]]
        for line in [*lines, [], *keys]:
            yield from line
            yield Segment.line()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM unwind, so that the terminal is given back."""
    if current_thread() is not main_thread():
        yield
        return

    def end(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _keys() -> Iterator[bool]:
    """Let the terminal hand over keys as they are pressed, if it is ours to read."""
    try:
        number = sys.stdin.fileno()
        ours = os.isatty(number) and os.tcgetpgrp(number) == os.getpgrp()
        before = termios.tcgetattr(number) if ours else None
    except (OSError, ValueError, termios.error):
        before = None
    if before is None:
        yield False
        return
    try:
        # Ctrl-C stays a signal: it ends the window as everywhere.
        tty.setcbreak(number, termios.TCSANOW)
        yield True
    finally:
        with suppress(termios.error):
            termios.tcsetattr(number, termios.TCSANOW, before)
