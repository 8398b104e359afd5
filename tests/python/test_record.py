# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zk-nalloc record`: every large request is there, once, in an order that can be replayed."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zk_nalloc
from benches import traces
from zk_nalloc import _config, _record

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the program whose requests are known."""
    compiler = shutil.which("cc")
    assert compiler, "the tests need a C compiler, cc"
    binary = tmp_path_factory.mktemp("recorded") / "recorded"
    source = Path(__file__).with_name("recorded.c")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", binary]
    subprocess.run([compiler, source, *flags], check=True)
    return str(binary)


@pytest.fixture
def record(python: Callable[..., CompletedProcess[str]], tmp_path: Path) -> Command:
    """Return a function that records a command into trace.csv."""

    def run(*command: str, options: tuple[str, ...] = (), **environ: str) -> CompletedProcess[str]:
        output = ("-o", str(tmp_path / "trace.csv"))
        return python("-m", "zk_nalloc.cli", "record", *output, *options, "--", *command, **environ)

    return run


def test_every_kind_of_call(record: Command, program: str, tmp_path: Path) -> None:
    done = record(program, "calls")
    assert done.returncode == 0, done.stderr
    head, *lines = (tmp_path / "trace.csv").read_text().splitlines()
    assert head == "t_us,tid,op,size,aux,id"
    rows = [line.split(",") for line in lines]
    times = [int(row[0]) for row in rows]
    assert times == sorted(times)
    assert times[0] == 0
    usable = rows[4][4]
    assert 1000 <= int(usable) < 1100
    assert [row[1:] for row in rows] == [
        ["1", "m", "100000", "0", "1"],
        ["1", "c", "100000", "0", "2"],
        ["1", "a", "65536", "4096", "3"],
        ["1", "r", "300000", "100000", "1"],
        ["1", "g", "70000", usable, "4"],
        ["1", "f", "100000", "0", "2"],
        ["1", "f", "65536", "0", "3"],
        ["1", "r", "80000", "70000", "4"],
        ["1", "f", "300000", "0", "1"],
    ]
    assert "6 requests of recorded (process " in done.stderr
    assert "threads: 1, in use at most: 0.5 MiB" in done.stderr


@pytest.mark.parametrize("stacked", [False, True])
def test_threads_that_pass_blocks_around(
    record: Command, program: str, tmp_path: Path, *, stacked: bool
) -> None:
    environ = {"LD_PRELOAD": str(zk_nalloc.preload_path())} if stacked else {}
    done = record(program, "threads", **environ)
    assert done.returncode == 0, done.stderr
    trace = traces.load(tmp_path / "trace.csv")  # refuses what contradicts itself
    assert trace.threads == 5  # the main one frees what is left
    assert trace.never_freed == 0
    assert trace.slots == 4 * 2000
    frees = sum(call.op == "f" for call in trace.calls)
    assert frees == trace.slots
    assert trace.requests > trace.slots, "some were reallocated"


def test_long_recordings(record: Command, program: str, tmp_path: Path) -> None:
    """More calls than a window of the file holds, and the command's exit code."""
    done = record(program, "windows", "50000", "7")
    assert done.returncode == 7, done.stderr
    trace = traces.load(tmp_path / "trace.csv")
    assert (trace.requests, trace.slots, trace.live_peak) == (50000, 50000, 65536)


def test_many_live_blocks(record: Command, program: str, tmp_path: Path) -> None:
    """So many that they are looked for in a table that has grown, and full of gaps."""
    assert record(program, "live", "8000").returncode == 0
    trace = traces.load(tmp_path / "trace.csv")
    assert (trace.requests, trace.slots, trace.never_freed) == (8000, 8000, 0)
    assert trace.live_peak == 8000 * 65536
    order = [call.slot for call in trace.calls if call.op == "f"]
    assert len(set(order)) == 8000


def test_a_limit_of_file_sizes_ends_the_recording_only(
    record: Command, program: str, tmp_path: Path
) -> None:
    """Where the disk is full, it is the same; a signal must not end the program."""
    command = f"ulimit -f 3072 && exec {program} windows 50000 7"
    done = record("/bin/sh", "-c", command)
    assert done.returncode == 7, done.stderr
    assert done.stderr.count("extending") == 1
    assert "recording of process" in done.stderr
    trace = traces.load(tmp_path / "trace.csv")
    assert 10000 < trace.requests < 50000


