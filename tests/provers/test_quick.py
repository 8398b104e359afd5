# SPDX-License-Identifier: MIT OR Apache-2.0
"""Provers that we did not write, proving on glibc and on libzknalloc.

What is asserted are verified proofs and counters, never a time.  A prover that
cannot be installed fails these tests: they are the reason for the library.
The others run by `python -m benches.provers`.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Document

pytestmark = pytest.mark.provers

QUICK = ("lean-multisig", "groth16")
MIB = 1 << 20


def summary(document: Document, allocator: str) -> dict[str, Any]:
    """Return the one row of this allocator."""
    (row,) = (row for row in document["summary"] if row["allocator"] == allocator)
    found: dict[str, Any] = row
    return found


def only_run(document: Document, allocator: str) -> dict[str, Any]:
    """Return the one process that ran on this allocator."""
    (run,) = (run for run in document["runs"] if run["allocator"] == allocator)
    found: dict[str, Any] = run
    return found


@pytest.mark.parametrize("prover", QUICK)
@pytest.mark.parametrize("allocator", ["glibc", "zknalloc"])
def test_every_proof_is_accepted_by_the_provers_own_verifier(
    measured: Callable[[str], Document], prover: str, allocator: str
) -> None:
    run = only_run(measured(prover), allocator)
    assert [proof["verified"] for proof in run["proofs"]] == [True] * 4


@pytest.mark.parametrize("prover", QUICK)
def test_only_the_preloaded_process_has_counters(
    measured: Callable[[str], Document], prover: str
) -> None:
    document = measured(prover)
    assert only_run(document, "glibc")["library"] is None
    library = only_run(document, "zknalloc")["library"]
    assert library["hits"] > 100
    assert library["fallback_system"] == 0


@pytest.mark.parametrize("prover", QUICK)
def test_warm_proofs_hit_the_cache(measured: Callable[[str], Document], prover: str) -> None:
    row = summary(measured(prover), "zknalloc")
    assert row["hit_rate_of"] == "warm proofs"
    assert row["hit_rate"] >= 0.95


def test_lean_multisig_asks_for_buffers_beyond_the_32_mib_cliff(
    measured: Callable[[str], Document],
) -> None:
    """glibc keeps mapping and unmapping those; without them this test shows nothing."""
    classes = only_run(measured("lean-multisig"), "zknalloc")["library"]["classes"]
    large = [row for row in classes if row["size"] >= 32 * MIB]
    assert sum(row["hits"] + row["misses"] for row in large) >= 12


def test_lean_multisig_stops_faulting(measured: Callable[[str], Document]) -> None:
    document = measured("lean-multisig")
    before = summary(document, "glibc")["minor_faults"]
    after = summary(document, "zknalloc")["minor_faults"]
    assert before > 50_000
    assert after < before / 30


def test_groth16_stops_faulting(measured: Callable[[str], Document]) -> None:
    """Most of its faults come from glibc's small heap, which the library must not spoil."""
    document = measured("groth16")
    assert summary(document, "zknalloc")["minor_faults"] < 500


@pytest.mark.skipif(shutil.which("node") is None, reason="Barretenberg needs Node.js")
def test_barretenberg_proves_and_verifies_on_both(measured: Callable[[str], Document]) -> None:
    document = measured("barretenberg")
    for allocator in ("glibc", "zknalloc"):
        assert all(proof["verified"] for proof in only_run(document, allocator)["proofs"])
    row = summary(document, "zknalloc")
    assert row["hit_rate_of"] == "warm proofs", "zkprof reads them in the child"
    assert row["hit_rate"] >= 0.95


@pytest.mark.parametrize(
    ("prover", "program", "size", "proofs", "allocator", "reason"),
    [
        ("snarkjs", "node", "4000", "8", "v8", "JavaScript"),
        # A third of a second each: zkprof must be there before the last one ends.
        ("gnark", "go", "10000", "30", "go", "Go programs take memory from the kernel themselves"),
    ],
)
def test_zkprof_says_that_preloading_cannot_help(
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    prover: str,
    program: str,
    size: str,
    proofs: str,
    allocator: str,
    reason: str,
) -> None:
    """Negative controls: WebAssembly memory and Go's heap never come from malloc."""
    if shutil.which(program) is None:
        pytest.skip(f"{prover} needs {program}")
    done = command(
        *(prover, "--size", size, "--proofs", proofs, "--rounds", "1"),
        *("--allocators", "glibc", "--zkprof", "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "results.json").read_text())
    (said,) = document["profiles"]
    assert (said["allocator"], said["preloadable"]) == (allocator, False)
    assert reason in said["preload_reason"]
    assert not any(item.startswith("preload:") for item in said["advice"])
    assert {one["aim"]: one["verdict"] for one in document["aims"]} == {"says no help": "met"}
