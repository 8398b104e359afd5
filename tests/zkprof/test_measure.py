# SPDX-License-Identifier: MIT OR Apache-2.0
"""Whole windows, in every tier, against targets that know the truth."""

from __future__ import annotations

import math
import os
import resource
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.zkprof.conftest import possible
from zkprof.classify import default_rules
from zkprof.measure import TierUnavailableError, measure
from zkprof.model import Kind, Measurement, Tier
from zkprof.procfs import NoSuchProcessError, Process
from zkprof.sampler import paranoid_level
from zkprof.target import describe, selected_thp

if TYPE_CHECKING:
    from collections.abc import Callable

MM = (Kind.FAULT_ANON, Kind.PREFAULT, Kind.UNMAP, Kind.MADVISE, Kind.MMAP)
RATE = 997.0


def share(m: Measurement, *kinds: Kind) -> float:
    assert m.cpu_s > 0.2, "the target hardly ran"
    return sum(m.classes[kind].seconds for kind in kinds) / m.cpu_s


def measure_cpu(pid: int, cpu_s: float, tier: Tier) -> Measurement:
    """Measure until the target has had that much CPU time, on however busy a machine."""
    stop = threading.Event()

    def on_tick(m: Measurement) -> None:
        if m.cpu_s >= cpu_s:
            stop.set()

    return measure(pid, 60.0, RATE, on_tick, stop, tier=tier)


def check_consistency(m: Measurement) -> None:
    """Check what must hold of every measurement, whatever its tier."""
    assert set(m.classes) == set(Kind)
    assert sum(s.seconds for s in m.classes.values()) == pytest.approx(m.cpu_s, rel=0.02, abs=0.02)
    for kind, s in m.classes.items():
        assert -1e-9 <= s.low <= s.seconds + 1e-9, kind
        assert s.seconds <= s.high + 1e-9, kind
        assert s.high <= m.cpu_s * 1.001 + 1e-9, kind
    for thread in m.threads:
        assert sum(thread.by_kind.values()) == pytest.approx(thread.cpu_s, rel=0.01, abs=1e-6)
    in_threads = sum(thread.cpu_s for thread in m.threads)
    assert in_threads == pytest.approx(m.cpu_s, rel=0.1, abs=0.06)
    in_bins = sum(sum(b.cpu_s.values()) for b in m.bins)
    assert in_bins == pytest.approx(m.cpu_s, rel=0.1, abs=0.06)
    for b in m.bins:
        assert m.started - b.width_s <= b.t <= m.started + m.duration_s + 0.1
        assert set(b.mm_s) == set(b.cpu_s)
        assert all(b.mm_s[tid] <= b.cpu_s[tid] + 1e-9 for tid in b.cpu_s)
    assert [p.t for p in m.memory] == sorted(p.t for p in m.memory)
    assert 0 <= m.method.overhead < 0.5


def test_half_of_the_time_in_faults(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "mixed") as target:
        m = measure_cpu(target.pid, 1.5, tier)
        target.terminate()
        words = target.stdout.readline().split()
    truth = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    true_share = (truth["touch"] + truth["unmap"]) / sum(truth.values())
    assert 0.4 < true_share < 0.6
    check_consistency(m)
    assert m.method.tier is tier
    assert share(m, *MM) == pytest.approx(true_share, abs=0.1)
    in_bins = sum(sum(b.mm_s.values()) for b in m.bins)
    assert in_bins / m.cpu_s == pytest.approx(share(m, *MM), abs=0.08)


