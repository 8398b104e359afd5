# SPDX-License-Identifier: MIT OR Apache-2.0
"""The sampler sees the truth: classes, threads, stacks, and what it lost."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.classify import Classifier, NoKernelSymbolsError
from zkprof.model import Kind
from zkprof.sampler import Cell, PerfUnavailableError, Sampler, Scope, open_sampler

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS = {k for k in Kind if k.startswith("fault.")}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    try:
        classifier = Classifier()
        Sampler(os.getpid(), classifier=classifier).close()
    except (NoKernelSymbolsError, PerfUnavailableError) as error:
        pytest.skip(f"no kernel stacks here: {error}")
    return classifier


def sample(sampler: Sampler, seconds: float) -> list[Cell]:
    cells = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sampler.drain(0.05)
        cells += sampler.take()
    return cells


def shares(cells: list[Cell]) -> dict[Kind, float]:
    counts: Counter[Kind] = Counter()
    for cell in cells:
        counts[cell.kind] += cell.count
    total = sum(counts.values())
    assert total > 100, "too few samples to say anything"
    return defaultdict(float, {kind: n / total for kind, n in counts.items()})


def fault_share(found: dict[Kind, float]) -> float:
    return sum(found[kind] for kind in FAULTS)


@pytest.fixture
def observe(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> Callable[..., dict[Kind, float]]:
    def observe(*mode: str | Path) -> dict[Kind, float]:
        with (
            run(compiled("workload"), *mode) as target,
            Sampler(target.pid, 997, classifier=classifier) as sampler,
        ):
            return shares(sample(sampler, 1.5))

    return observe


def test_faults_and_unmapping(observe: Callable[..., dict[Kind, float]]) -> None:
    found = observe("faults")
    assert fault_share(found) > 0.6
    assert found[Kind.FAULT_ANON] > 0.3
    assert 0.03 < found[Kind.UNMAP] < 0.4
    assert found[Kind.FAULT_FILE] + found[Kind.FAULT_COW] + found[Kind.PREFAULT] < 0.03
    assert found[Kind.USER] < 0.2


def test_arithmetic_is_user_time(observe: Callable[..., dict[Kind, float]]) -> None:
    found = observe("compute")
    assert found[Kind.USER] > 0.85
    assert fault_share(found) + found[Kind.UNMAP] + found[Kind.MADVISE] < 0.03


def test_file_faults_are_not_anonymous(
    observe: Callable[..., dict[Kind, float]], big_file: Path
) -> None:
    found = observe("file", big_file)
    assert found[Kind.FAULT_FILE] > 0.15
    assert found[Kind.FAULT_ANON] < 0.03


def test_populate_is_prefault(observe: Callable[..., dict[Kind, float]]) -> None:
    found = observe("populate")
    assert found[Kind.PREFAULT] > 0.5
    assert found[Kind.UNMAP] > 0.03
    assert fault_share(found) < 0.03


def test_madvise_is_not_unmap(observe: Callable[..., dict[Kind, float]]) -> None:
    found = observe("madvise")
    assert found[Kind.MADVISE] > 0.03
    assert found[Kind.UNMAP] < 0.02
    assert fault_share(found) > 0.6


def test_copy_on_write(observe: Callable[..., dict[Kind, float]]) -> None:
    found = observe("cow")
    assert found[Kind.FAULT_COW] > 0.3
    assert found[Kind.FAULT_ANON] < 0.1


def test_faults_inside_read_are_faults(observe: Callable[..., dict[Kind, float]]) -> None:
    found = observe("read")
    assert fault_share(found) > 0.5
    assert found[Kind.KERNEL] < 0.35


def test_threads_started_after_attaching(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    with (
        run(compiled("workload"), "threads", "4") as target,
        Sampler(target.pid, 997, classifier=classifier) as sampler,
    ):
        assert sampler.counts.threads == 1
        cells = sample(sampler, 2.0)
    per_thread = Counter[int]()
    for cell in cells:
        per_thread[cell.tid] += cell.count
    workers = [n for tid, n in per_thread.items() if tid != target.pid]
    assert len(workers) == 4
    assert min(workers) > 0.3 * max(workers)
    assert sum(workers) > 0.9 * sum(per_thread.values())
    assert fault_share(shares(cells)) > 0.5


def test_threads_there_before_are_counted_once(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    with run(compiled("workload"), "threads", "3") as target:
        time.sleep(0.8)
        with Sampler(target.pid, 499, classifier=classifier) as sampler:
            assert sampler.counts.threads == 4
            cpu = cpu_s(target.pid)
            cells = sample(sampler, 1.5)
            cpu = cpu_s(target.pid) - cpu
    got = sum(cell.count for cell in cells)
    # Twice as many would mean that inherited events count again.
    assert 0.7 * 499 * cpu < got < 1.2 * 499 * cpu


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_kernel_mode_only_user_samples_remain(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "faults") as target:
        try:
            sampler = Sampler(target.pid, 997, jitter=False)
        except PerfUnavailableError as error:
            pytest.skip(str(error))
        with sampler:
            cpu = cpu_s(target.pid)
            cells = sample(sampler, 1.5)
            cpu = cpu_s(target.pid) - cpu
    assert {cell.kind for cell in cells} <= {Kind.USER}
    assert sum(cell.count for cell in cells) < 0.3 * 997 * cpu


def test_all_cpus_scope_keeps_the_target_only(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    with (
        run(compiled("workload"), "compute") as other,
        run(compiled("workload"), "faults") as target,
        Sampler(target.pid, 997, classifier=classifier, scope=Scope.CPUS) as sampler,
    ):
        cells = sample(sampler, 1.5)
        counts = sampler.counts
    assert other.pid not in {cell.tid for cell in cells}
    assert {cell.tid for cell in cells} == {target.pid}
    assert counts.foreign > 100
    assert counts.events <= (os.cpu_count() or 1)
    assert fault_share(shares(cells)) > 0.6


def test_descriptors_run_out(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    classifier: Classifier,
) -> None:
    with run(compiled("workload"), "threads", "64") as target:
        time.sleep(1.0)

        def few_descriptors() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))

        def attach() -> tuple[Scope, list[str], int]:
            sampler, notes = open_sampler(target.pid, 499, classifier)
            with sampler:
                return sampler.scope, notes, len(sample(sampler, 1.0))

        scope, notes, cells = in_child(attach, few_descriptors)
    assert scope is Scope.CPUS
    assert "48 descriptors" in notes[0]
    assert cells > 10


def test_stacks_lead_to_main(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    program = compiled("workload")
    with (
        run(program, "faults") as target,
        Sampler(target.pid, 997, classifier=classifier) as sampler,
    ):
        cells = sample(sampler, 1.0)
        stacks, nodes = sampler.stacks(), sampler.nodes()
        maps = Path(f"/proc/{target.pid}/maps").read_text().splitlines()
    code = [line for line in maps if str(program) in line and "r-xp" in line]
    start, end = (int(x, 16) for x in code[0].split()[0].split("-"))
    assert sum(stack.count for stack in stacks) == sum(cell.count for cell in cells)
    faulting = [stack for stack in stacks if stack.kind is Kind.FAULT_ANON]
    assert faulting
    for stack in faulting:
        assert start <= nodes[stack.node].ip < end, "the faulting instruction is in the program"
    assert len(stacks) < sum(stack.count for stack in stacks) / 2, "equal stacks share a row"


def test_time_slices_follow_the_clock(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    with run(compiled("workload"), "compute") as target:
        start = time.monotonic_ns() - 500_000_000
        with Sampler(target.pid, 997, classifier=classifier, start_ns=start) as sampler:
            cells = sample(sampler, 1.0)
            last = (time.monotonic_ns() - start) // 100_000_000
    bins = {cell.bin for cell in cells}
    assert min(bins) >= 5
    assert max(bins) <= last
    assert len(bins) >= 8


def test_an_unread_ring_overflows_and_says_so(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    with (
        run(compiled("workload"), "faults") as target,
        Sampler(target.pid, 20000, classifier=classifier) as sampler,
    ):
        deadline = time.monotonic() + 20
        while not sampler.counts.lost and time.monotonic() < deadline:
            time.sleep(1)
            sampler.drain()
        assert sampler.counts.lost > 0


def test_the_end_of_the_target_is_no_error(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    with (
        run(compiled("workload"), "short") as target,
        Sampler(target.pid, 499, classifier=classifier) as sampler,
    ):
        target.wait(timeout=30)
        start = time.process_time()
        cells = sample(sampler, 0.5)
        assert time.process_time() - start < 0.25, "drain() spins after the target's end"
        assert sum(cell.count for cell in cells) > 100


def test_no_such_process(classifier: Classifier) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(PerfUnavailableError) as caught:
        Sampler(child, classifier=classifier)
    assert caught.value.errno == errno.ESRCH


@pytest.mark.parametrize("rate", [0, -1, 1e9, float("nan"), float("inf")])
def test_impossible_rates(rate: float) -> None:
    with pytest.raises(PerfUnavailableError) as caught:
        Sampler(os.getpid(), rate)
    assert caught.value.errno == errno.EINVAL


def test_closing_twice_gives_every_descriptor_back(classifier: Classifier) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    sampler = Sampler(os.getpid(), classifier=classifier)
    assert descriptors() > before
    sampler.close()
    sampler.close()
    assert descriptors() == before


def test_another_users_process_needs_permission(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    with run(compiled("workload"), "compute") as target:

        def attach() -> None:
            Sampler(target.pid).close()

        with pytest.raises(PerfUnavailableError, match="not permitted"):
            in_child(attach, drop)