def test_a_forked_child_is_another_process(record: Command, program: str, tmp_path: Path) -> None:
    done = record(program, "fork")
    assert done.returncode == 0, done.stderr
    trace = traces.load(tmp_path / "trace.csv")
    sizes = [call.size for call in trace.calls if call.op == "m"]
    assert sizes == [111111] + [333333] * 9
    assert trace.never_freed == 0
    assert "other processes left out: 1, of 6 calls at most" in done.stderr


def test_what_was_recorded_outlives_the_process(
    record: Command, program: str, tmp_path: Path
) -> None:
    done = record(program, "kill")
    assert done.returncode == 128 + 9
    trace = traces.load(tmp_path / "trace.csv")
    assert [(call.op, call.size) for call in trace.calls] == [("m", 99999), ("f", 99999)]


def test_nothing_to_record(record: Command, program: str, tmp_path: Path) -> None:
    done = record(program, "small")
    assert done.returncode == 125
    assert done.stderr == "zk-nalloc: nothing recorded: no request of 64 KiB or more\n"
    assert not (tmp_path / "trace.csv").exists()


def test_bad_usage(record: Command, program: str) -> None:
    done = record()
    assert done.returncode == 2
    assert done.stderr == "zk-nalloc: no command given; write zk-nalloc record -- CMD [ARG ...]\n"
    assert record("no-such-command").returncode == 127
    done = record(program, "calls", options=("--after", "soon"))
    assert done.returncode == 2
    assert "'soon' is not a number of seconds" in done.stderr
    done = record(program, "calls", options=("-o", "/nowhere/trace.csv"))
    assert done.returncode == 125
    assert done.stderr == "zk-nalloc: cannot write /nowhere/trace.csv: No such file or directory\n"


@pytest.mark.parametrize(
    ("folder", "failed"), [("/nowhere", "opening /nowhere/"), ("/" + 600 * "x", "naming ")]
)
def test_a_directory_that_cannot_be_used_does_not_stop_the_program(
    program: str, folder: str, failed: str
) -> None:
    environ = os.environ | {
        "LD_PRELOAD": str(_config.record_path()),
        _record.DIRECTORY: folder,
    }
    done = subprocess.run(
        [program, "calls"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert failed in line
    assert "recording of process" in line


@pytest.mark.parametrize("folder", ["", "here"])
def test_nobody_asked_for_a_recording(program: str, tmp_path: Path, folder: str) -> None:
    """Preloaded by hand: no file, and no word."""
    environ = os.environ | {"LD_PRELOAD": str(_config.record_path()), _record.DIRECTORY: folder}
    done = subprocess.run(
        [program, "calls"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


def test_after_keeps_what_lives() -> None:
    rows = [
        _record.Row(0, 7, "c", 70_000, 0, 1),
        _record.Row(1, 7, "a", 80_000, 64, 2),
        _record.Row(2, 7, "g", 90_000, 100, 3),
        _record.Row(3, 7, "r", 75_000, 70_000, 1),
        _record.Row(4, 7, "f", 80_000, 0, 2),
        _record.Row(2_000_000_000, 8, "f", 75_000, 0, 1),
    ]
    kept = _record.Journal(1, "p", 0.0, rows).after(1.0)
    assert [(row.tid, row.op, row.size, row.aux, row.block) for row in kept.rows] == [
        (7, "c", 75_000, 0, 1),
        (7, "m", 90_000, 0, 3),
        (8, "f", 75_000, 0, 1),
    ]


def test_the_same_calls_give_the_same_file(tmp_path: Path) -> None:
    journal = _record.Journal(1, "p", 0.0, [_record.Row(5, 9, "m", 70_000, 0, 4)])
    summary = _record.write_trace(journal, tmp_path / "a.csv.gz")
    _record.write_trace(journal, tmp_path / "b.csv.gz")
    packed = (tmp_path / "a.csv.gz").read_bytes()
    assert packed == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress(packed) == b"t_us,tid,op,size,aux,id\n0,1,m,70000,0,1\n"
    assert (summary.requests, summary.threads, summary.live_peak) == (1, 1, 70_000)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"short")
    with pytest.raises(_record.JournalError, match="too short"):
        _record.journals(tmp_path)
    (tmp_path / "x").write_bytes(bytes(8192))
    with pytest.raises(_record.JournalError, match="not of this version"):
        _record.journals(tmp_path)
