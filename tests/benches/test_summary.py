# SPDX-License-Identifier: MIT OR Apache-2.0
"""Figures are formed as the documentation says, and targets are judged by them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from rich.console import Console

from benches import tables
from benches.runner import LIMIT, Run, Syscalls
from benches.summary import Row, Summary, is_own, is_peer, summarise
from benches.targets import TARGETS, Verdict, judge

MIB = 1 << 20


def run(
    subject: str,
    wall: Iterable[int],
    *,
    case: str = "fill-8M",
    repetition: int = 0,
    cpu: Iterable[int] | None = None,
    faults: Iterable[int] | None = None,
    peak: int = 10 * MIB,
    operations: int = 0,
    size: int = 0,
) -> Run:
    wall = tuple(wall)
    return Run(
        case=case,
        subject=subject,
        repetition=repetition,
        wall_ns=wall,
        cpu_ns=tuple(wall if cpu is None else cpu),
        faults=tuple([0] * len(wall) if faults is None else faults),
        peak_rss=peak,
        base_rss=MIB,
        live_peak=8 * MIB,
        operations=operations,
        bytes=size,
    )


def summary(*runs: Run, threads: int = 1, syscalls: Iterable[Syscalls] = ()) -> Summary:
    return summarise(runs, syscalls, {one.case: threads for one in runs})


def row(figures: Summary, subject: str, case: str = "fill-8M") -> Row:
    found = figures.row(case, subject)
    assert found is not None
    return found


def test_only_the_second_half_is_steady() -> None:
    figures = summary(run("glibc", [900, 800, 10, 30, 20, 40], faults=[9, 9, 9, 1, 0, 2]))
    assert row(figures, "glibc").steady_ns == 30
    assert row(figures, "glibc").cold_ns == 900
    assert row(figures, "glibc").cold_faults == 9
    assert row(figures, "glibc").faults == 1


def test_rare_faults_show() -> None:
    figures = summary(run("glibc", [1] * 8, faults=[0, 0, 0, 0, 0, 0, 0, 100]))
    assert row(figures, "glibc").faults == 25


def test_ratios_are_formed_within_a_repetition() -> None:
    """A machine twice as slow for one repetition changes no ratio."""
    runs = []
    for repetition, slowness in enumerate((1, 2, 1)):
        runs.append(run(LIMIT, [100 * slowness] * 4, repetition=repetition))
        runs.append(run("glibc", [300 * slowness] * 4, repetition=repetition))
        runs.append(run("zknalloc", [150 * slowness] * 4, repetition=repetition))
    figures = summary(*runs)
    assert row(figures, "zknalloc").to_limit == 1.5
    assert row(figures, "zknalloc").to_best_peer == 0.5
    assert row(figures, "zknalloc").best_peer == "glibc"
    assert row(figures, "zknalloc").steady_ns == 150
    assert row(figures, "zknalloc").steady_high_ns == 300
    assert figures.ratio("fill-8M", "glibc", "zknalloc") == 2


def test_a_repetition_that_one_lacks_is_left_out_of_the_ratio() -> None:
    figures = summary(
        run(LIMIT, [100] * 4),
        run("glibc", [200] * 4),
        run("glibc", [900] * 4, repetition=1),
    )
    assert row(figures, "glibc").to_limit == 2


def test_the_library_is_not_its_own_peer() -> None:
    figures = summary(
        run("zknalloc", [10] * 4),
        run("zknalloc+ZK_NALLOC_THP=0", [20] * 4),
        run("glibc", [40] * 4),
        run("tcmalloc", [30] * 4),
    )
    assert {r.best_peer for r in figures.rows} == {"tcmalloc"}
    assert is_own("zknalloc+A=1")
    assert is_own("zknalloc-mimalloc3")
    assert not is_own(LIMIT)
    assert not is_peer("zknalloc+A=1")
    assert is_peer("glibc+A=1")
    assert not is_peer(LIMIT)


def test_one_thread_disturbed_counts_cpu_time() -> None:
    figures = summary(run("glibc", [100] * 4, cpu=[50] * 4))
    assert row(figures, "glibc").steady_ns == 50
    assert row(figures, "glibc").disturbed


def test_several_threads_leave_disturbed_rounds_out() -> None:
    steady = [100, 100, 900]
    figures = summary(run("glibc", [5, 5, 5, *steady], cpu=[10, 10, 10, 200, 200, 500]), threads=2)
    assert row(figures, "glibc").steady_ns == 100
    assert not row(figures, "glibc").disturbed


def test_operations_rates_and_calls() -> None:
    figures = summary(
        run(LIMIT, [1000] * 4, operations=100, size=4000),
        run("glibc", [2000] * 4, operations=100, size=4000),
        threads=2,
        syscalls=[Syscalls("fill-8M", LIMIT, 4.0), Syscalls("fill-8M", "glibc", 20.0)],
    )
    assert row(figures, "glibc").per_operation_ns == 40, "each of two threads made 50 in 2000 ns"
    assert row(figures, "glibc").gigabytes_per_second == 2
    assert row(figures, "glibc").syscalls == 16
    assert row(figures, "glibc").to_best_peer == 1


def verdict(figures: Summary, target: str, case: str) -> Verdict:
    return next(v for v in judge(figures) if (v.target, v.case) == (target, case))


@pytest.mark.parametrize(
    ("own", "must", "aim"), [(100, True, True), (104, True, False), (106, False, False)]
)
def test_fill_target(own: int, must: bool, aim: bool) -> None:  # noqa: FBT001
    figures = summary(
        run(LIMIT, [100] * 4), run("zknalloc", [own] * 4), run("glibc-tuned", [102] * 4)
    )
    found = verdict(figures, "fill at the limit", "fill-8M")
    assert (found.must, found.aim) == (must, aim)


def test_sparse_target_compares_with_the_peer_that_is_best_when_dense() -> None:
    """Default glibc is fast on sparse memory only because it is slow on all other."""
    runs = []
    for case, glibc, mimalloc in (("msm-1-repeat", 150, 1000), ("msm-100-random", 9000, 900)):
        runs.append(run("zknalloc", [100] * 4, case=case))
        runs.append(run("glibc", [glibc] * 4, case=case))
        runs.append(run("mimalloc3", [mimalloc] * 4, case=case))
    figures = summary(*runs)
    found = verdict(figures, "sparse zeroed memory", "msm-1-repeat")
    assert (found.must, found.aim) == (True, True)
    assert "mimalloc3" in found.figure
    # At any density it is compared with whoever is best there.
    assert verdict(figures, "zeroed, any density", "msm-1-repeat").must is True


@pytest.mark.parametrize(("faults", "must"), [(0, True), (1, False)])
def test_trace_target_wants_no_faults(faults: int, must: bool) -> None:  # noqa: FBT001
    figures = summary(
        run("zknalloc", [100] * 4, case="trace-bb", faults=[50] + [faults] * 3),
        run("glibc", [200] * 4, case="trace-bb", faults=[100, 0, 0, 0]),
    )
    assert verdict(figures, "traces, steady", "trace-bb").must is must
    assert verdict(figures, "traces, cold", "trace-bb").must is True


@pytest.mark.parametrize(("peak", "must"), [(10, True), (11, False)])
def test_memory_target(peak: int, must: bool) -> None:  # noqa: FBT001
    figures = summary(run("zknalloc", [1] * 4, peak=peak * MIB), run("glibc", [1] * 4))
    assert verdict(figures, "peak memory", "fill-8M").must is must


def test_what_was_not_measured_is_said_so() -> None:
    found = judge(summary(run("zknalloc", [1] * 4)))
    assert {v.target for v in found} == {target.name for target in TARGETS}
    assert all(v.must is None and "not measured" in v.figure for v in found)


def test_a_table_that_is_too_wide_breaks_names_not_figures() -> None:
    long = "zknalloc+ZK_NALLOC_CACHE_BYTES=16G+ZK_NALLOC_THP=0"
    figures = summary(
        run("glibc", [123_456_789] * 4, faults=[1_049_000] * 4),
        run(long, [8_540_000] * 4, faults=[778] * 4),
    )
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(tables.case_table(figures.of("fill-8M")))
    lines = captured.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in captured.get()
    names = "".join(line.split()[0] for line in lines[1:] if not line.startswith("glibc"))
    assert names == long
    assert "8.54 ms" in captured.get()
    assert "123 ms" in captured.get()
