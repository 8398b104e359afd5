# SPDX-License-Identifier: MIT OR Apache-2.0
"""In a sandbox: no perf events, no ioctl, no file that may be written."""

from __future__ import annotations

import ctypes
import json
import platform
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.zkprof.conftest import deny, possible
from zkprof.errors import Exit
from zkprof.measure import measure
from zkprof.model import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

# Runs for some seconds, and then ends.
PROVER = f"""
import os, runpy, threading
threading.Timer(4.0, os._exit, [0]).start()
runpy.run_path({str(Path(__file__).parent / "targets" / "prover.py")!r}, run_name="__main__")
"""


def zkprof(prepare: Callable[[], None], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zkprof", *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=prepare,
    )


def refuse_ioctl() -> None:
    deny({"x86_64": 16, "aarch64": 29}[platform.machine()])


@pytest.fixture(params=["perf_event_open", "ioctl"])
def refuse(request: pytest.FixtureRequest, refuse_perf: Callable[[], None]) -> Callable[[], None]:
    """Return what has the kernel refuse a call that sampling needs."""
    return refuse_ioctl if request.param == "ioctl" else refuse_perf


def test_what_cannot_be_sampled_is_counted(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    refuse: Callable[[], None],
) -> None:
    with run(compiled("workload"), "mixed") as target:
        m = in_child(lambda: measure(target.pid, 1.0), refuse)
    assert m.method.tier is Tier.PROC
    assert m.method.samples == 0
    assert len(m.method.notes) >= 2
    assert m.cpu_s > 0
    assert m.memory[-1].minor_faults > m.memory[0].minor_faults


def test_the_report_says_why(
    compiled: Callable[..., Path], run: Callable[..., Any], refuse: Callable[[], None]
) -> None:
    with run(compiled("workload"), "mixed") as target:
        done = zkprof(refuse, str(target.pid), "-d", "1", "--json", "-")
    assert done.returncode in {Exit.OK, Exit.INCONCLUSIVE}, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["measurement"]["method"]["tier"] == Tier.PROC


def make_read_only() -> None:
    """Let this process and its children see all file systems as read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, new_user = 0x00020000, 0x10000000
    if libc.unshare(new_mounts) and libc.unshare(new_mounts | new_user):
        raise OSError(ctypes.get_errno(), "no mount namespace may be made")
    mount_setattr, here, recursive, read_only = 442, -100, 0x8000, 1
    change = struct.pack("=QQQQ", read_only, 0, 0, 0)
    if libc.syscall(mount_setattr, here, b"/", recursive, change, len(change)):
        raise OSError(ctypes.get_errno(), "nothing may be mounted again")


@pytest.fixture
def read_only(in_child: Callable[..., Any]) -> Callable[[], None]:
    try:
        in_child(lambda: None, make_read_only)
    except OSError as error:
        pytest.skip(str(error))
    return make_read_only


def test_nothing_needs_to_be_written(read_only: Callable[[], None]) -> None:
    """Not even where py-spy watches, whose results go into a file."""
    done = zkprof(read_only, "run", "--json", "-", "--", sys.executable, "-c", PROVER)
    assert done.returncode == 0, done.stderr
    # What the command says goes to standard output, too.
    m = json.loads(done.stdout.removeprefix("ready\n"))["measurement"]
    assert m["cpu_s"] > 0
    if possible(Tier.KERNEL) is None:
        assert m["method"]["tier"] == Tier.KERNEL
        assert m["python"]["source"] == "py-spy", m["method"]["notes"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--json", "report.json"], "cannot write report.json: Read-only file system"),
        (["--ab", "A=1"], "no folder for what the command prints"),
    ],
)
def test_what_must_be_written_is_refused_first(
    read_only: Callable[[], None], options: list[str], words: str
) -> None:
    done = zkprof(read_only, "run", *options, "--", "echo", "started")
    assert done.returncode == Exit.ERROR
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
