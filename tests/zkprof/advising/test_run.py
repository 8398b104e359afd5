# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof run`: from the first instruction on, and without the command noticing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.ab import Cost, Trial, variables
from zkprof.cli import main
from zkprof.errors import Exit
from zkprof.report import load

if TYPE_CHECKING:
    from collections.abc import Callable

ZKPROF = [sys.executable, "-m", "zkprof"]
MIB = 1 << 20

# Touches SIZE MiB of fresh memory ROUNDS times, computes, and ends.
CHURN = """
#include <stdlib.h>
int main(int argc, char **argv)
{
    size_t n = (size_t)atoi(argv[1]) << 20;
    for (int round = 0; round < atoi(argv[2]); round++) {
        volatile char *p = malloc(n);
        for (size_t i = 0; i < n; i += 4096)
            p[i] = 1;
        volatile unsigned x = 1;
        for (int i = 0; i < 20000000; i++)
            x = x * 3 + 1;
        free((void *)p);
    }
    return argc > 3 ? atoi(argv[3]) : 0;
}
"""


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("churn") / "churn"
    source = program.with_suffix(".c")
    source.write_text(CHURN)
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-o", program, source], check=True)
    return str(program)


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    return subprocess.run(
        [*ZKPROF, *args], capture_output=True, text=True, timeout=120, check=False, **options
    )


def test_nothing_is_missed(churn: str, tmp_path: Path) -> None:
    # All that it does it does in its first moments.
    file = tmp_path / "r.json"
    assert run("run", "--json", str(file), "--", churn, "256", "1").returncode == 0
    m = load(file).measurement
    assert m.target.comm == "churn"
    assert m.target.exe == churn
    assert m.memory[0].rss < 16 * MIB
    faults = m.memory[-1].minor_faults - m.memory[0].minor_faults
    assert faults >= 256 * MIB // 4096 or m.exited


def test_the_command_finds_nothing_of_ours() -> None:
    script = (
        "import os, json; print(json.dumps([sorted(os.listdir('/proc/self/fd')), "
        "sorted(os.environ), os.getppid() == int(os.environ['PARENT'])]))"
    )
    command = [sys.executable, "-c", script]
    env = os.environ | {"PARENT": "0"}
    plain = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    ours = run("run", "--", *command, env=env)
    # A shell sets some variables for itself, and passes them on.
    added = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    fds, names, _ = json.loads(ours.stdout)
    plain_fds, plain_names, _ = json.loads(plain.stdout)
    assert fds == plain_fds
    assert set(names) - added == set(plain_names) - added


def test_it_reads_its_own_input() -> None:
    assert run("run", "--", "cat", input="one\ntwo\n").stdout == "one\ntwo\n"


def test_words_are_passed_as_they_are() -> None:
    words = ["a b", "$HOME", "`x`", "-c", "", "--", "é"]
    code = "import sys; print(sys.argv[1:])"
    done = run("run", "--", sys.executable, "-c", code, *words)
    assert done.stdout == f"{words}\n"


