# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command line: exit codes, one clear line for every mistake, JSON, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.cli import main
from zkprof.errors import Exit
from zkprof.model import Kind, Measurement
from zkprof.report import Report, dump, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ZKPROF = [sys.executable, "-m", "zkprof"]
NO_SUCH_PID = "2147483646"


@contextmanager
def busy() -> Iterator[subprocess.Popen[str]]:
    """Run a process that only computes."""
    code = "print('ready', flush=True)\nwhile True: pass"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    return subprocess.run(
        [*ZKPROF, *args], capture_output=True, text=True, timeout=60, check=False, **options
    )


def code_of(*args: str) -> int:
    """Return the exit code, whichever way `main` ends."""
    try:
        return main(list(args))
    except SystemExit as end:
        return int(end.code or 0)


# ---------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["prover"], "'prover' is neither a process number nor a command (attach, run"),
        (["0"], "'0' is neither a process number"),
        (["-1"], "see zkprof"),
        (["99999999999"], "neither a process number"),
        ([], "give a process (zkprof PID) or a command"),
        (["attach"], "PID"),
        (["1", "2"], "unrecognized arguments: 2"),
        (["1", "-d", "0"], "'0' is no duration: give seconds, from 0.1 to 86400"),
        (["1", "-d", "-5"], "see zkprof"),
        (["1", "-d", "nan"], "'nan' is no duration"),
        (["1", "-d", "inf"], "'inf' is no duration"),
        (["1", "-d", "soon"], "'soon' is no duration"),
        (["1", "--rate", "0"], "'0' is no rate: give samples a second, from 1 to 10000"),
        (["1", "--rate", "1e9"], "'1e9' is no rate"),
        (["run"], "what is to be run?"),
        (["run", "--"], "what is to be run?"),
        (["demo", "--log-rows", "5"], "'5' is no whole number from 6 to 22"),
        (["demo", "--prover", "/nonexistent"], "command not found"),
        (["report"], "zkprof report: the following arguments are required: FILE"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str], words: str
) -> None:
    if "demo" in args:
        preload = tmp_path / "preload.so"
        preload.touch()
        args = [*args, "--preload", str(preload)]
    code = code_of(*args)
    error = capsys.readouterr().err
    assert code == (127 if "not found" in words else Exit.ERROR)
    assert words in error
    assert error.count("\n") == 1
    assert error.startswith("zkprof")


def test_help_documents_exit_codes_and_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--help") == 0
    text = capsys.readouterr().out
    for code in Exit:
        assert f"\n  {code.value}  " in text
    for verdict in ("allocation-bound", "allocation-heavy", "growth-bound", "inconclusive"):
        assert verdict in text
    assert all(len(line) <= 80 for line in text.splitlines())


# -------------------------------------------------------------------- targets


def test_no_such_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(NO_SUCH_PID) == Exit.GONE
    error = capsys.readouterr().err
    assert error.startswith(f"zkprof: no process {NO_SUCH_PID}")
    assert error.count("\n") == 1


def test_kernel_thread(capsys: pytest.CaptureFixture[str]) -> None:
    is_kernel_thread = 0x00200000  # PF_KTHREAD
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        if int(fields[6]) & is_kernel_thread:
            break
    else:
        pytest.skip("no kernel thread is visible in this container")
    assert code_of(stat.parent.name) == Exit.GONE
    assert "is a kernel thread" in capsys.readouterr().err


