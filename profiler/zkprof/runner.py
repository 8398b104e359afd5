# SPDX-License-Identifier: MIT OR Apache-2.0
"""Measuring while something else is to be seen to: a screen, a child, Ctrl-C.

`watch` measures a process and shows progress.  Ctrl-C ends the window, not
zkprof: what was measured until then is reported.  `Child` is a command that
zkprof started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext, suppress
from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING

from .errors import ZkprofError
from .live import LiveScreen
from .measure import measure
from .render import console
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType
    from typing import Self

    from rich.console import Console

    from .model import Measurement


class CommandError(ZkprofError):
    """A command cannot be started; exit codes are those of shells."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.shell_code = exit_code


@contextmanager
def stop_on_interrupt() -> Iterator[Event]:
    """Yield an event that the first Ctrl-C sets; a second one interrupts."""
    stop = Event()
    if current_thread() is not main_thread():
        yield stop
        return

    def first(signum: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signum, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def ignore(_: Measurement) -> None:
    """Do nothing with what is known so far.

    At each tick `measure` reads the library's counters, which are gone when
    the process is: a target that may end inside the window needs ticks.
    """


def watch(
    pid: int,
    duration_s: float,
    rate_hz: float,
    *,
    out: Console | None,
    title: str,
    children: bool = False,
    python: bool = True,
) -> Measurement:
    """Measure a process and show what is known so far.

    Parameters
    ----------
    pid, duration_s, rate_hz, children, python
        As for `measure`.
    out
        Where the screen goes, if that is a terminal; None shows nothing.
    title
        What is going on, for stderr when the screen is not shown.
    """
    with stop_on_interrupt() as stop:
        if out is not None and out.is_terminal:
            with LiveScreen(out, stop) as live:

                def tick(m: Measurement) -> None:
                    live.update(Report.of(m))

                return measure(
                    pid, duration_s, rate_hz, tick, stop, children=children, python=python
                )
        errors = console(sys.stderr)
        progress = errors.status(title) if out and errors.is_terminal else nullcontext()
        with progress:
            return measure(pid, duration_s, rate_hz, ignore, stop, children=children, python=python)


class Child:
    """A command, started; it has been executed when the constructor returns.

    Parameters
    ----------
    argv
        The command and its arguments.
    env
        Its environment; None inherits.
    pipe
        Whether its standard input and output are held here, line by line.

    Raises
    ------
    CommandError
        It cannot be executed.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, *, pipe: bool = False
    ) -> None:
        try:
            end = subprocess.PIPE if pipe else None
            self.process = subprocess.Popen(
                list(argv), env=env, stdin=end, stdout=end, text=True, bufsize=1
            )
        except FileNotFoundError as error:
            message = f"{argv[0]}: command not found"
            raise CommandError(message, 127) from error
        except OSError as error:
            message = f"{argv[0]} cannot be executed: {os.strerror(error.errno or 0)}"
            raise CommandError(message, 126) from error

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid

    def __enter__(self) -> Self:
        """Return the child; it is ended when the block is left early."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it if it still runs, and collect it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.end_input()
        if self.process.stdout:
            self.process.stdout.close()

    def write_line(self) -> None:
        """Write an empty line to its standard input, unless it has ended."""
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.write("\n")

    def read_line(self) -> str:
        """Read a line of its standard output; "" when it has ended."""
        return self.process.stdout.readline() if self.process.stdout else ""

    def end_input(self) -> None:
        """Close its standard input."""
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def wait(self) -> int:
        """Wait for its end; return its exit code as a shell writes it."""
        while True:
            try:
                code = self.process.wait()
            except KeyboardInterrupt:
                continue  # the terminal has told the child as well
            return code if code >= 0 else 128 - code