def test_a_zkprof_that_dies_lets_it_go_on(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with subprocess.Popen(
        [*ZKPROF, "run", "--", "sh", "-c", f"echo done > {mark}"], stderr=subprocess.DEVNULL
    ) as zkprof:
        children = Path(f"/proc/{zkprof.pid}/task/{zkprof.pid}/children")
        for _ in range(2000):
            if children.read_text().strip():
                break
            time.sleep(0.005)
        zkprof.kill()
    for _ in range(500):
        if mark.exists() and mark.read_text() == "done\n":
            return
        time.sleep(0.02)
    pytest.fail("the command never ran")


@pytest.mark.parametrize("how", ["missing", "directory", "not executable"])
def test_what_cannot_be_executed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "command"
    if how == "directory":
        path.mkdir()
    elif how == "not executable":
        path.write_text("#!/bin/sh\n")
    done = run("run", "--", str(path))
    assert done.returncode == (127 if how == "missing" else 126)
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr


def test_a_command_that_is_killed_at_once() -> None:
    done = run("run", "--", "sh", "-c", "kill -KILL $$")
    assert done.returncode == 128 + signal.SIGKILL


# ----------------------------------------------------------------------- --ab


def test_a_and_b(churn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ab.json"
    args = ["--pairs", "3", "--json", str(file), "--ab", "libzknalloc SECRET=hush"]
    assert main(["run", *args, "--", churn, "40", "12"]) == Exit.OK
    text = capsys.readouterr().out
    assert "B: LD_PRELOAD, SECRET" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    data = json.loads(file.read_text())
    assert "hush" not in file.read_text()
    assert data["schema"] == "zkprof-ab/1"
    assert data["changed"] == ["LD_PRELOAD", "SECRET"]
    assert len(data["pairs"]) == 3
    for pair in data["pairs"]:
        assert pair["a"]["minor_faults"] > 12 * 40 * MIB // 4096
        assert pair["b"]["minor_faults"] < 2 * 40 * MIB // 4096
        assert pair["a"]["wall_s"] > 0
    assert data["saved_cpu"]["low"] <= data["saved_cpu"]["mid"] <= data["saved_cpu"]["high"]
    if data["predicted_cpu"]:
        # Eleven of twelve rounds could do without faults.
        assert data["predicted_cpu"]["high"] > 0.05


def test_a_failing_command_has_no_times(churn: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sh", "-c", f"echo what went wrong; {churn} 1 1 3"]
    assert main(["run", "--ab", "X=1", "--", *command]) == Exit.ERROR
    error = capsys.readouterr().err
    assert "failed with exit code 3" in error
    assert "what went wrong" in error


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "name what to change: libzknalloc, or NAME=VALUE"),
        ("libzk", "'libzk' is no NAME=VALUE, and not libzknalloc"),
        ("1X=2", "'1X=2' is no NAME=VALUE"),
        ("A='b", "No closing quotation"),
    ],
)
def test_what_is_no_change(value: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "--ab", value, "--", "true"])
    assert end.value.code == Exit.ERROR
    assert words in capsys.readouterr().err


def test_variables() -> None:
    assert variables("A=1 B='x y' C=") == {"A": "1", "B": "x y", "C": ""}
    assert variables("libzknalloc")["LD_PRELOAD"].endswith("libzknalloc_preload.so")


def trial(*pairs: tuple[float, float]) -> Trial:
    made = Trial()
    for a, b in pairs:
        made.a.append(Cost(a, a, 0))
        made.b.append(Cost(b, b, 0))
    return made


def cpu(cost: Cost) -> float:
    return cost.cpu_s


def test_savings_are_judged_by_pairs() -> None:
    # The machine slowed down by half: the pairs still agree.
    saved = trial((1, 0.8), (2, 1.6), (4, 3.2)).saved(cpu)
    assert (saved.low, saved.mid, saved.high) == pytest.approx((0.2, 0.2, 0.2))
    noisy = trial((1, 0.8), (1, 1.3), (1, 1.0), (1, 0.9), (1, 1.2)).saved(cpu)
    assert noisy.low < 0 < noisy.high


def test_no_time_no_saving() -> None:
    assert trial((0, 0), (0, 0), (0, 0)).saved(cpu).mid == 0.0
    assert trial((0, 0)).predicted() is None


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (((1, 0.5), (1, 0.5), (1, 0.5)), "B saves CPU time."),
        (((1, 1.5), (1, 1.5), (1, 1.5)), "B costs CPU time."),
        (((1, 0.9), (1, 1.1), (1, 1.0)), "No difference in CPU time"),
    ],
)
def test_the_verdict_on_b(pairs: tuple[tuple[float, float], ...], words: str) -> None:
    from zkprof.ab import _verdict

    assert words in _verdict(trial(*pairs))


def test_predictions_come_from_the_runs_of_a(measurement: Callable[..., Any]) -> None:
    from zkprof.model import Kind
    from zkprof.report import Report

    made = trial((1, 0.5), (1, 0.5), (1, 0.5))
    made.reports = [Report.of(measurement({Kind.FAULT_ANON: share})) for share in (0.1, 0.4, 0.5)]
    predicted = made.predicted()
    assert predicted is not None
    assert predicted[0].mid == pytest.approx(0.4)
