# SPDX-License-Identifier: MIT OR Apache-2.0
"""Measuring while something else is to be seen to: a screen, a child, Ctrl-C.

`watch` measures a process and shows progress.  Ctrl-C ends the window, not
zkprof: what was measured until then is reported.  `Child` is a command that
zkprof started.

A command that is to be measured from its first instruction on must wait until
measuring has begun, and must not be stopped for it: it is started by a shell
that reads a line from a pipe of ours before it turns into the command.  The
shell opens that pipe below our directory in /proc, so the command inherits
nothing, and a zkprof that dies lets it go on.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING

from .errors import ZkprofError
from .live import LiveScreen
from .measure import measure
from .render import console
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from resource import struct_rusage
    from types import FrameType
    from typing import IO, Self

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
    on_open: Callable[[], None] | None = None,
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
    on_open
        As for `measure`.
    """
    with stop_on_interrupt() as stop:
        if out is not None and out.is_terminal:
            with LiveScreen(out, stop) as live:

                def tick(m: Measurement) -> None:
                    live.update(Report.of(m))

                return measure(
                    pid,
                    duration_s,
                    rate_hz,
                    tick,
                    stop,
                    children=children,
                    python=python,
                    on_open=on_open,
                )
        errors = console(sys.stderr)
        progress = errors.status(title) if out and errors.is_terminal else nullcontext()
        with progress:
            return measure(
                pid,
                duration_s,
                rate_hz,
                ignore,
                stop,
                children=children,
                python=python,
                on_open=on_open,
            )


# $0 is our pipe.  Where it is gone, so are we, and the command just starts.
_WAIT = 'read -r go 2>&- < "$0"; unset go; exec "$@"'


class Child:
    """A command, started; unless it is held, it has been executed already.

    Parameters
    ----------
    argv
        The command and its arguments.
    env
        Its environment; None inherits.
    pipe
        Whether its standard input and output are held here, line by line.
    held
        Whether it waits, before it is executed, for `release`.
    output
        A file for its standard output and error; None inherits ours.

    Raises
    ------
    CommandError
        It cannot be executed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        pipe: bool = False,
        held: bool = False,
        output: IO[str] | None = None,
    ) -> None:
        self._gate: tuple[int, int] | None = None
        self._released = False
        end = subprocess.PIPE if pipe else None
        words = list(argv)
        if held:
            _check(argv[0], env)
            self._gate = os.pipe()
            pipe_path = f"/proc/{os.getpid()}/fd/{self._gate[0]}"
            words = ["/bin/sh", "-c", _WAIT, pipe_path, *argv]
        try:
            self.process = subprocess.Popen(  # noqa: S603  (the user's command, as it was given)
                words,
                env=env,
                stdin=end,
                stdout=end or output,
                stderr=output,
                text=True,
                bufsize=1,
            )
        except FileNotFoundError as error:
            message = f"{argv[0]}: command not found"
            raise CommandError(message, 127) from error
        except OSError as error:
            message = f"{argv[0]} cannot be executed: {os.strerror(error.errno or 0)}"
            raise CommandError(message, 126) from error

    def release(self) -> None:
        """Let a held command start; a second call does nothing."""
        if self._gate and not self._released:
            os.write(self._gate[1], b"\n")
            # Both ends stay open: the shell may not have opened the pipe yet.
            self._released = True

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
        for end in self._gate or ():
            os.close(end)
        self._gate = None

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

    def collect(self) -> tuple[int, struct_rusage]:
        """Wait for its end; return its exit code and what it and its children used."""
        _, status, used = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.wait(), used

    def wait(self) -> int:
        """Wait for its end; return its exit code as a shell writes it."""
        while True:
            try:
                code = self.process.wait()
            except KeyboardInterrupt:
                continue  # the terminal has told the child as well
            return code if code >= 0 else 128 - code


def _check(name: str, env: Mapping[str, str] | None) -> None:
    """Say what a shell would find wrong with a command, before one is asked."""
    path = os.environ.get("PATH") if env is None else env.get("PATH")
    if shutil.which(name, path=path):
        return
    if "/" in name and os.path.lexists(name):
        code = errno.EISDIR if Path(name).is_dir() else errno.EACCES
        message = f"{name} cannot be executed: {os.strerror(code)}"
        raise CommandError(message, 126)
    message = f"{name}: command not found"
    raise CommandError(message, 127)