def test_huge_pages_are_dear_faults(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    if selected_thp() == "never":
        pytest.skip("this machine gives no huge pages")
    with run(compiled("workload"), "huge") as target:
        m = measure_cpu(target.pid, 2.5, tier)
        target.terminate()
        words = target.stdout.readline().split()
    truth = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    true_share = truth["touch"] / sum(truth.values())
    # Small pages would be some hundred thousand.
    assert (m.memory[-1].minor_faults - m.memory[0].minor_faults) / m.cpu_s < 50_000
    check_consistency(m)
    anon = m.classes[Kind.FAULT_ANON]
    # Without kernel stacks it is a range: what was seen to rise, and all that it may be.
    assert anon.seconds / m.cpu_s > true_share / 3
    assert anon.seconds / m.cpu_s < true_share + 0.1
    assert anon.high / m.cpu_s > true_share - 0.1
    # If it is asked for by calloc, it has to be cleared as well: nothing may be saved.
    assert m.overlays["zeroing"] > 0.7 * anon.seconds
    if tier is Tier.KERNEL:
        assert share(m, Kind.FAULT_ANON) == pytest.approx(true_share, abs=0.1)


def test_arithmetic_only(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "compute") as target:
        m = measure(target.pid, 1.5, RATE, tier=tier)
    check_consistency(m)
    assert share(m, *MM) < 0.03
    assert share(m, Kind.USER) > 0.8


def test_file_faults_are_told_apart_by_kernel_stacks(
    compiled: Callable[..., Path], run: Callable[..., Any], big_file: Path
) -> None:
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    with run(compiled("workload"), "file", big_file) as target:
        m = measure(target.pid, 1.5, RATE, tier=Tier.KERNEL)
    check_consistency(m)
    assert share(m, Kind.FAULT_FILE) > 0.15
    assert share(m, Kind.FAULT_ANON) < 0.03
    # Unmapping a file is not the allocator's doing either.
    assert sum(sum(b.mm_s.values()) for b in m.bins) < 0.1 * m.cpu_s


def test_file_faults_are_told_apart_by_samples_of_faults(
    compiled: Callable[..., Path], run: Callable[..., Any], big_file: Path
) -> None:
    if reason := possible(Tier.USER):
        pytest.skip(reason)
    with run(compiled("workload"), "file", big_file) as target:
        m = measure_cpu(target.pid, 1.5, Tier.USER)
    check_consistency(m)
    assert share(m, Kind.FAULT_FILE) > 0.05
    assert share(m, Kind.FAULT_ANON) < 0.02
    assert sum(sum(b.mm_s.values()) for b in m.bins) < 0.1 * m.cpu_s


@pytest.mark.parametrize("tier", [Tier.KERNEL, Tier.USER], ids=str)
def test_stacks_say_where_the_faults_are(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    if reason := possible(tier):
        pytest.skip(reason)
    with run(compiled("workload"), "mixed") as target:
        m = measure_cpu(target.pid, 1.0, tier)
    for kind, function in ((Kind.FAULT_ANON, "touch"), (Kind.USER, "compute")):
        stacks = [stack for stack in m.stacks if stack.kind is kind]
        seconds = sum(stack.seconds for stack in stacks)
        assert seconds == pytest.approx(m.classes[kind].seconds, rel=0.01)
        there = sum(
            stack.seconds
            for stack in stacks
            if any(m.frames[i].name == function for i in stack.frames)
        )
        assert there > 0.8 * seconds
    for stack in m.stacks:
        assert m.frames[stack.frames[0]].name == "_start"
    if tier is Tier.KERNEL:
        assert sum(stack.seconds for stack in m.stacks) == pytest.approx(m.cpu_s, rel=0.01)
        assert sum(stack.samples for stack in m.stacks) <= m.method.samples


def test_growth_shows_in_the_memory_series(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "grow") as target:
        m = measure_cpu(target.pid, 0.6, tier)
    check_consistency(m)
    first, last = m.memory[0], m.memory[-1]
    grown = last.hwm - first.hwm
    assert grown > 64 << 20
    assert (last.minor_faults - first.minor_faults) * 4096 == pytest.approx(grown, rel=0.15)
    assert share(m, Kind.UNMAP) < 0.03
    assert len(m.memory) > 15


def test_threads_have_names_and_shares(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "threads", "3") as target:
        m = measure(target.pid, 2.5, RATE, tier=tier)
    check_consistency(m)
    workers = [thread for thread in m.threads if thread.comm == "worker"]
    assert len(workers) == 3
    assert sum(thread.cpu_s for thread in workers) > 0.9 * m.cpu_s
    for thread in workers:
        in_mm = sum(thread.by_kind.get(kind, 0.0) for kind in MM)
        assert in_mm > 0.5 * thread.cpu_s


def test_the_target_ends_inside_the_window(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "short") as target:
        m = measure(target.pid, math.inf, RATE, tier=tier)
        assert m.exited
        check_consistency(m)
        # Nobody has collected it: its times are complete to the end.
        assert m.cpu_s > 0.2
        assert share(m, *MM) > 0.4


def test_ticks_and_stop(compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier) -> None:
    stop = threading.Event()
    ticks: list[Measurement] = []

    def on_tick(m: Measurement) -> None:
        ticks.append(m)
        if len(ticks) == 3:
            stop.set()

    with run(compiled("workload"), "faults") as target:
        m = measure(target.pid, math.inf, RATE, on_tick, stop, tier=tier)
    assert len(ticks) == 3
    assert not m.exited
    for earlier, later in zip(ticks, [*ticks[1:], m], strict=True):
        assert earlier.duration_s < later.duration_s
        assert earlier.cpu_s <= later.cpu_s
        assert earlier.method.samples <= later.method.samples
    check_consistency(m)


def test_counters_of_the_library_come_along(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("block")) as target:
        timer = threading.Timer(0.3, lambda: (target.stdin.write("go\n"), target.stdin.flush()))
        timer.start()
        m = measure(target.pid, 1.0, tier=Tier.PROC)
        timer.join()
    assert m.library
    assert m.library.counters["hits"] == 21


def test_an_idle_target_is_measured_as_idle(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("block")) as target:
        m = measure(target.pid, 0.5, tier=tier)
    assert m.cpu_s < 0.05
    assert len(m.memory) >= 5
    assert m.library


def test_a_stopped_target_is_left_stopped(
    compiled: Callable[..., Path], run: Callable[..., Any], tier: Tier
) -> None:
    with run(compiled("workload"), "faults") as target:
        os.kill(target.pid, 19)
        time.sleep(0.1)
        m = measure(target.pid, 0.5, tier=tier)
        assert m.cpu_s < 0.05
        assert Path(f"/proc/{target.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def test_no_such_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(NoSuchProcessError):
        measure(child, 1.0)


def warm_up() -> None:
    """Import and read all that an unprivileged child may not be able to."""
    with Process(os.getpid()) as process:
        describe(process, process.maps())
    default_rules()


def test_without_privileges(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    level = paranoid_level()
    if level is None or level > 2:
        pytest.skip(f"perf_event_paranoid is {level}")
    warm_up()
    with run(compiled("workload"), "faults", user="nobody") as target:
        m = in_child(lambda: measure(target.pid, 1.5, RATE), drop)
    check_consistency(m)
    assert share(m, *MM) > 0.5
    if level == 2:
        assert m.method.tier is Tier.USER
        assert "perf_event_paranoid=1" in m.method.notes[0]
    else:
        assert m.method.tier is Tier.KERNEL


def test_without_privileges_or_descriptors(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    level = paranoid_level()
    if level is None or level < 1:
        pytest.skip(f"perf_event_paranoid is {level}: sampling all CPUs is permitted")
    warm_up()

    def drop_and_limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        drop()

    with run(compiled("workload"), "threads", "64", user="nobody") as target:
        time.sleep(1.0)
        m = in_child(lambda: measure(target.pid, 2.0, RATE), drop_and_limit)
    check_consistency(m)
    assert m.method.tier is Tier.PROC
    assert any("ulimit -Hn" in note for note in m.method.notes)
    assert share(m, *MM) > 0.4


def test_a_tier_that_is_asked_for_is_not_replaced(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    level = paranoid_level()
    if level is not None and level < 2:
        pytest.skip(f"perf_event_paranoid is {level}: everybody may see kernel stacks")
    warm_up()
    with (
        run(compiled("workload"), "compute", user="nobody") as target,
        pytest.raises(TierUnavailableError),
    ):
        in_child(lambda: measure(target.pid, 1.0, tier=Tier.KERNEL), drop)


def test_copies_of_the_zero_page_are_first_touches(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    """As in Rust provers: fresh memory that is read before it is written."""
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    with run(compiled("workload"), "zero") as target:
        m = measure_cpu(target.pid, 2.0, Tier.KERNEL)
    assert share(m, Kind.FAULT_COW) == 0
    assert share(m, Kind.FAULT_ANON) > 0.7


def test_so_they_are_when_the_target_ends_unnoticed(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    """Ended, and not waited for yet, it has no stack to be told apart by."""
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    with run(compiled("workload"), "zero") as target:

        def on_tick(m: Measurement) -> None:
            if m.cpu_s > 1:
                target.kill()

        m = measure(target.pid, 30.0, on_tick=on_tick, tier=Tier.KERNEL)
    assert m.exited
    assert share(m, Kind.FAULT_COW) == 0
    assert share(m, Kind.FAULT_ANON) > 0.7


def test_copies_after_a_fork_are_not(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    with run(compiled("workload"), "cow") as target:
        m = measure_cpu(target.pid, 2.0, Tier.KERNEL)
    assert share(m, Kind.FAULT_COW) > 0.3
    assert share(m, Kind.FAULT_ANON) < 0.1