def test_zombie(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert code_of(str(process.pid)) == Exit.GONE
    assert "has ended" in capsys.readouterr().err


def test_another_users_process(in_child: Callable[..., Any], drop: Callable[[], None]) -> None:
    with busy() as process:
        assert in_child(lambda: code_of(str(process.pid), "-d", "0.2"), drop) == Exit.PERMISSION


# --------------------------------------------------------------------- attach


def test_attach(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with busy() as process:
        done = run(str(process.pid), "-d", "3", "--json", str(file))
    report = load(file)
    assert done.returncode in (Exit.OK, Exit.INCONCLUSIVE), done.stderr
    assert done.stdout.splitlines()[0].startswith(f"zkprof {process.pid} ")
    assert "\x1b" not in done.stdout + done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    # It computes: there is nothing to save, if there was CPU time to see it.
    assert report.estimate.saving_cpu.mid < 0.05
    verdict = {Exit.OK: "not allocation-bound", Exit.INCONCLUSIVE: "inconclusive"}
    assert report.estimate.verdict == verdict[Exit(done.returncode)]


def test_json_on_standard_output_stands_alone() -> None:
    with busy() as process:
        done = run("attach", str(process.pid), "-d", "0.3", "--json", "-")
    assert json.loads(done.stdout)["schema"] == "zkprof/1"
    assert done.returncode == Exit.INCONCLUSIVE  # 0.3 s are too few samples


def test_options_may_come_first() -> None:
    with busy() as process:
        done = run("-d", "0.2", "--rate", "500", str(process.pid), "--json", "-")
    assert json.loads(done.stdout)["measurement"]["target"]["pid"] == process.pid


def test_ctrl_c_ends_the_window_and_reports() -> None:
    with busy() as process:
        began = time.monotonic()
        with subprocess.Popen(
            [*ZKPROF, str(process.pid), "-d", "600", "--json", "-"],
            stdout=subprocess.PIPE,
            text=True,
        ) as zkprof:
            # It holds the target's directory open while it measures.
            wait_for(lambda: f"/proc/{process.pid}" in open_files(zkprof.pid))
            time.sleep(0.5)
            zkprof.send_signal(signal.SIGINT)
            text, _ = zkprof.communicate(timeout=60)
    assert zkprof.returncode in (Exit.OK, Exit.INCONCLUSIVE)
    assert 0 < json.loads(text)["measurement"]["duration_s"] < time.monotonic() - began


def open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen in 20 s")


def test_a_file_that_cannot_be_written_is_known_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = code_of(str(os.getpid()), "-d", "600", "--json", str(tmp_path / "no" / "x.json"))
    assert code == Exit.ERROR
    assert "cannot write" in capsys.readouterr().err


def test_a_failure_leaves_files_as_they_were(tmp_path: Path) -> None:
    fresh, old = tmp_path / "fresh", tmp_path / "old"
    old.write_text("precious")
    assert code_of(NO_SUCH_PID, "--json", str(fresh)) == Exit.GONE
    assert code_of(NO_SUCH_PID, "--json", str(old)) == Exit.GONE
    assert not fresh.exists()
    assert old.read_text() == "precious"


def test_an_old_report_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text("x" * 100_000)
    with busy() as process:
        run(str(process.pid), "-d", "0.2", "--json", str(file))
    assert load(file).measurement.target.pid == process.pid


# ------------------------------------------------------------------------ run


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["true"], 0),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["/nonexistent/command"], 127),
        (["/"], 126),
    ],
)
def test_run_passes_the_exit_code_on(command: list[str], code: int) -> None:
    assert run("run", "--", *command).returncode == code


def test_run_keeps_out_of_the_commands_output(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    script = "import time; t = time.process_time()\nwhile time.process_time() < t + 2.5: pass"
    command = [sys.executable, "-c", f"print('mine')\n{script}"]
    done = run("run", "--json", str(file), "--", *command)
    assert (done.returncode, done.stdout) == (0, "mine\n")
    assert "NOT ALLOCATION-BOUND" in done.stderr
    report = load(file)
    assert report.measurement.exited
    # Attaching takes a moment, in which the command already runs.
    assert 1.0 < report.measurement.cpu_s <= 2.6


def test_run_stops_measuring_before_the_command_ends(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    done = run("run", "-d", "0.3", "--json", str(file), "--", "sh", "-c", "sleep 1.5; exit 3")
    assert done.returncode == 3
    assert not load(file).measurement.exited


def test_run_takes_the_commands_own_options(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    done = run("run", "--json", str(file), "--", "sh", "-c", "echo $1 $2", "x", "-d", "--json")
    assert done.stdout == "-d --json\n"


# --------------------------------------------------------------------- report


def test_report_shows_what_was_saved(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, measurement: Callable[..., Measurement]
) -> None:
    file = tmp_path / "r.json"
    file.write_text(dump(Report.of(measurement({Kind.FAULT_ANON: 0.5}))))
    assert code_of("report", str(file)) == Exit.OK
    assert "ALLOCATION-BOUND" in capsys.readouterr().out
    file.write_text(dump(Report.of(measurement(samples=1))))
    assert code_of("report", str(file)) == Exit.INCONCLUSIVE


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": "zkprof/1"}'])
def test_report_of_another_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "r.json"
    file.write_text(text)
    assert code_of("report", str(file)) == Exit.ERROR
    error = capsys.readouterr().err
    assert "is no report" in error
    assert error.count("\n") == 1


def test_a_reader_that_has_had_enough(
    tmp_path: Path, measurement: Callable[..., Measurement]
) -> None:
    file = tmp_path / "r.json"
    file.write_text(dump(Report.of(measurement())))
    with subprocess.Popen(
        [*ZKPROF, "report", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as zkprof:
        assert zkprof.stdout
        assert zkprof.stderr
        zkprof.stdout.close()
        assert "Traceback" not in zkprof.stderr.read()
