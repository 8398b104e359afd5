# SPDX-License-Identifier: MIT OR Apache-2.0
"""Calls that the extension makes of the system fail: an error, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.classify import Classifier, NoKernelSymbolsError
from zkprof.sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = Path(__file__).parent / "targets"
MEMORY = {"malloc", "calloc", "reallocarray"}


@pytest.fixture(scope="module")
def fail(
    tmp_path_factory: pytest.TempPathFactory,
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[[str], dict[str, Any]]:
    """Return a function that runs a scenario of faults.py under faults.c."""
    shim = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O1", "-fno-builtin", "-shared", "-fPIC"]
    flags = ["-Wall", "-Wextra", "-Werror", "-o", str(shim)]
    subprocess.run([*command, str(TARGETS / "faults.c"), *flags], check=True)

    def fail(scenario: str) -> dict[str, Any]:
        done = python(str(TARGETS / "faults.py"), scenario, LD_PRELOAD=str(shim))
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return fail


def test_reading(fail: Callable[[str], dict[str, Any]]) -> None:
    found = fail("reading")
    assert found["injected"].keys() == MEMORY | {"mmap", "fopen"}
    for function in ("calloc", "reallocarray", "malloc"):
        assert "well" not in found["ends"][function], "nothing here goes on without memory"
    assert "NoKernelSymbolsError" in found["ends"]["fopen"]


@pytest.mark.parametrize("scenario", ["kernel", "user"])
def test_sampling(fail: Callable[[str], dict[str, Any]], scenario: str) -> None:
    try:
        Sampler(os.getpid(), classifier=Classifier() if scenario == "kernel" else None).close()
    except (NoKernelSymbolsError, PerfUnavailableError) as error:
        pytest.skip(f"cannot be sampled here: {error}")
    found = fail(scenario)
    system = {"syscall", "ioctl", "mmap", "opendir", "fopen", "poll"}
    assert found["injected"].keys() == MEMORY | system
    assert found["ends"]["syscall"]["PerfUnavailableError"] > 3
    assert found["ends"]["malloc"]["MemoryError"] > 3
    assert found["ends"]["poll"].keys() == {"well", "OSError"}
    assert found["ends"]["fopen"].keys() == {"well"}, "these say more, but are not needed"
