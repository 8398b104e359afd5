# SPDX-License-Identifier: MIT OR Apache-2.0
"""Hostile and odd targets end in one clear line and the right exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.errors import Exit
from zkprof.estimate import Verdict, estimate
from zkprof.measure import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zkprof.model import Measurement

ZKPROF = [sys.executable, "-m", "zkprof"]
BUSY = "print('ready', flush=True)\nwhile True: pass"


@contextmanager
def target(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:  # noqa: ANN401
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def zkprof(*args: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in args]
    return subprocess.run(
        [*ZKPROF, *words], capture_output=True, text=True, timeout=120, check=False
    )


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode in (Exit.OK, Exit.INCONCLUSIVE), done.stderr
    assert "Traceback" not in done.stderr
    return dict(json.loads(done.stdout))


def one_line(done: subprocess.CompletedProcess[str], code: Exit, words: str) -> None:
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("zkprof: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_it_ends_and_is_collected_while_measured() -> None:
    with target(sys.executable, "-c", BUSY) as process:

        def end(m: Measurement) -> None:
            if m.cpu_s > 0.1:
                process.kill()
                process.wait()

        m = measure(process.pid, 60.0, on_tick=end)
    assert m.exited
    assert 0.1 < m.cpu_s < 30


def test_it_ends_before_anything_is_measured() -> None:
    with target(sys.executable, "-c", BUSY) as process:

        def end() -> None:
            process.kill()
            process.wait()

        # What there is to say of nothing is a matter for the verdict.
        m = measure(process.pid, 60.0, on_open=end)
    assert m.exited
    assert estimate(m).verdict is Verdict.INCONCLUSIVE


def test_stopped() -> None:
    with target(sys.executable, "-c", BUSY) as process:
        process.send_signal(signal.SIGSTOP)
        found = report(zkprof(process.pid, "-d", "0.5", "--json", "-"))
        # It was not woken up to be measured.
        assert ") T " in Path(f"/proc/{process.pid}/stat").read_text()
    assert found["estimate"]["verdict"] == "inconclusive"
    assert found["measurement"]["cpu_s"] == 0


def test_it_executes_another_program() -> None:
    code = f"import os\nos.execv({sys.executable!r}, ['python', '-c', {BUSY!r}])"
    with target(sys.executable, "-c", code) as process:
        assert report(zkprof(process.pid, "-d", "0.5", "--json", "-"))


def test_in_a_pid_namespace_of_its_own() -> None:
    unshare = shutil.which("unshare")
    if not unshare or os.geteuid() != 0:
        pytest.skip("needs root and unshare")
    command = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c"]
    try:
        with target(*command, BUSY) as process:
            inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            found = report(zkprof(inside[0], "-d", "0.5", "--json", "-"))
    except AssertionError:
        if subprocess.run([*command, "pass"], check=False, capture_output=True).returncode:
            pytest.skip("no new namespaces may be made here")
        raise
    assert found["measurement"]["target"]["pid"] == int(inside[0])
    assert found["measurement"]["cpu_s"] > 0


def test_a_hundred_threads() -> None:
    code = (
        "import threading\nfor _ in range(100):\n"
        " threading.Thread(target=threading.Event().wait, daemon=True).start()\n" + BUSY
    )
    with target(sys.executable, "-c", code) as process:
        found = report(zkprof(process.pid, "-d", "0.5", "--json", "-"))
    assert found["measurement"]["memory"][-1]["threads"] == 101


def test_a_name_that_plays_tricks(tmp_path: Path) -> None:
    program = tmp_path / "a\x1b[31m\nb) R 1"
    program.symlink_to(sys.executable)
    with target(str(program), "-c", BUSY) as process:
        done = zkprof(process.pid, "-d", "0.3")
    assert done.returncode in (Exit.OK, Exit.INCONCLUSIVE)
    assert "\x1b" not in done.stdout + done.stderr


def test_a_program_whose_file_is_gone(tmp_path: Path) -> None:
    program = tmp_path / "gone"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            program.unlink()
            found = report(zkprof(process.pid, "-d", "0.3", "--json", "-"))
        finally:
            process.kill()
    assert found["measurement"]["target"]["comm"] == "gone"


def test_no_such_process() -> None:
    one_line(zkprof(2**31 - 2), Exit.GONE, "no process")


def test_init_of_this_machine_is_no_crash() -> None:
    done = zkprof(1, "-d", "0.2")
    assert done.returncode in (Exit.OK, Exit.INCONCLUSIVE, Exit.PERMISSION)
    assert "Traceback" not in done.stderr
