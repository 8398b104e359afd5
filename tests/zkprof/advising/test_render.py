# SPDX-License-Identifier: MIT OR Apache-2.0
"""The screen: verdict first, 80 columns, plain where it is no terminal."""

from __future__ import annotations

import io
import shlex
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from zkprof.model import Kind, LibraryCounters, Measurement, Tier
from zkprof.render import command_lines, console, screen, show
from zkprof.report import Report

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


def test_notes_are_shown(measurement: Make) -> None:
    import dataclasses

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
