# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds the benchmark program, and the shims that tests preload, once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benches import build  # noqa: E402 - needs the path above
from benches.allocators import REGISTRY  # noqa: E402

#: Settings of glibc that spare tests which count calls most of their page faults.
KEEPS = REGISTRY["glibc-tuned"].env

Bench = Callable[..., dict[str, Any]]
Count = Callable[..., int]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build_c(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shim.c as a library to preload."""
    compiler = shutil.which("cc")
    assert compiler, "the tests need a C compiler, cc"
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).parent / "shim.c"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, "-o", library, source], check=True)
    return library


@pytest.fixture(scope="session")
def bench(program: Path) -> Bench:
    """Run the program and return what it printed."""

    def run(*arguments: str, **environment: str) -> dict[str, Any]:
        done = subprocess.run(
            [program, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return run


@pytest.fixture(scope="session")
def count_calls(program: Path, shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Count:
    """Run the program so many rounds and return how many calls reached the allocator."""
    report = tmp_path_factory.mktemp("calls") / "count"

    def count(rounds: int, *arguments: str) -> int:
        subprocess.run(
            [program, *arguments, "--rounds", str(rounds), "--min-rounds", str(rounds)],
            env={**os.environ, **KEEPS, "LD_PRELOAD": str(shim), "SHIM_REPORT": str(report)},
            capture_output=True,
            check=True,
        )
        return int(report.read_text())

    return count
