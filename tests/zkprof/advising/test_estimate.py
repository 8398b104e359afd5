# SPDX-License-Identifier: MIT OR Apache-2.0
"""The estimator against measurements whose truth is known."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zkprof.estimate import Verdict, estimate, growth_of
from zkprof.model import Bin, Kind, Measurement, MemoryPoint, Tier, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Measurement]

MB, GB = 10**6, 10**9


@pytest.mark.parametrize(
    ("faults", "unmap", "growth", "saved", "verdict"),
    [
        (0.60, 0.08, 0.00, 0.68, Verdict.BOUND),
        (0.30, 0.02, 0.50, 0.17, Verdict.BOUND),
        (0.12, 0.03, 0.05, 0.144, Verdict.HEAVY),
        (0.11, 0.00, 0.50, 0.055, Verdict.HEAVY),
        (0.03, 0.01, 0.00, 0.04, Verdict.NOT_BOUND),
        (0.00, 0.00, 0.00, 0.00, Verdict.NOT_BOUND),
        (0.40, 0.00, 0.95, 0.02, Verdict.GROWTH),
        (0.10, 0.01, 0.71, 0.039, Verdict.GROWTH),
        (0.08, 0.00, 0.95, 0.004, Verdict.NOT_BOUND),
        (0.65, 0.00, 0.70, 0.195, Verdict.BOUND),  # enough is left in spite of growth
    ],
)
def test_truth(
    measurement: Make, faults: float, unmap: float, growth: float, saved: float, verdict: Verdict
) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: faults, Kind.UNMAP: unmap}, growth=growth))
    assert e.saving_cpu.mid == pytest.approx(saved, abs=1e-6)
    assert e.saving_wall.mid == pytest.approx(saved, abs=1e-6)
    assert e.verdict is verdict
    assert e.growth.share == pytest.approx(growth, abs=1e-6)
    assert e.speed_up.mid == pytest.approx(1 / (1 - saved))


@pytest.mark.parametrize(
    "kind",
    [
        Kind.FAULT_FILE,
        Kind.FAULT_COW,
        Kind.FAULT_SWAP,
        Kind.FAULT_NUMA,
        Kind.FAULT_OTHER,
        Kind.KERNEL,
        Kind.USER,
    ],
)
def test_what_no_allocator_saves(measurement: Make, kind: Kind) -> None:
    e = estimate(measurement({kind: 0.5}))
    assert (e.saving_cpu.high, e.verdict) == (0.0, Verdict.NOT_BOUND)


@pytest.mark.parametrize("kind", [Kind.PREFAULT, Kind.UNMAP, Kind.MADVISE, Kind.MMAP])
def test_what_else_is_saved(measurement: Make, kind: Kind) -> None:
    assert estimate(measurement({kind: 0.3})).saving_cpu.mid == pytest.approx(0.3)


def test_giving_back_is_saved_even_where_memory_grows(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.2, Kind.UNMAP: 0.1}, growth=1.0))
    assert e.saving_cpu.mid == pytest.approx(0.1)


def test_zeroing_may_come_back(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.4}, zeroing=0.1, growth=0.5))
    assert e.saving_cpu.low == pytest.approx(0.2 - 0.1 * 0.5)
    assert e.saving_cpu.mid == e.saving_cpu.high == pytest.approx(0.2)


def test_zeroing_is_assumed_where_it_was_not_measured(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.4}, zeroing=None, tier=Tier.PROC))
    assert e.saving_cpu.low < e.saving_cpu.mid


def test_what_was_asked_for_and_not_touched_is_cleared_too(measurement: Make) -> None:
    # calloc of 4 times what is touched: a memset clears all of it.
    m = measurement({Kind.FAULT_ANON: 0.4}, zeroing=0.05, faulted=4 * GB)
    asked = dataclasses.replace(m, traffic=Traffic(16 * GB, 16 * GB, 0, {}))
    assert estimate(asked).saving_cpu.low == pytest.approx(0.4 - 4 * 0.05)
    fewer = dataclasses.replace(m, traffic=Traffic(1 * GB, 0, 0, {}))
    assert estimate(fewer).saving_cpu.low == pytest.approx(0.4 - 0.05)


def test_unmapping_files_is_not_saved(measurement: Make) -> None:
    files = estimate(measurement({Kind.FAULT_FILE: 0.3, Kind.UNMAP: 0.1}))
    assert files.saving_cpu.high == 0.0
    both = estimate(measurement({Kind.FAULT_ANON: 0.3, Kind.FAULT_FILE: 0.1, Kind.UNMAP: 0.1}))
    assert both.saving_cpu.mid == pytest.approx(0.3 + 0.1 * 0.75)


def test_intervals_of_classes_are_independent(measurement: Make) -> None:
    shares = {Kind.FAULT_ANON: 0.3, Kind.UNMAP: 0.1}
    e = estimate(measurement(shares, noise=0.01))
    # Five classes count, each known to one point: the root of five squares.
    assert e.saving_cpu.high == pytest.approx(0.4 + 0.01 * 5**0.5)
    assert e.saving_cpu.low == pytest.approx(0.4 - 0.01 * 2**0.5)  # three are 0 at least


# --------------------------------------------------------------------- growth


def point(t: float, anon: int, *, hwm: int, faults: int, files: int = 0) -> MemoryPoint:
    return MemoryPoint(t, anon + files, anon, hwm, faults, 0, 0.0, 0.0, 1)


def test_a_sawtooth_below_an_old_peak_does_not_grow() -> None:
    memory = [
        point(i, (900 if i % 2 else 100) * MB, hwm=1000 * MB, faults=i * 200_000) for i in range(9)
    ]
    growth = growth_of(tuple(memory))
    assert (growth.grown, growth.share) == (0, 0.0)
    assert growth.swing == 800 * MB


def test_huge_pages_bring_more_than_their_faults_say() -> None:
    # 4 times 800 MB came with 400 faults each.
    memory = [
        point(i, (900 if i % 2 else 100) * MB, hwm=1000 * MB, faults=i * 200) for i in range(9)
    ]
    assert growth_of(tuple(memory)).faulted == 4 * 800 * MB


def test_mapped_files_are_no_growth() -> None:
    before = point(0, 100 * MB, hwm=100 * MB, faults=0)
    after = point(1, 100 * MB, hwm=600 * MB, faults=300_000, files=500 * MB)
    assert growth_of((before, after)).grown == 0


@pytest.mark.parametrize("count", [0, 1])
def test_no_series_no_growth(count: int) -> None:
    memory = (point(0, MB, hwm=MB, faults=5),) * count
    assert growth_of(memory).share == 0.0


# ------------------------------------------------------------------ wall time


def slices(*threads: tuple[float, float]) -> tuple[Bin, ...]:
    """Return 50 slices of 0.1 s in which each thread has (CPU share, managing share of it)."""
    cpu = {tid: 0.1 * share for tid, (share, _) in enumerate(threads)}
    mm = {tid: cpu[tid] * managing for tid, (_, managing) in enumerate(threads)}
    return tuple(Bin(i / 10, 0.1, cpu, mm) for i in range(50))


def test_one_thread_is_its_cpu_time(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.2}, bins=slices((1.0, 0.2))))
    wall = e.saving_wall
    assert wall.low == wall.mid == wall.high == pytest.approx(0.2)


def test_a_balanced_pool(measurement: Make) -> None:
    bins = slices((1.0, 0.2), (1.0, 0.2), (1.0, 0.2), (1.0, 0.2))
    e = estimate(measurement({Kind.FAULT_ANON: 0.2}, cpu_s=20.0, bins=bins))
    assert e.saving_wall.low == 0.0  # no slice was serial
    assert e.saving_wall.mid == e.saving_wall.high == pytest.approx(0.2)


def test_one_of_two_threads_faults(measurement: Make) -> None:
    bins = slices((1.0, 0.4), (1.0, 0.0))
    e = estimate(measurement({Kind.FAULT_ANON: 0.2}, cpu_s=10.0, bins=bins))
    assert (e.saving_wall.low, e.saving_wall.mid) == (0.0, pytest.approx(0.2))
    assert e.saving_wall.high == pytest.approx(0.4)  # the other waits for it


def test_a_helper_is_no_barrier(measurement: Make) -> None:
    bins = slices((1.0, 0.1), (0.05, 1.0))
    share = 0.15 / 1.05
    e = estimate(measurement({Kind.FAULT_ANON: share}, cpu_s=5.25, bins=bins))
    assert e.saving_wall.high < 0.2


def test_serial_phases_are_sure_to_shrink(measurement: Make) -> None:
    bins = slices((1.0, 0.4))[:25] + slices((1.0, 0.0), (1.0, 0.0))[25:]
    share = 0.4 * 25 / 75
    e = estimate(measurement({Kind.FAULT_ANON: share}, cpu_s=7.5, bins=bins))
    assert e.saving_wall.low == pytest.approx(0.2)
    assert e.saving_wall.mid == pytest.approx(0.2)


def test_idle_time_does_not_dilute(measurement: Make) -> None:
    bins = tuple(Bin(i / 10, 0.1, {1: 0.02}, {1: 0.01}) for i in range(50))
    e = estimate(measurement({Kind.FAULT_ANON: 0.5}, cpu_s=2.0, bins=bins))
    assert e.running == pytest.approx(0.2)
    assert e.saving_wall.mid == pytest.approx(0.5)


def test_without_slices_cpu_time_stands_in(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.2}, bins=()))
    assert e.saving_wall == e.saving_cpu


# --------------------------------------------------------------- inconclusive


def test_few_samples(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.5}, samples=299))
    assert e.verdict is Verdict.INCONCLUSIVE
    assert "299 samples" in e.why
    assert estimate(measurement({Kind.FAULT_ANON: 0.5}, samples=300)).verdict is Verdict.BOUND


@pytest.mark.parametrize("tier", [Tier.USER, Tier.PROC])
def test_little_cpu_time(measurement: Make, tier: Tier) -> None:
    little = estimate(measurement({Kind.FAULT_ANON: 0.5}, cpu_s=1.4, samples=0, tier=tier))
    assert little.verdict is Verdict.INCONCLUSIVE
    enough = estimate(measurement({Kind.FAULT_ANON: 0.5}, cpu_s=1.6, samples=0, tier=tier))
    assert enough.verdict is Verdict.BOUND


def test_lost_samples(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.5}, samples=1000, lost=60))
    assert e.verdict is Verdict.INCONCLUSIVE
    assert "60 of 1060 samples were lost" in e.why


def test_a_range_that_says_nothing(measurement: Make) -> None:
    e = estimate(measurement({Kind.FAULT_ANON: 0.10}, noise=0.06))
    assert e.verdict is Verdict.INCONCLUSIVE
    assert estimate(measurement({Kind.FAULT_ANON: 0.10}, noise=0.02)).verdict is Verdict.HEAVY


def test_zeroing_alone_leaves_a_verdict(measurement: Make) -> None:
    # Huge pages: a fault is nearly all zeroing, and the samples are sure.
    e = estimate(measurement({Kind.FAULT_ANON: 0.2}, zeroing=0.19))
    assert e.saving_cpu.low == pytest.approx(0.01)
    assert e.verdict is Verdict.BOUND


def test_nothing_at_all(measurement: Make) -> None:
    m = dataclasses.replace(
        measurement(cpu_s=0.0, samples=0, bins=()),
        classes={},
        memory=(),
        overlays={},
        duration_s=0.0,
    )
    e = estimate(m)
    assert e.verdict is Verdict.INCONCLUSIVE
    assert e.saving_cpu.high == e.saving_wall.high == 0.0


@given(
    faults=st.floats(0, 0.5),
    unmap=st.floats(0, 0.4),
    growth=st.floats(0, 1),
    noise=st.floats(0, 0.2),
    zeroing=st.floats(0, 0.5),
    threads=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it has no state
def test_ranges_are_ranges(
    measurement: Make,
    faults: float,
    unmap: float,
    growth: float,
    noise: float,
    zeroing: float,
    threads: list[tuple[float, float]],
) -> None:
    m = measurement(
        {Kind.FAULT_ANON: faults, Kind.UNMAP: unmap},
        growth=growth,
        noise=noise,
        zeroing=min(zeroing, faults),
        bins=slices(*threads),
    )
    e = estimate(m)
    for r in (e.saving_cpu, e.saving_wall):
        assert 0.0 <= r.low <= r.mid + 1e-9
        assert r.mid <= r.high + 1e-9
        assert r.high < 1.0
    assert 0.0 <= e.running <= 1.0
