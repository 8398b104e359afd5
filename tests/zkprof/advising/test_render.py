# SPDX-License-Identifier: MIT OR Apache-2.0
"""The screen: verdict first, 80 columns, plain where it is no terminal."""

from __future__ import annotations

import dataclasses
import io
import shlex
from typing import TYPE_CHECKING

import pytest
from rich.console import Console, ConsoleDimensions

from zkprof.model import Context, Frame, Kind, LibraryCounters, Measurement, StackTime, Tier
from zkprof.render import command_lines, console, screen, show
from zkprof.report import Report
from zkprof.views import fitted

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Measurement]

CASES = {
    "bound": ({Kind.FAULT_ANON: 0.3, Kind.UNMAP: 0.1}, {}),
    "heavy": ({Kind.FAULT_ANON: 0.1}, {"noise": 0.01}),
    "not bound": ({Kind.FAULT_ANON: 0.01, Kind.FAULT_FILE: 0.3}, {}),
    "growth": ({Kind.FAULT_ANON: 0.3}, {"growth": 0.9}),
    "inconclusive": ({Kind.FAULT_ANON: 0.3}, {"samples": 5}),
    "counters": ({Kind.FAULT_ANON: 0.3}, {"tier": Tier.PROC, "zeroing": None}),
    "go": (
        {Kind.MADVISE: 0.3},
        {"preloadable": False, "preload_reason": "Go has its own heap " * 5, "allocator": "go"},
    ),
    "nothing": ({}, {"cpu_s": 0.0, "bins": ()}),
    "long": (
        {Kind.FAULT_ANON: 0.3},
        {"comm": "x" * 15, "exe": "/long path/" + "directory/" * 8 + "prover"},
    ),
}


def plain(report: Report) -> str:
    out = io.StringIO()
    show(console(out), screen(report))
    return out.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_plain_text_fits(measurement: Make, name: str) -> None:
    shares, changes = CASES[name]
    report = Report.of(measurement(shares, **changes))
    text = plain(report)
    assert "\x1b" not in text
    for line in text.splitlines():
        # Only a word of a command may stick out: it must stay whole to be pasted.
        assert len(line) <= 80 or report.measurement.target.exe in line, line
        assert line == line.rstrip()


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_comes_first(measurement: Make, name: str) -> None:
    shares, changes = CASES[name]
    report = Report.of(measurement(shares, **changes))
    lines = plain(report).splitlines()
    assert lines[0].startswith("zkprof 4242 ")
    assert lines[2].startswith(report.estimate.verdict.upper())


def test_numbers_of_a_bound_prover(measurement: Make) -> None:
    text = plain(Report.of(measurement({Kind.FAULT_ANON: 0.32, Kind.UNMAP: 0.08})))
    assert "cut wall time by 40% [40% to 40%]" in text
    assert "1.67 times as fast" in text
    assert "glibc; preloading works" in text
    assert "1000 at 199 Hz, 0 lost" in text
    assert "zk-nalloc run -- /opt/prover ARGS..." in text


def asking(m: Measurement, *frames: Frame) -> str:
    """Return the line of a report that says where memory was asked for, by one stack."""
    stack = StackTime(Kind.FAULT_ANON, 1, tuple(range(len(frames))), m.cpu_s / 3, 100)
    text = plain(Report.of(dataclasses.replace(m, frames=frames, stacks=(stack,))))
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    return lines[lines.index("Memory management, by where it is asked for") + 1]


def test_long_names_leave_room_for_the_share(measurement: Make) -> None:
    m = measurement({Kind.FAULT_ANON: 0.32})
    long = "std::sys::backtrace::__rust_begin_short_backtrace::" + "x" * 40
    line = asking(m, Frame(long, "p"), Frame("prover::main", "p"), Frame("memset", "libc.so.6"))
    assert line.startswith(" 33.3% memset < prover::main < std::sys::")
    assert line.endswith("xxx")


