# SPDX-License-Identifier: MIT OR Apache-2.0
"""The live screen on a terminal of its own: keys, and the terminal afterwards."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pyte
import pytest
from rich.console import Console, ConsoleDimensions

from zkprof.live import LiveScreen
from zkprof.render import console
from zkprof.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COLUMNS, LINES = 80, 40


class Terminal:
    """A terminal of 80 by 40 and the program that runs in it."""

    def __init__(self, *command: str) -> None:
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(side)
        self.side = side
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.process = subprocess.Popen(
            command,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            env=os.environ | {"TERM": "xterm-256color"},
        )

    def read(self, seconds: float = 0.1) -> None:
        while select.select([self.main], [], [], seconds)[0]:
            data = os.read(self.main, 65536)
            self.raw += data
            self.stream.feed(data)

    def until(self, words: str) -> str:
        """Wait until the screen shows `words`; return what it shows."""
        for _ in range(200):
            self.read()
            text = "\n".join(self.screen.display)
            if words in text:
                return text
        pytest.fail(f"{words!r} never came; the screen is\n{text}")

    def press(self, keys: str) -> None:
        os.write(self.main, keys.encode())

    def ended(self) -> int:
        for _ in range(200):
            self.read()
            if self.process.poll() is not None:
                self.read()
                return self.process.returncode
        pytest.fail("it did not end")


@contextmanager
def terminal(*command: str) -> Iterator[Terminal]:
    made = Terminal(*command)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        os.close(made.main)
        os.close(made.side)


@pytest.fixture
def target(compiled: Callable[..., Path], run: Callable[..., Any]) -> Iterator[int]:
    with run(compiled("workload"), "mixed") as process:
        yield process.pid


def test_keys(target: int) -> None:
    with terminal(sys.executable, "-m", "zkprof", str(target), "-d", "120") as t:
        text = t.until("q end and report")
        text = t.until("CPU time")
        assert f"zkprof {target}" in text
        t.press("t")
        assert "memory management" in t.until("Threads by CPU time")
        t.press("s")
        t.until("Threads by memory management")
        t.press("f")
        t.until("Memory management, by where it is asked for")
        t.press("p")
        t.until("PAUSED")
        t.press("\x1b[A")  # an arrow key is none of ours
        t.press("p")
        t.press("c")
        t.until("page faults, anonymous")
        t.press("q")
        assert t.ended() in (0, 4)
        # The report stays on the ordinary screen.
        assert t.raw.rstrip().rfind(b"\x1b[?1049l") < t.raw.rfind(b"Method")
        assert termios.tcgetattr(t.side) == t.before


def test_pausing_holds_the_screen_not_the_measurement(target: int) -> None:
    with terminal(sys.executable, "-m", "zkprof", str(target), "-d", "3") as t:
        t.until("CPU time")
        t.press("p")
        paused = t.until("PAUSED")
        time.sleep(1.2)
        t.read()
        assert "\n".join(t.screen.display) == paused
        assert t.ended() in (0, 4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_given_back(target: int, number: int) -> None:
    with terminal(sys.executable, "-m", "zkprof", str(target), "-d", "120") as t:
        t.until("CPU time")
        t.process.send_signal(number)
        code = t.ended()
        assert code in ((0, 4) if number == signal.SIGINT else (128 + number,))
        assert t.raw.count(b"\x1b[?1049h") == t.raw.count(b"\x1b[?1049l") == 1
        assert termios.tcgetattr(t.side) == t.before


def test_hostile_names_do_not_reach_the_terminal(evil: Report) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        out = Console(file=nowhere, force_terminal=True, width=80, height=30, markup=False)
        with LiveScreen(out, Event()) as live:
            live.update(evil)
            for key in "ctfs":
                live.press(key)
                with out.capture() as captured:
                    out.print(live._content())
                for bad in ("\x1b[2J", "\x1b]0", "\x07", "\u202e"):
                    assert bad not in captured.get()


@pytest.mark.parametrize(("columns", "lines"), [(80, 40), (80, 12), (40, 15)])
def test_the_keys_are_in_sight(full: Report, columns: int, lines: int) -> None:
    """However small the terminal is."""
    out = console(io.StringIO())
    live = LiveScreen(out, Event())
    live._keys = True
    live._report = full
    out.size = ConsoleDimensions(columns, lines)
    shown = out.render_lines(live._content(), pad=False)
    text = ["".join(segment.text for segment in line) for line in shown]
    assert len(text) <= lines
    assert "functions" in text[-1]
    assert ("..." in text) == (lines < 40)


def test_q_ends_the_window(full: Report) -> None:
    stop = Event()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        live = LiveScreen(Console(file=nowhere, force_terminal=True), stop)
        with live:
            live.update(full)
            live.press("x")
            assert not stop.is_set()
            live.press("q")
    assert stop.is_set()
