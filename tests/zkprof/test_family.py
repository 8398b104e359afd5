# SPDX-License-Identifier: MIT OR Apache-2.0
"""All threads however brief, and child processes where they are wanted."""

from __future__ import annotations

import os
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.zkprof.conftest import possible
from zkprof.family import Family
from zkprof.measure import measure
from zkprof.model import Kind, Measurement, Tier
from zkprof.procfs import Children, Process

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 997.0


def test_children_started_after_attaching(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "children", "2") as target:
        m = measure(target.pid, 2.5, RATE, tier=tier, children=True)
    assert m.pids[0] == target.pid
    assert len(m.pids) == 3
    assert m.cpu_s > 0.3
    assert {thread.tid for thread in m.threads if thread.cpu_s > 0.05} == set(m.pids[1:])
    in_threads = sum(thread.cpu_s for thread in m.threads)
    assert in_threads == pytest.approx(m.cpu_s, rel=0.15, abs=0.06)
    assert m.classes[Kind.FAULT_ANON].seconds > 0.4 * m.cpu_s
    assert m.memory[-1].rss > m.memory[0].rss


def test_children_that_are_there_already(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "children", "2") as target:
        time.sleep(1.0)
        m = measure(target.pid, 1.5, RATE, tier=tier, children=True)
    assert len(m.pids) == 3
    assert m.cpu_s > 0.2
    assert m.classes[Kind.FAULT_ANON].seconds > 0.4 * m.cpu_s
    if tier is Tier.KERNEL:
        # Twice as many would mean that children are sampled twice.
        assert 0.6 * RATE * m.cpu_s < m.method.samples < 1.3 * RATE * m.cpu_s


def test_children_are_left_out_unless_wanted(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "children", "2") as target:
        time.sleep(1.0)
        m = measure(target.pid, 1.0, RATE, tier=tier)
    assert m.pids == ()
    assert m.cpu_s < 0.1


def test_brief_children_count_in_full(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    """Their times are in their parent's when they are gone; their memory is all growth."""
    ticks: list[tuple[Measurement, Children]] = []
    with run(compiled("workload"), "workers") as target, Process(target.pid) as process:

        def on_tick(m: Measurement) -> None:
            ticks.append((m, process.stat().children))

        m = measure(target.pid, 2.5, RATE, on_tick, tier=tier, children=True)
    first, last = ticks[0], ticks[-1]
    truth = last[1].utime_s + last[1].stime_s - first[1].utime_s - first[1].stime_s
    assert last[0].cpu_s - first[0].cpu_s == pytest.approx(truth, rel=0.3, abs=0.3)
    faults = m.memory[-1].minor_faults - m.memory[0].minor_faults
    assert faults > 16384
    grown = m.memory[-1].hwm - m.memory[0].hwm
    assert grown > 0.4 * faults * 4096


def test_children_too_brief_to_be_seen_are_growth(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    """Another child in their place needs all its memory anew."""
    with run(compiled("workload"), "snaps") as target, Process(target.pid) as process:
        family = Family(process, follow=True)
        first, _ = family.point()
        while process.stat().children.minor_faults < 60 * 1024:
            time.sleep(0.05)
            family.look()
            last, _ = family.point()
        family.close()
    faulted = (last.minor_faults - first.minor_faults) * 4096
    grown = last.hwm - first.hwm
    assert 0.9 * faulted < grown < 1.1 * faulted


def test_what_a_fork_hands_down_is_no_growth(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "cow") as target, Process(target.pid) as process:
        family = Family(process, follow=True)
        first, _ = family.point()
        while len(family.pids) < 4:
            time.sleep(0.002)
            family.look()
            last, _ = family.point()
        family.close()
    assert last.hwm - first.hwm < 24 << 20  # its own 16 MiB


def test_threads_too_brief_to_be_asked_have_names(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    with run(compiled("workload"), "churn") as target:
        m = measure(target.pid, 2.0, RATE, tier=Tier.KERNEL)
    brief = [thread for thread in m.threads if thread.tid != target.pid]
    assert len(brief) > 10
    named = sum(thread.cpu_s for thread in brief if thread.comm == "brief")
    assert named > 0.9 * sum(thread.cpu_s for thread in brief)


def test_threads_briefer_than_a_period(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    """A thread of half a period has no sample of its own; its CPU has."""
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    stop = threading.Event()

    def on_tick(m: Measurement) -> None:
        if m.method.samples > 50:
            stop.set()

    with run(compiled("workload"), "brief") as target:
        m = measure(target.pid, 60.0, 97.0, on_tick, stop, tier=Tier.KERNEL)
    if not any("sampling all processes" in note for note in m.method.notes):
        pytest.skip("this user may not sample all processes")
    assert m.method.samples > 50
    assert not any("under-represented" in note for note in m.method.notes)
    assert m.classes[Kind.FAULT_ANON].seconds > 0.2 * m.cpu_s
    brief = [thread for thread in m.threads if thread.comm == "brief"]
    assert sum(thread.cpu_s for thread in brief) > 0.5 * m.cpu_s
    names = {m.frames[i].name for stack in m.stacks for i in stack.frames}
    assert "touch_little" in names


def test_children_briefer_than_a_period(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    """As with threads; when they are gone their CPU time is in their parent's."""
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    if os.geteuid() != 0:
        pytest.skip("all processes are sampled: for root")
    stop = threading.Event()

    def on_tick(m: Measurement) -> None:
        if m.cpu_s > 4:
            stop.set()

    with run(compiled("workload"), "snaps") as target:
        m = measure(target.pid, 60.0, 97.0, on_tick, stop, tier=Tier.KERNEL, children=True)
    assert any("sampling all processes" in note for note in m.method.notes)
    assert m.method.samples > 50
    names = {m.frames[i].name for stack in m.stacks for i in stack.frames}
    assert "touch_little" in names


def test_a_family_never_runs_backwards(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "workers") as target, Process(target.pid) as process:
        family = Family(process, follow=True)
        points = []
        for _ in range(100):
            family.look()
            points.append(family.point()[0])
            time.sleep(0.01)
        family.close()
    for earlier, later in pairwise(points):
        assert earlier.utime_s <= later.utime_s
        assert earlier.stime_s <= later.stime_s
        assert earlier.minor_faults <= later.minor_faults
        assert earlier.hwm <= later.hwm
    assert len(family.pids) > 3
