# SPDX-License-Identifier: MIT OR Apache-2.0
"""Kinds of page faults, told apart by counters alone."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.zkprof.conftest import possible
from zkprof.kinds import Moved, Sharing, shared_pages
from zkprof.measure import measure
from zkprof.model import Kind, Measurement, MemoryPoint, Tier
from zkprof.procfs import Children, Process, Stat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = os.sysconf("SC_PAGESIZE")
NOBODY = Children(0, 0, 0.0, 0.0)


def reading(faults: int, resident: int, reaped: int = 0) -> tuple[MemoryPoint, Stat]:
    """Return counters; `resident` in pages, `reaped` the faults of ended children."""
    size = resident * PAGE
    children = NOBODY._replace(minor_faults=reaped)
    return (
        MemoryPoint(0.0, size, size, size, faults, 0, 0.0, 0.0, 1),
        Stat("t", "R", 0, faults, 0, 0.0, 0.0, children, 1, 1),
    )


@pytest.fixture
def own() -> Any:  # noqa: ANN401
    with Process(os.getpid()) as process:
        yield process


def test_who_never_forks_copies_nothing(own: Process) -> None:
    sharing = Sharing(own, *reading(0, 1000), ())
    sharing.update(*reading(5000, 1000, reaped=500), ())
    assert sharing.copies == 0


def test_no_more_is_copied_than_was_there(own: Process) -> None:
    sharing = Sharing(own, *reading(0, 1000), ())
    sharing.update(*reading(10, 1000), {7})
    sharing.update(*reading(5000, 1000), {7})
    assert sharing.copies == 1000
    sharing.update(*reading(9000, 1000), {7})
    assert sharing.copies == 1000  # all of it, already
    sharing.update(*reading(9600, 1000), {8})
    assert sharing.copies == 1600  # another fork shares all of it again


def test_many_forks_between_two_readings(own: Process) -> None:
    sharing = Sharing(own, *reading(0, 1000), {7})
    sharing.update(*reading(5000, 1000), {8})
    assert sharing.copies == 5000
    sharing.update(*reading(6000, 1000), {8})
    assert sharing.copies == 5000


def test_new_pages_are_no_copies(own: Process) -> None:
    sharing = Sharing(own, *reading(0, 1000), ())
    sharing.update(*reading(700, 1500), {7})
    assert sharing.copies == 200


def test_a_child_between_two_readings(own: Process) -> None:
    sharing = Sharing(own, *reading(0, 1000), ())
    sharing.update(*reading(10, 1000), {7})
    sharing.update(*reading(10, 1000, reaped=5), ())
    sharing.update(*reading(510, 1000, reaped=10), ())
    assert sharing.copies == 510
    sharing.update(*reading(910, 1000, reaped=10), ())
    assert sharing.copies == 510  # nobody forked


def test_of_an_old_fork_only_what_is_shared_still(own: Process) -> None:
    sharing = Sharing(own, *reading(0, 10_000_000), {7})
    left = shared_pages(own)
    sharing.update(*reading(10_000_000, 10_000_000), {7})
    # This process changes meanwhile, so not to the page.
    assert sharing.copies <= left + 1000


@pytest.mark.parametrize(
    ("anon", "file", "share"),
    [(0, 0, 0.0), (4096, 0, 0.0), (0, 100, 0.0), (0, 65536, 1.0), (4096, 65536, 0.5)],
)
def test_files_are_told_by_what_moves(anon: int, file: int, share: float) -> None:
    def at(mapped: bool) -> MemoryPoint:  # noqa: FBT001
        return replace(
            reading(0, 1000)[0],
            rss=(2000 + mapped * (anon + file)) * PAGE,
            rss_anon=(1000 + mapped * anon) * PAGE,
        )

    moved = Moved(at(mapped=False))
    for mapped in (True, False):
        moved.update(at(mapped))
    assert moved.file_share == pytest.approx(share)
    moved.update(replace(at(mapped=False), rss=0, rss_anon=0))  # it has ended
    assert moved.file_share == pytest.approx(share)


def test_faults_on_files_by_counters(
    compiled: Callable[..., Path], run: Callable[..., Any], big_file: Path
) -> None:
    with run(compiled("workload"), "file", big_file) as target:
        m = measure(target.pid, 2.0, tier=Tier.PROC)
    assert m.classes[Kind.FAULT_FILE].seconds > 5 * m.classes[Kind.FAULT_ANON].seconds
    with run(compiled("workload"), "faults") as target:
        m = measure(target.pid, 1.0, tier=Tier.PROC)
    assert m.classes[Kind.FAULT_FILE].seconds < 0.05 * m.classes[Kind.FAULT_ANON].seconds


def test_pages_shared_with_a_child_are_counted(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "forked") as target, Process(target.pid) as process:
        while not process.sharers():
            time.sleep(0.01)
        assert 4096 <= shared_pages(process) < 3 * 4096
    with run(compiled("block")) as target, Process(target.pid) as process:
        assert shared_pages(process) < 1000
        assert process.sharers() == set()


@pytest.mark.parametrize("tier", [Tier.USER, Tier.PROC], ids=str)
def test_copies_are_not_savable_in_the_lesser_tiers(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    if reason := possible(tier):
        pytest.skip(reason)
    stop = threading.Event()

    def on_tick(m: Measurement) -> None:
        if m.cpu_s > 1.5:
            stop.set()

    with run(compiled("workload"), "cow") as target:
        m = measure(target.pid, 60.0, 199.0, on_tick, stop, tier=tier)
    faults = m.classes[Kind.FAULT_COW].seconds
    assert faults > 0.2 * m.cpu_s
    assert m.classes[Kind.FAULT_ANON].seconds < 0.3 * faults
    assert m.classes[Kind.UNMAP].seconds < 0.3 * faults
    assert any("copies of pages that a fork left shared" in note for note in m.method.notes)
    assert sum(s.seconds for s in m.classes.values()) == pytest.approx(m.cpu_s, rel=0.02)
    for thread in m.threads:
        assert sum(thread.by_kind.values()) == pytest.approx(thread.cpu_s, rel=0.01, abs=1e-6)


def test_faults_without_a_fork_are_no_copies(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "faults") as target:
        m = measure(target.pid, 1.0, 199.0, tier=Tier.PROC)
    assert m.classes[Kind.FAULT_COW].seconds == 0
    assert not any("copies" in note for note in m.method.notes)
