# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.numpy`: its work is right, its arithmetic too, and it says what is missing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benches.numpy import report, workloads
from benches.numpy.__main__ import main
from benches.numpy.runner import INSTALL, LIMIT, Run

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

SMALL = [
    workloads.multiply_add(4096, modular=True),
    workloads.multiply_add(4096, modular=False),
    workloads.numpy_ntt(1, 1),
    workloads.numpy_ntt(6, 3),
    workloads.msm(10),
    workloads.galois_ntt(8),
    workloads.galois_rs(14),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_rounds_are_right_and_checks_notice(case: workloads.Case) -> None:
    if case.needs:
        pytest.importorskip(case.needs)
    one_round = case.prepare()
    result = one_round()
    case.check(result)
    case.check(one_round())
    wrong = np.asarray(result).copy()
    wrong.flat[0] += wrong.flat[0] // 2 + 1
    with pytest.raises(AssertionError):
        case.check(wrong[()])


@pytest.mark.parametrize("case", SMALL[:2], ids=lambda case: case.name)
def test_the_limit_is_the_same_work(case: workloads.Case) -> None:
    assert case.prepare_limit
    case.check(case.prepare_limit()())


def run(case: str, allocator: str, repetition: int, *cpu_ms: int, faults: int = 0) -> Run:
    nanoseconds = tuple(value * 1_000_000 for value in cpu_ms)
    counts = (1000, *[faults] * (len(cpu_ms) - 1))
    return Run(case, allocator, repetition, nanoseconds, nanoseconds, counts, 2048)


def test_figures_are_medians_of_warm_rounds_and_of_ratios() -> None:
    runs = [
        run("float-32M", "glibc", 0, 99, 10, 12, 11, faults=7),
        run("float-32M", INSTALL, 0, 99, 5, 5, 5),
        run("float-32M", "glibc", 1, 99, 30, 30, 30, faults=9),
        run("float-32M", INSTALL, 1, 99, 10, 10, 10),
    ]
    glibc, ours = report.summarise(runs)
    assert (glibc.cpu_ms, glibc.faults, glibc.cold_faults, glibc.peak_mib) == (20.5, 8, 1000, 2)
    assert (glibc.speed, glibc.rounds, glibc.processes) == (1, 6, 2)
    assert ours.speed == pytest.approx((11 / 5 + 3) / 2)
    assert ours.spread == pytest.approx(5 / 7.5)


def test_targets() -> None:
    runs = [
        run("float-32M", "glibc", 0, 1, 14),
        run("float-32M", INSTALL, 0, 1, 10),
        run("float-32M", LIMIT, 0, 1, 7),
        run("float-1M", "glibc", 0, 1, 99),
        run("float-1M", INSTALL, 0, 1, 100),
    ]
    big, small = report.judge(report.summarise(runs))
    assert (big.case, big.met, big.limit) == ("float-32M", False, 2)
    assert (small.case, small.met, small.limit) == ("float-1M", True, None)
    assert report.judge(report.summarise(runs[:1])) == []


def test_command(tmp_path: Path, root: Path) -> None:
    out = ["--json", str(tmp_path / "out.json"), "--csv", str(tmp_path / "out.csv")]
    quick = ["--repetitions", "1", "--seconds", "0.01", "--rounds", "3"]
    chosen = ["float-64M", "--allocators", f"limit,glibc,{INSTALL}"]
    done = subprocess.run(
        [sys.executable, "-m", "benches.numpy", *chosen, *quick, *out],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    with (tmp_path / "out.csv").open() as file:
        rows = {row["allocator"]: row for row in csv.DictReader(file)}
    assert set(rows) == {LIMIT, "glibc", INSTALL}
    # glibc takes 64 MiB from the kernel in each round: 31 whole huge pages at least.
    assert float(rows["glibc"]["faults"]) >= 31
    assert float(rows[INSTALL]["faults"]) < 10
    assert float(rows[INSTALL]["cold_faults"]) > 0
    assert float(rows["glibc"]["peak_mib"]) > 4 * 64
    document = json.loads((tmp_path / "out.json").read_text())
    assert [target["case"] for target in document["targets"]] == ["float-64M"]
    assert len(document["runs"]) == 3
    assert document["missing"] == document["failed"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonesuch"], "unknown case nonesuch: choose from float-16K"),
        (
            ["float-1M", "--allocators", "dlmalloc"],
            "no allocator is called 'dlmalloc'; known are: ",
        ),
        (["--allocators", "rust-mimalloc"], "rust-mimalloc: Rust crates cannot be preloaded"),
        (["--rounds", "1"], "--rounds 2: the first is cold"),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_what_is_missing_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    arguments = ["galois-ntt-2^20", "--allocators", "glibc"]
    assert main(arguments) == 3
    assert "missing: galois-ntt-2^20: galois is not installed: pip" in capsys.readouterr().out
    assert main([*arguments, "--allow-missing"]) == 0
