# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run the provers' command once for each prover and share what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]

Document = dict[str, Any]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "provers: installs published provers and proves with them (minutes)"
    )


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `python -m benches.provers` in the checkout."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        preload = os.environ.get("ZKN_BENCH_PRELOAD")
        given = ("--preload", preload) if preload else ()
        return subprocess.run(
            [sys.executable, "-m", "benches.provers", *args, *given],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )

    return run


@pytest.fixture(scope="session")
def measured(
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Document]:
    """Return a function that measures one prover on glibc and on libzknalloc, once."""

    @cache  # failures too: a broken prover is not installed once for each test
    def run(prover: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        file = tmp_path_factory.mktemp("provers") / f"{prover}.json"
        done = command(
            *(prover, "--size", "quick", "--proofs", "4", "--rounds", "1"),
            *("--allocators", "glibc,zknalloc", "--json", str(file)),
        )
        return done, file

    def measure(prover: str) -> Document:
        done, file = run(prover)
        if done.returncode != 0:
            pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        document: Document = json.loads(file.read_text())
        return document

    return measure
