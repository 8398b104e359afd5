# SPDX-License-Identifier: MIT OR Apache-2.0
"""The C program: every pattern runs, limits allocate nothing, broken allocators are caught."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benches import build, traces

Bench = Callable[..., dict[str, Any]]
Count = Callable[..., int]

# Kept here by hand, so that a pattern that vanishes from the program fails a test.
SINGLE = [
    *("fill-8M", "fill-32M", "fill-128M", "burst", "fri"),
    *(f"msm-{percent}-{how}" for percent in (1, 5, 30, 100) for how in ("random", "repeat")),
    *("calloc-fill", "realloc-doubling", "realloc-two", "shifting", "replacing"),
    *("rows-32", "rows-128", "rows-256"),
    *("pair-1Mi", "pair-256Ki", "pair-64Ki", "pair-60Ki", "pair-8Ki", "pair-1Ki", "pair-64"),
    "small-mixed",
]
THREADED = ["contend-touch", "contend-alloc", "contend-mixed", "handoff"]

#: Calls that one round makes, where that is a constant: a take and a give count one each.
CALLS = {
    "fill-8M": 2,
    "burst": 48,
    "fri": 22,
    "msm-5-random": 32,
    "calloc-fill": 8,
    "realloc-doubling": 12,
    "realloc-two": 22,
    "shifting": 16,
    "replacing": 16,
    "rows-32": 0,  # its columns are taken before the first round
    "pair-1Ki": 40000,
    "small-mixed": 40960,
}


def test_the_program_offers_every_pattern(program: Path) -> None:
    offered = {pattern.name for pattern in build.list_patterns(program)}
    assert offered == {*SINGLE, *THREADED, "replay"}


@pytest.mark.parametrize("limit", [False, True], ids=["allocator", "limit"])
@pytest.mark.parametrize("name", SINGLE)
def test_pattern_runs(bench: Bench, name: str, limit: bool) -> None:  # noqa: FBT001
    result = bench(name, "--rounds", "2", *(["--limit"] if limit else []))
    assert result["pattern"] == name
    assert result["limit"] is limit
    assert result["corruptions"] == 0
    for series in ("wall_ns", "cpu_ns", "faults"):
        assert len(result[series]) == result["rounds"] == 2
    assert all(ns > 0 for ns in result["wall_ns"])
    assert result["live_peak"] > 0
    if limit:
        # Its memory is there from the start; a page or two of the program itself are not.
        assert max(result["faults"]) < 20


@pytest.mark.parametrize("limit", [False, True], ids=["allocator", "limit"])
@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("name", THREADED)
def test_threaded_pattern_runs(
    bench: Bench,
    name: str,
    threads: int,
    limit: bool,  # noqa: FBT001
) -> None:
    options = ["--limit"] if limit else []
    result = bench(name, "--rounds", "2", "--threads", str(threads), *options)
    assert result["threads"] == threads
    assert result["corruptions"] == 0


@pytest.mark.parametrize("name", ["fill-128M", "calloc-fill", "shifting"])
def test_memory_is_measured(bench: Bench, name: str) -> None:
    """A pattern that writes all that it takes cannot peak below that."""
    result = bench(name, "--rounds", "1")
    grown = result["peak_rss"] - result["base_rss"]
    # The kernel counts pages in batches, so a few may be missing.
    assert 0.99 * result["live_peak"] <= grown < 1.2 * result["live_peak"]
    # Every page was faulted in, in units of at most 2 MiB, before the round was over.
    assert result["faults"][0] >= result["live_peak"] >> 21


@pytest.mark.parametrize("name", [*SINGLE, "contend-mixed", "handoff"])
def test_the_limit_never_allocates(count_calls: Count, name: str) -> None:
    arguments = [name, "--limit", *(["--threads", "2"] if name in THREADED else [])]
    assert count_calls(3, *arguments) == count_calls(1, *arguments)


@pytest.mark.parametrize("name", CALLS)
def test_a_round_makes_its_calls(count_calls: Count, name: str) -> None:
    assert count_calls(3, name) - count_calls(1, name) == 2 * CALLS[name]


@pytest.mark.parametrize(
    ("prover", "threads"),
    [("bb", "1"), ("ezkl", "1"), ("ezkl", "2"), ("groth16py", "1"), ("leanmultisig", "1")],
)
def test_replay_makes_the_recorded_calls(
    count_calls: Count, tmp_path: Path, prover: str, threads: str
) -> None:
    paths = {traces.short_name(path): path for path in traces.recorded()}
    trace = traces.load(paths[prover])
    ready = tmp_path / "trace"
    traces.write(trace, ready)
    arguments = ["replay", "--trace", str(ready), "--threads", threads]
    # A block that grows from below the recorded sizes must be taken first.
    grown = sum(call.op == "g" for call in trace.calls)
    made = count_calls(2, *arguments) - count_calls(1, *arguments)
    assert made == len(trace.calls) + grown
    limit = [*arguments, "--limit"]
    assert count_calls(2, *limit) == count_calls(1, *limit)


@pytest.mark.parametrize(
    ("promise", "name"),
    [
        ("calloc", "burst"),
        ("calloc", "msm-5-random"),
        ("calloc", "msm-100-repeat"),
        ("calloc", "calloc-fill"),
        ("realloc", "realloc-doubling"),
        ("overlap", "shifting"),
        ("overlap", "replacing"),
        ("overlap", "contend-mixed"),
    ],
)
def test_a_broken_allocator_is_caught(program: Path, shim: Path, promise: str, name: str) -> None:
    done = subprocess.run(
        [program, name, "--rounds", "3"],
        env={**os.environ, "LD_PRELOAD": str(shim), "SHIM_BREAK": promise},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "not as the allocator promised" in done.stderr


@pytest.mark.parametrize("promise", ["calloc", "realloc"])
def test_replay_catches_a_broken_allocator(
    program: Path, shim: Path, tmp_path: Path, promise: str
) -> None:
    path = next(path for path in traces.recorded() if path.name.startswith("groth16"))
    ready = tmp_path / "trace"
    traces.write(traces.load(path), ready)
    done = subprocess.run(
        [program, "replay", "--trace", ready, "--rounds", "1"],
        env={**os.environ, "LD_PRELOAD": str(shim), "SHIM_BREAK": promise},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3


def test_a_budget_ends_a_run(bench: Bench) -> None:
    result = bench("rows-32", "--budget-ms", "1", "--min-rounds", "3")
    assert result["rounds"] == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "which pattern?"),
        (["nonsense"], "no pattern is called 'nonsense'"),
        (["burst", "--rounds", "0"], "--rounds needs a number"),
        (["burst", "--rounds", "-3"], "--rounds needs a number"),
        (["burst", "--rounds"], "--rounds needs a number"),
        (["burst", "--fast"], "cannot read '--fast'"),
    ],
)
def test_bad_usage(program: Path, arguments: list[str], complaint: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"ZK", b"\0" * 200])
def test_replay_refuses_other_files(program: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    done = subprocess.run(
        [program, "replay", "--trace", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not a trace" in done.stderr
