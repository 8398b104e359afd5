# SPDX-License-Identifier: MIT OR Apache-2.0
"""What surrounds a target: exact where it can be, left out where it cannot."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof import context
from zkprof.context import NoTracepointsError, Surroundings, cgroup_memory, tracepoints
from zkprof.family import Family
from zkprof.procfs import Process
from zkprof.sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def traceable() -> None:
    try:
        Sampler(os.getpid(), trace=tracepoints()).close()
    except (NoTracepointsError, PerfUnavailableError) as error:
        pytest.skip(str(error))


def observe(pid: int, seconds: float, *, follow: bool = False) -> Surroundings:
    with Process(pid) as process:
        surroundings = Surroundings(Family(process, follow=follow))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
            surroundings.update()
        return surroundings


@pytest.mark.usefixtures("traceable")
def test_requests_are_counted_exactly(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "requests") as target:
        surroundings = observe(target.pid, 1.5)
    traffic = surroundings.traffic()
    surroundings.close()
    assert traffic
    assert traffic.calls == {"mmap": 100, "munmap": 100, "madvise": 100, "brk": 0, "mremap": 0}
    assert traffic.mapped == traffic.unmapped == 100 << 20
    assert traffic.advised == 50 << 20


@pytest.mark.usefixtures("traceable")
def test_requests_are_counted_all_along(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    """All that it maps it faults in, so the faults say how much that is."""
    with run(compiled("workload"), "faults") as target, Process(target.pid) as process:
        surroundings = Surroundings(Family(process, follow=False))
        before = process.stat().minor_faults
        deadline = time.monotonic() + 60
        while process.stat().minor_faults < before + 60 * 4096 and time.monotonic() < deadline:
            time.sleep(0.05)
            surroundings.update()
        traffic = surroundings.traffic()
        faults = process.stat().minor_faults - before
        surroundings.close()
    assert traffic
    assert traffic.mapped == pytest.approx(faults * 4096, rel=0.1)
    assert traffic.unmapped == pytest.approx(traffic.mapped, rel=0.1)


@pytest.mark.usefixtures("traceable")
def test_waits_for_the_lock(compiled: Callable[..., Path], run: Callable[..., Any]) -> None:
    with run(compiled("workload"), "lock") as target, Process(target.pid) as process:
        surroundings = Surroundings(Family(process, follow=False))
        if not surroundings._waits_known:
            pytest.skip("this kernel cannot trace mmap_lock cheaply")
        time.sleep(1.5)
        surroundings.update()
        waited = surroundings.context(final=False).mmap_lock_wait_s
        surroundings.close()
    with run(compiled("workload"), "faults") as target:
        alone = observe(target.pid, 0.5)
        none = alone.context(final=False).mmap_lock_wait_s
        alone.close()
    assert waited is not None
    assert none is not None
    assert waited > 0.1
    assert none < 0.1 * waited


@pytest.mark.usefixtures("traceable")
def test_tracing_stops_before_it_costs_too_much(
    compiled: Callable[..., Path], run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_MAX_OVERHEAD", 1e-6)
    with run(compiled("workload"), "faults") as target:
        surroundings = observe(target.pid, 1.5)
    assert any("slow it down" in note for note in surroundings.notes)
    traced = surroundings._tracer.traffic.mapped  # type: ignore[union-attr]
    traffic = surroundings.traffic()
    surroundings.close()
    assert traffic
    assert traffic.mapped > 1.3 * traced


def test_without_tracepoints(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    with run(compiled("workload"), "faults", user="nobody") as target:

        def look() -> tuple[Any, list[str]]:
            surroundings = observe(target.pid, 0.3)
            return surroundings.traffic(), surroundings.notes

        traffic, notes = in_child(look, drop)
    assert traffic is None
    assert len(notes) == 1
    assert "not known" in notes[0]


def test_what_each_record_says(native: Callable[..., str]) -> None:
    """Also what no kernel writes, and that it costs no memory to hear a thing again."""
    assert native("records", "trace", "tally") == ""


def test_huge_pages_and_pressure() -> None:
    with Process(os.getpid()) as process:
        surroundings = Surroundings(Family(process, follow=False))
        found = surroundings.context(final=True)
        surroundings.close()
    assert found.huge_share is not None
    assert 0 <= found.huge_share <= 1
    if Path("/proc/pressure/memory").exists():
        assert found.psi_some_s is not None
        assert found.psi_some_s >= 0


class FakeProcess:
    def __init__(self, cgroup: str) -> None:
        self.cgroup = cgroup

    def read(self, name: str) -> bytes:
        assert name == "cgroup"
        return self.cgroup.encode()


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_limits_of_cgroups_version_2(tmp_path: Path) -> None:
    write(tmp_path, cgroup__controllers="memory\n")
    write(tmp_path / "a", memory__max="1000\n", memory__current="900\n")
    write(tmp_path / "a/b", memory__max="max\n", memory__current="100\n")
    process: Any = FakeProcess("0::/a/b\n")
    assert cgroup_memory(process, tmp_path) == (1000, 900)
    write(tmp_path / "a/b", memory__max="500\n")
    assert cgroup_memory(process, tmp_path) == (500, 100)
    process.cgroup = "0::/elsewhere\n"
    assert cgroup_memory(process, tmp_path) == (None, None)


def test_limits_of_cgroups_version_1(tmp_path: Path) -> None:
    no_limit = "9223372036854771712\n"
    write(
        tmp_path / "memory",
        memory__limit_in_bytes=no_limit,
        memory__usage_in_bytes="5\n",
    )
    write(tmp_path / "memory/a", memory__limit_in_bytes="4096\n", memory__usage_in_bytes="4095\n")
    process: Any = FakeProcess("5:cpu:/\n4:memory:/a\n0::/\n")
    assert cgroup_memory(process, tmp_path) == (4096, 4095)
    process.cgroup = "4:memory:/\n"
    assert cgroup_memory(process, tmp_path) == (None, None)


@pytest.mark.parametrize("text", ["", "nonsense\n", "4:memory:/../../etc\n", "0::/\x00\n"])
def test_odd_cgroup_files(tmp_path: Path, text: str) -> None:
    process: Any = FakeProcess(text)
    assert cgroup_memory(process, tmp_path) == (None, None)
