# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command and the registry: what is missing is named, what is wrong is one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benches import allocators
from benches.allocators import REGISTRY, Allocator, Found, UnknownAllocatorError

ROOT = Path(__file__).resolve().parents[2]

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


@pytest.fixture
def command(build_folder: Path) -> Command:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "benches", "--build", str(build_folder), *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


SHORT = ("--repetitions", "2", "--budget-ms", "1", "--no-syscalls")


def test_names_are_unique_and_complete() -> None:
    assert all(name == allocator.name for name, allocator in REGISTRY.items())
    assert {"zknalloc", "glibc", "glibc-tuned", "mimalloc3-tuned", "tcmalloc"} <= set(REGISTRY)
    for allocator in REGISTRY.values():
        assert allocator.finder is None or allocator.get, f"{allocator.name}: how to get it?"


def test_unknown_names_and_bad_settings() -> None:
    with pytest.raises(UnknownAllocatorError, match="'hoard'; known are: zknalloc"):
        allocators.find(["hoard"])
    with pytest.raises(UnknownAllocatorError, match=r"\+VARIABLE=value"):
        allocators.find(["glibc+fast"])


def test_settings_are_added() -> None:
    (found,) = allocators.find(["jemalloc-tuned+MALLOC_CONF=thp:never+OTHER=1"])
    assert found.allocator.name == "jemalloc-tuned+MALLOC_CONF=thp:never+OTHER=1"
    assert found.allocator.env["MALLOC_CONF"] == "thp:never"
    assert found.allocator.env["OTHER"] == "1"
    assert REGISTRY["jemalloc-tuned"].env["MALLOC_CONF"] != "thp:never"


def test_the_callers_settings_do_not_leak() -> None:
    shell = {
        "LD_PRELOAD": "/other.so",
        "MALLOC_ARENA_MAX": "1",
        "GLIBC_TUNABLES": "x",
        "ZK_NALLOC_THP": "0",
        "PATH": "/bin",
    }
    assert Found(REGISTRY["glibc"]).environment(shell) == {"PATH": "/bin"}
    tuned = Found(Allocator("a", "a", "a", {"MALLOC_CONF": "thp:always"}), Path("/a.so"))
    assert tuned.environment(shell) == {
        "PATH": "/bin",
        "LD_PRELOAD": "/a.so",
        "MALLOC_CONF": "thp:always",
    }


def test_a_second_library_is_loaded_after_the_first() -> None:
    found = Found(Allocator("a", "a", "a"), Path("/a.so"), Path("/b.so"))
    assert found.variables() == {"LD_PRELOAD": "/a.so:/b.so"}


def test_a_second_library_that_is_gone_is_missing(
    monkeypatch: pytest.MonkeyPatch, shim: Path
) -> None:
    monkeypatch.setenv(allocators.PRELOAD_VARIABLE, str(shim))
    monkeypatch.setattr(
        allocators,
        "_parse",
        lambda _: Allocator("a", "a", "a", finder=lambda: shim, behind=lambda: None, get="b"),
    )
    (found,) = allocators.find(["a"])
    assert found.missing == "not found; to get it: b"


def test_a_preload_that_is_gone_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allocators.PRELOAD_VARIABLE, "/nowhere/libzknalloc_preload.so")
    (found,) = allocators.find(["zknalloc"])
    assert found.library is None
    assert found.missing
    assert "--preload" in found.missing


@pytest.mark.parametrize("name", ["jemalloc", "mimalloc2", "tcmalloc", "mimalloc3"])
def test_found_libraries_exist_and_load(name: str) -> None:
    (found,) = allocators.find([name])
    if found.missing:
        pytest.skip(f"{name}: {found.missing}")
    done = subprocess.run(
        ["/bin/true"], env=found.environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), "the loader complains when it cannot load"


