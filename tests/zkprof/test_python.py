# SPDX-License-Identifier: MIT OR Apache-2.0
"""Python functions are found where the time goes, and nothing is believed blindly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof import python_stacks
from zkprof.classify import Classifier, NoKernelSymbolsError
from zkprof.measure import measure
from zkprof.model import Frame, Kind, Measurement, Tier
from zkprof.perf_map import PYTHON, PerfMap
from zkprof.procfs import Process
from zkprof.python_stacks import Joined, Timeline, fold, is_python, py_spy
from zkprof.sampler import Moment, PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

PROVER = Path(__file__).parent / "targets" / "prover.py"


@pytest.fixture
def kernel_stacks() -> None:
    try:
        Sampler(os.getpid(), classifier=Classifier()).close()
    except (NoKernelSymbolsError, PerfUnavailableError) as error:
        pytest.skip(f"no kernel stacks here: {error}")


def seconds(m: Measurement, kind: Kind, function: str) -> float:
    return sum(
        stack.seconds
        for stack in m.stacks
        if stack.kind is kind
        and any(m.frames[i].name == function and m.frames[i].module == PYTHON for i in stack.frames)
    )


@pytest.mark.usefixtures("kernel_stacks")
@pytest.mark.parametrize("arguments", [[], ["thread"]], ids=["main", "threads"])
def test_py_spy_is_joined(run: Callable[..., Any], arguments: list[str]) -> None:
    assert py_spy(), "zkprof depends on py-spy"
    with run(sys.executable, PROVER, *arguments) as target:
        m = measure(target.pid, 4.0, 499.0, tier=Tier.KERNEL)
    assert m.python, m.method.notes
    assert m.python.source == "py-spy"
    assert m.python.matched > 0.7
    assert 0 < m.python.gap_s < 0.05
    faults = m.classes[Kind.FAULT_ANON].seconds
    assert faults > 0.2 * m.cpu_s
    assert seconds(m, Kind.FAULT_ANON, "commit_trace") > 0.6 * faults
    assert seconds(m, Kind.FAULT_ANON, "compute") < 0.25 * faults
    user = m.classes[Kind.USER].seconds
    assert seconds(m, Kind.USER, "compute") > 0.5 * user
    lines = {f.name: f.line for f in m.frames if f.module == PYTHON}
    source = PROVER.read_text().splitlines()
    assert source[lines["commit_trace"] - 1] == "def commit_trace() -> None:"
    assert sum(stack.seconds for stack in m.stacks) == pytest.approx(m.cpu_s, rel=0.01)


def perf_python() -> str | None:
    """Return a Python that can announce its functions."""
    installed = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12)]
    # Version managers keep several side by side.
    beside = Path(sys.base_prefix).parent.glob("3.1[2-9]*/bin/python3")
    code = "import sys; sys.activate_stack_trampoline('perf')"
    for python in [*filter(None, installed), *map(str, beside)]:
        if subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0:
            return python
    return None


@pytest.mark.usefixtures("kernel_stacks")
def test_announced_functions_are_exact(run: Callable[..., Any]) -> None:
    python = perf_python()
    if not python:
        pytest.skip("no Python 3.12 or later with perf support")
    with run(python, "-X", "perf", PROVER) as target:
        m = measure(target.pid, 2.5, 499.0, tier=Tier.KERNEL)
        Path(f"/tmp/perf-{target.pid}.map").unlink(missing_ok=True)
    assert m.python
    assert m.python.source == "perf-map"
    assert m.python.matched > 0.9
    assert m.python.gap_s == 0
    faults = m.classes[Kind.FAULT_ANON].seconds
    assert seconds(m, Kind.FAULT_ANON, "commit_trace") > 0.9 * faults
    assert seconds(m, Kind.FAULT_ANON, "compute") < 0.1 * faults
    assert {f.file for f in m.frames if f.name == "compute"} == {str(PROVER)}


@pytest.mark.usefixtures("kernel_stacks")
def test_without_py_spy(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_stacks, "py_spy", lambda: None)
    with run(sys.executable, PROVER) as target:
        m = measure(target.pid, 0.5, tier=Tier.KERNEL)
    assert m.python is None
    assert any("pip install py-spy" in note for note in m.method.notes)


@pytest.mark.parametrize("path", ["{here}", ".:{here}", ":{here}", "."])
def test_no_py_spy_of_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    """Which may be the target's, and zkprof root."""
    (tmp_path / "py-spy").write_text("#!/bin/sh\n")
    (tmp_path / "py-spy").chmod(0o755)
    monkeypatch.setattr(python_stacks.sysconfig, "get_path", lambda _: "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path.format(here=tmp_path))
    assert py_spy() == (str(tmp_path / "py-spy") if path == "{here}" else None)


@pytest.mark.usefixtures("kernel_stacks")
@pytest.mark.parametrize("script", ["exit 3", "echo 'Error: \x1b[2Jno' >&2; sleep 9", "kill $$"])
def test_a_py_spy_that_fails(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    (tmp_path / "py-spy").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "py-spy").chmod(0o755)
    monkeypatch.setattr(python_stacks, "py_spy", lambda: str(tmp_path / "py-spy"))
    with run(sys.executable, PROVER) as target:
        m = measure(target.pid, 0.5, tier=Tier.KERNEL)
    assert m.python is None
    notes = [note for note in m.method.notes if "Python functions are not known" in note]
    assert len(notes) == 1
    assert notes[0].isprintable()


@pytest.mark.usefixtures("kernel_stacks")
def test_python_is_not_looked_for_unless_wanted(run: Callable[..., Any]) -> None:
    with run(sys.executable, PROVER) as target:
        m = measure(target.pid, 0.5, tier=Tier.KERNEL, python=False)
    assert m.python is None
    assert not any("Python" in note for note in m.method.notes)


def event(ph: str, name: str, ts: int, tid: int = 7) -> dict[str, Any]:
    return {
        "ph": ph,
        "name": name,
        "ts": ts,
        "pid": 1,
        "tid": tid,
        "args": {"filename": "p.py", "line": 1},
    }


THREAD = "thread (42): MainThread"


def frames(*names: str) -> tuple[Frame, ...]:
    return tuple(Frame(name, PYTHON, "p.py", 1) for name in names)


def test_timeline() -> None:
    timeline = Timeline(
        [
            event("B", THREAD, 1_000_000),
            event("B", "main", 1_000_000),
            event("B", "a", 1_000_000),
            event("E", "a", 2_000_000),
            event("B", "b", 2_000_000),
            event("E", "b", 3_000_000),
            event("E", "main", 3_000_000),
            event("E", THREAD, 3_000_000),
        ]
    )
    assert timeline.tids == {42}
    assert timeline.at(42, 1.5) == (frames("main", "a"), 0.0)
    assert timeline.at(42, 2.5) == (frames("main", "b"), 0.0)
    stack, gap = timeline.at(42, 3.005)
    assert stack == frames("main", "b")
    assert gap == pytest.approx(0.005)
    stack, gap = timeline.at(42, 0.99)
    assert stack == frames("main", "a")
    assert gap == pytest.approx(0.01)
    assert timeline.at(42, 0.5)[0] == ()
    assert timeline.at(42, 4.0)[0] == ()
    assert timeline.at(43, 1.5)[0] == ()


class FakeNames:
    def __init__(self, *known: Frame) -> None:
        self.frames = list(known)

    def number(self, frame: Frame) -> int:
        if frame not in self.frames:
            self.frames.append(frame)
        return self.frames.index(frame)


@pytest.mark.parametrize("late_s", [0.0, 0.08])
def test_the_start_of_py_spys_clock_is_found(late_s: float) -> None:
    """Functions take turns of different lengths; each calls one native function."""
    names: Any = FakeNames(Frame("memset", "libc"), Frame("multiply", "libm"))
    paths: list[tuple[int, ...]] = [(), (0,), (1,)]
    events = [event("B", THREAD, 0), event("B", "main", 0)]
    moments, t = [], 0.0
    for turn in range(40):
        name, node = (("fill", 1), ("mul", 2))[turn % 2]
        length = 0.06 + 0.01 * (turn * 7 % 11)
        events += [event("B", name, round(t * 1e6)), event("E", name, round((t + length) * 1e6))]
        moments += [
            Moment(round((100.0 + late_s + t + step * 0.005) * 1e9), 42, Kind.USER, node)
            for step in range(int(length / 0.005))
        ]
        t += length
    joined = Joined(Timeline(events), 100.0, moments, paths, names)
    assert joined.offset_s == pytest.approx(late_s, abs=0.011)
    assert joined.join.matched > 0.95
    by_path = {
        tuple(names.frames[i].name for i in path): n for (_, _, path), n in joined.samples.items()
    }
    right = by_path[("main", "fill", "memset")] + by_path[("main", "mul", "multiply")]
    assert right > 0.85 * len(moments)


def test_the_interpreters_frames_give_way() -> None:
    names: Any = FakeNames(
        Frame("main", "python3.12"),
        Frame("_PyEval_EvalFrameDefault", "libpython3.12.so.1.0"),
        Frame("prove", PYTHON),
        Frame("array_fill", "_multiarray.so"),
        Frame("memset", "libc.so.6"),
        Frame("_PyEval_Evil", "other.so"),
    )
    assert fold((0, 1, 3, 4), (2,), names) == (2, 3, 4)
    assert fold((0, 1, 2, 1, 3, 4), (), names) == (2, 3, 4)
    assert fold((0, 3, 4), (), names) == (0, 3, 4)
    assert fold((0, 3), (2,), names) == (2, 0, 3)
    assert fold((0, 5, 4), (2,), names) == (2, 0, 5, 4)
    assert fold((), (2,), names) == (2,)


def test_interpreters_are_recognised() -> None:
    with Process(os.getpid()) as process:
        assert is_python(process.maps())


@pytest.fixture
def perf_map() -> Any:  # noqa: ANN401
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def read_map() -> Frame | None:
    with Process(os.getpid()) as process:
        found = PerfMap(process)
        found.read()
        return found.frame(0x1008)


TEXT = "1000 10 py::prove:/p.py\nnonsense\nzz 1 x\n2000 10 \x1b[2Jjit\n"


def test_a_perf_map_is_read(perf_map: Path) -> None:
    assert read_map() is None
    perf_map.write_text(TEXT)
    assert read_map() == Frame("prove", PYTHON, "/p.py")
    with Process(os.getpid()) as process:
        found = PerfMap(process)
        found.read()
        assert found.frame(0x2000) == Frame("?[2Jjit", "jit")
        assert found.frame(0x1010) is None
        assert found.frame(0) is None


def test_other_files_are_not_believed(perf_map: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text(TEXT)
    perf_map.symlink_to(real)
    assert read_map() is None
    perf_map.unlink()
    os.mkfifo(perf_map)
    assert read_map() is None
    perf_map.unlink()
    perf_map.mkdir()
    try:
        assert read_map() is None
    finally:
        perf_map.rmdir()
    perf_map.write_text(TEXT)
    second = perf_map.with_suffix(".second")
    second.hardlink_to(perf_map)
    try:
        assert read_map() is None
    finally:
        second.unlink()
    assert read_map() is not None
    if os.geteuid() == 0:
        os.chown(perf_map, 65534, 65534)
        assert read_map() is None