def test_the_python_function_that_asks_is_named(measurement: Make) -> None:
    m = measurement({Kind.FAULT_ANON: 0.32})
    line = asking(
        m,
        Frame("prove", "python", "/srv/prover/main.py", 3),
        Frame("fold", "python", "/srv/prover/fri.py", 17),
        *(Frame(f"ufunc_{i}", "numpy.so") for i in range(4)),
        Frame("add", "numpy.so"),
    )
    assert line == " 33.3% add < ufunc_3 < fold (fri.py:17)"


def test_no_memory_management_is_no_heading(measurement: Make) -> None:
    m = measurement({Kind.FAULT_ANON: 0.0})
    stack = StackTime(Kind.USER, 1, (0,), 1.0, 100)
    m = dataclasses.replace(m, frames=(Frame("main", "p"),), stacks=(stack,))
    assert "by where it is asked for" not in plain(Report.of(m))


@pytest.mark.parametrize("width", [20, 40, 60])
def test_names_are_shortened_evenly(width: int) -> None:
    text = fitted(["memset", "a" * 50, "b" * 50], width)
    assert len(text) <= max(width, 30)
    assert text.startswith("memset < a")
    assert text.endswith("b")


def test_nothing_is_shown_more_exactly_than_it_is_known(measurement: Make) -> None:
    m = measurement({Kind.FAULT_ANON: 0.98})
    m = dataclasses.replace(m, context=Context(mmap_lock_wait_s=0.004))
    text = plain(Report.of(m))
    assert "50 times as fast" in text
    assert "mmap_lock" not in text


def test_a_name_keeps_its_small_letter(measurement: Make) -> None:
    m = measurement({Kind.FAULT_ANON: 0.3}, preloadable=False, preload_reason="it is static")
    assert "-> libzknalloc cannot be preloaded" in plain(Report.of(m))


def test_a_terminal_may_change_its_size() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = console(Terminal())
    out.size = ConsoleDimensions(160, 50)
    assert out.width == 100
    out.size = ConsoleDimensions(60, 20)
    assert (out.width, out.height) == (60, 20)


def test_notes_are_shown(measurement: Make) -> None:
    m = measurement()
    method = dataclasses.replace(m.method, notes=("no kernel stacks: run as root",))
    text = plain(Report.of(dataclasses.replace(m, method=method)))
    assert "Not shown" in text
    assert "no kernel stacks: run as root" in text


def test_the_library_is_shown(measurement: Make, library: Callable[..., LibraryCounters]) -> None:
    counted = library(hits=90, misses=10, bytes_hit=5 * 10**9, bytes_evicted=10**9)
    text = plain(Report.of(measurement(library=counted, allocator="libzknalloc")))
    assert "on libzknalloc, nothing of wall time is left to save" in text
    assert "hit rate 90%" in text
    assert "5.0 GB recycled, 1.0 GB evicted" in text


def test_a_live_screen_gives_no_advice_yet(measurement: Make) -> None:
    out = io.StringIO()
    report = Report.of(measurement({Kind.FAULT_ANON: 0.3}))
    show(console(out), screen(report, live=True))
    assert "zk-nalloc run" not in out.getvalue()


def test_a_terminal_gets_colours(measurement: Make) -> None:
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80, color_system="standard")
    show(terminal, screen(Report.of(measurement({Kind.FAULT_ANON: 0.3}))))
    assert "\x1b[" in out.getvalue()


@pytest.mark.parametrize(
    "command",
    [
        "zkprof 1 -d 40",
        "A=1 B=22 /opt/prover ARGS...",
        "zk-nalloc run -- " + " ".join(f"--option-{i} 'value {i}'" for i in range(20)),
        "zk-nalloc run -- /" + "x" * 200 + " end",
    ],
)
def test_commands_can_be_pasted(command: str) -> None:
    lines = command_lines(command, 75)
    pasted = "\n".join(lines).replace("\\\n", "")
    assert shlex.split(pasted) == shlex.split(command)
    assert all(len(line) <= 75 or len(shlex.split(line.rstrip("\\"))) == 1 for line in lines)
