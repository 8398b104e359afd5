# SPDX-License-Identifier: MIT OR Apache-2.0
"""The demonstration prover: its C tests, and its command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "profiler" / "demo"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the prover and its tests with CMake, warnings being errors."""
    cmake = shutil.which("cmake")
    assert cmake, "cmake is needed to build the prover: pip install cmake"
    build = tmp_path_factory.mktemp("demo")
    subprocess.run(
        [cmake, "-S", DEMO, "-B", build, "-DDEMO_WERROR=ON", "-DDEMO_TESTS=ON"], check=True
    )
    subprocess.run([cmake, "--build", build, "-j", str(os.cpu_count())], check=True)
    return build


def prover(built: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [built / "zkprof-demo-prover", *args], capture_output=True, text=True, check=False
    )


def test_the_c_tests(built: Path) -> None:
    done = subprocess.run(
        ["ctest", "--test-dir", built, "--output-on-failure", "--no-tests=error"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_line_of_json_for_each_proof(built: Path, threads: str) -> None:
    done = prover(built, "--log-rows", "7", "--proofs", "3", "--threads", threads, "--json")
    assert done.returncode == 0
    *proofs, summary = map(json.loads, done.stdout.splitlines())
    assert [proof["proof"] for proof in proofs] == [0, 1, 2]
    assert all(proof["verified"] is True for proof in proofs)
    assert all(proof["seconds"] > 0 and proof["minor_faults"] >= 0 for proof in proofs)
    assert summary["proofs"] == summary["verified"] == 3
    assert summary["peak_rss_bytes"] > 1_000_000


def test_lines_for_people(built: Path) -> None:
    done = prover(built, "--log-rows", "6", "--proofs", "2")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("2 of 2 proofs verified, peak memory ")


def test_paced_by_its_input(built: Path) -> None:
    with subprocess.Popen(
        [built / "zkprof-demo-prover", "--log-rows", "6", "--paced", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        for number in range(3):
            process.stdin.write("\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["proof"] == number
        process.stdin.close()
        assert json.loads(process.stdout.readline())["verified"] == 3
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--log-rows", "5"], "--log-rows takes a whole number from 6 to 22, not '5'"),
        (["--log-rows", "23"], "from 6 to 22"),
        (["--proofs", "0"], "--proofs takes a whole number from 1 to 1000000"),
        (["--threads", "two"], "--threads takes a whole number from 1 to 64, not 'two'"),
        (["--threads", "99999999999999999999999"], "from 1 to 64"),
        (["--threads", ""], "from 1 to 64"),
        (["file"], "'file' is no option"),
        (["--what"], "unrecognized option"),
    ],
)
def test_wrong_usage(built: Path, args: list[str], words: str) -> None:
    done = prover(built, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_memory_that_there_is_not(built: Path) -> None:
    limited = f"ulimit -v 200000; exec {built}/zkprof-demo-prover --log-rows 16"
    done = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    assert "fewer --log-rows" in done.stderr
