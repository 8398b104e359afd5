# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof demo` on a smaller proof; counters are asserted, never times."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from zkprof.advice import NEVER_TRIM
from zkprof.demo import DemoError, clean_environment, demo
from zkprof.errors import Exit
from zkprof.report import from_json

ROWS = "15"  # the smallest whose buffers are beyond what glibc keeps


@pytest.fixture(scope="session")
def preload() -> Path:
    if named := os.environ.get("ZKPROF_TEST_PRELOAD"):
        return Path(named)
    config = pytest.importorskip("zk_nalloc._config", reason="zk-nalloc is not installed")
    path = config.preload_path()
    assert isinstance(path, Path)
    return path


def test_demo(prover: Path, preload: Path) -> None:
    text, results = io.StringIO(), io.StringIO()
    code = demo(
        Console(file=text, width=80),
        json_file=results,
        log_rows=int(ROWS),
        proofs=3,
        prover=prover,
        preload=preload,
    )
    data = json.loads(results.getvalue())
    prediction = from_json(data["prediction"])
    inconclusive = prediction.estimate.verdict == "inconclusive"
    assert code == (Exit.INCONCLUSIVE if inconclusive else Exit.OK)
    assert data["schema"] == "zkprof-demo/1"

    system, ours, kept = data["series"]
    assert all(len(one["warm"]) == 3 for one in data["series"])
    # LDE and both Merkle trees are faulted in anew by each proof, or never.
    assert system["minor_faults"] > 20_000
    assert ours["minor_faults"] < 0.02 * system["minor_faults"]
    assert kept["minor_faults"] < 0.02 * system["minor_faults"]
    assert ours["hit_rate"] > 0.9
    assert system["hit_rate"] is None
    assert ours["peak_rss_bytes"] < 1.25 * system["peak_rss_bytes"]

    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("CPU time saved    predicted ") for line in lines)
    assert "All proofs were verified." in text.getvalue()


def test_the_baseline_is_not_tuned_by_the_caller() -> None:
    environ = {"LD_PRELOAD": "x", "GLIBC_TUNABLES": "y", "ZK_NALLOC_THP": "0", "HOME": "/h"}
    assert clean_environment(environ | NEVER_TRIM) == {"HOME": "/h"}


FAKES = {
    "rejected": ("print('{\"verified\": false}')", "the verifier rejected a proof"),
    "dies": ("raise SystemExit(9)", "the prover ended early, with exit code 9"),
    "silent": ("pass", "the prover ended early, with exit code 0"),
}


@pytest.mark.parametrize("name", FAKES)
def test_a_prover_that_fails(tmp_path: Path, name: str) -> None:
    code, words = FAKES[name]
    fake = tmp_path / "fake"
    fake.write_text(f"#!{sys.executable}\n{code}\n")
    fake.chmod(0o755)
    (tmp_path / "preload.so").touch()
    with pytest.raises(DemoError, match=words):
        demo(Console(file=io.StringIO()), prover=fake, preload=tmp_path / "preload.so")


def test_a_path_that_ld_preload_cannot_hold(prover: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "preload.so").touch()
    with pytest.raises(DemoError, match="no space or colon"):
        demo(Console(file=io.StringIO()), prover=prover, preload=folder / "preload.so")


def test_no_such_library(prover: Path, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="--preload"):
        demo(Console(file=io.StringIO()), prover=prover, preload=tmp_path / "absent.so")