def test_a_session_is_written(command: Command, tmp_path: Path, shim: Path) -> None:
    done = command(
        *SHORT,
        *("--only", "fill-8M,pair-1Ki,trace-groth16py,contend-alloc-t1"),
        *("--allocators", "zknalloc,glibc,glibc-tuned+MALLOC_ARENA_MAX=1"),
        *("--preload", str(shim), "--out", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress where nobody watches"
    assert max(map(len, done.stdout.splitlines())) <= 100
    out = tmp_path / "out"
    document = json.loads((out / "results.json").read_text())
    cases = ["fill-8M", "pair-1Ki", "contend-alloc-t1", "trace-groth16py"]
    subjects = ["limit", "zknalloc", "glibc", "glibc-tuned+MALLOC_ARENA_MAX=1"]
    assert [(r["case"], r["subject"]) for r in document["summary"]] == [
        (case, subject) for case in cases for subject in subjects
    ]
    assert len(document["runs"]) == len(cases) * len(subjects) * 2
    assert document["machine"]["cpus"] >= 1
    assert {t["target"] for t in document["targets"]} >= {"fill at the limit", "pass-through"}
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["case"], r["subject"]) for r in rows] == [
        (case, subject) for case in cases for subject in subjects
    ]
    for plot in ("patterns.png", "patterns.svg", "traces.png", "traces.svg"):
        assert (out / plot).stat().st_size > 1000
    assert "| fill-8M |" in (out / "tables.md").read_text()


def test_runs_are_interleaved(command: Command, tmp_path: Path) -> None:
    done = command(
        *SHORT,
        *("--only", "pair-64", "--allocators", "glibc,glibc-tuned", "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    order = [(run["repetition"], run["subject"]) for run in runs]
    assert order == [
        *((0, subject) for subject in ("limit", "glibc", "glibc-tuned")),
        *((1, subject) for subject in ("glibc", "glibc-tuned", "limit")),
    ]


def test_a_missing_allocator_is_named(command: Command) -> None:
    done = command(
        *(*SHORT, "--only", "pair-64", "--allocators", "glibc,zknalloc"),
        ZKN_BENCH_PRELOAD="/nowhere",
    )
    assert done.returncode == 0
    assert "missing: zknalloc: not found; to get it:" in done.stdout


def test_a_failing_allocator_is_reported(command: Command, shim: Path) -> None:
    done = command(
        *(*SHORT, "--only", "burst", "--preload", str(shim)),
        *("--allocators", "glibc,zknalloc+SHIM_BREAK=calloc"),
    )
    assert done.returncode == 1
    assert "failed: burst on zknalloc+SHIM_BREAK=calloc: exit status 3" in done.stdout
    assert "glibc " in done.stdout, "the others are measured all the same"


def test_system_calls_are_counted(command: Command, tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    done = command(
        *(*SHORT, "--only", "fill-32M", "--allocators", "glibc,glibc-tuned", "--syscalls"),
        *("--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["summary"]
    counts = {row["subject"]: row["syscalls"] for row in rows}
    assert counts["glibc"] == 2, "an mmap and a munmap"
    assert counts["glibc-tuned"] == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "nonsense"], "no case matches 'nonsense'"),
        (["--allocators", "hoard"], "no allocator is called 'hoard'"),
        (["--preload", "/nowhere.so"], "there is no file /nowhere.so"),
        (["--trace", "/nowhere.csv"], "cannot be read as a recording"),
        (["--budget-ms", "soon"], "'soon' is not a positive number"),
    ],
)
def test_bad_usage(command: Command, arguments: list[str], complaint: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_list_names_everything(command: Command) -> None:
    done = command("--list")
    assert done.returncode == 0
    for name in ("fill-8M", "trace-ezkl-mt", *REGISTRY):
        assert f"  {name} " in done.stdout


def test_an_interrupted_session_keeps_what_it_has(build_folder: Path, tmp_path: Path) -> None:
    """As Ctrl-C does it: the signal goes to the command and to the benchmark alike."""
    arguments = ["--only", "pair-64,rows", "--allocators", "glibc", "--budget-ms", "100000"]
    arguments += ["--no-syscalls", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benches", "--build", str(build_folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    while not (line := process.stdout.readline()).startswith("rows-32"):
        assert line, "the first case was never shown"
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in rest
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["interrupted"] is True
    measured = {run["case"] for run in document["runs"]}
    assert "rows-32" in measured
    assert "pair-64" not in measured
