# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where reports go: gates, several files at once, whole files, clean text."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from zkprof.cli import main
from zkprof.errors import Exit, TargetGoneError
from zkprof.files import FileError, replacing
from zkprof.gates import condition, tripped
from zkprof.model import Kind, LibraryCounters, Measurement
from zkprof.render import console, screen, show
from zkprof.report import Report, dump, load
from zkprof.text import clean, cleaned, size

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Measurement]


def run(*args: str) -> int:
    try:
        return main(list(args))
    except SystemExit as end:
        return int(end.code or 0)


# ----------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("prove", "prove"),
        ("größe ∑ 你", "größe ∑ 你"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("\udcff", "\\udcff"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert clean(shown).encode()


def test_a_whole_report_is_cleaned(evil: Report) -> None:
    def strings(value: Any) -> list[str]:  # noqa: ANN401
        if isinstance(value, str):
            return [value]
        if dataclasses.is_dataclass(value):
            return [s for f in dataclasses.fields(value) for s in strings(getattr(value, f.name))]
        if isinstance(value, tuple | list):
            return [s for item in value for s in strings(item)]
        if isinstance(value, dict):
            return [s for pair in value.items() for s in strings(pair)]
        return []

    before, after = strings(evil), strings(cleaned(evil))
    assert len(before) == len(after)
    assert not all(s.isprintable() for s in before)
    assert all(s.isprintable() for s in after)


def test_clean_values_are_not_copied(full: Report) -> None:
    after = cleaned(full)
    assert after == full
    assert after.measurement.bins is full.measurement.bins


def test_the_screen_shows_hostile_names_harmlessly(
    capsys: pytest.CaptureFixture[str], evil: Report
) -> None:
    show(console(sys.stdout), screen(evil))
    text = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in text)
    # Rich would make this bold, and swallow the brackets.
    assert "[bold]" in text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (3e12, "3.0 TB")]
)
def test_size(n: float, text: str) -> None:
    assert size(n) == text


# ---------------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("gate", "trips"),
    [
        ("allocation-bound", True),
        ("not-allocation-bound", False),
        ("inconclusive", False),
        ("saving>30", True),
        ("saving>50", False),
        ("saving-cpu > 39.5%", True),
        ("memory<50", True),
        ("growth>0.5", False),
        ("hit-rate<99", True),
    ],
)
def test_gates(measurement: Make, gate: str, *, trips: bool) -> None:
    report = Report.of(measurement({Kind.FAULT_ANON: 0.32, Kind.UNMAP: 0.08}))
    assert bool(tripped(report, [condition(gate)])) is trips


def test_no_verdict_trips_no_limit(measurement: Make) -> None:
    report = Report.of(measurement({Kind.FAULT_ANON: 0.5}, samples=3))
    assert tripped(report, [condition("saving>1")]) == ""
    assert tripped(report, [condition("inconclusive")])


def test_hit_rate(measurement: Make, library: Callable[..., LibraryCounters]) -> None:
    report = Report.of(measurement(library=library(hits=95, misses=5)))
    assert tripped(report, [condition("hit-rate<96")]) == (
        "hit-rate<96: libzknalloc's hit rate is 95.0%"
    )
    assert tripped(report, [condition("hit-rate<95")]) == ""
    without = Report.of(measurement())
    assert "is unknown" in tripped(without, [condition("hit-rate<1")])


@pytest.mark.parametrize("gate", ["", "fast", "saving", "saving>", "saving>x", "saving=5", ">5"])
def test_no_gate(capsys: pytest.CaptureFixture[str], gate: str) -> None:
    assert run("report", "x.json", f"--fail-on={gate}") == Exit.ERROR
    error = capsys.readouterr().err
    assert "is no condition: give a verdict (" in error
    assert error.count("\n") == 1


def test_exit_code_of_a_gate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, full: Report
) -> None:
    file = tmp_path / "r.json"
    file.write_text(dump(full))
    assert run("report", str(file), "--fail-on", "growth-bound") == Exit.OK
    capsys.readouterr()
    page = tmp_path / "r.html"
    args = ["--fail-on", "growth-bound", "--fail-on", "saving>5", "--html", str(page)]
    assert run("report", str(file), *args) == Exit.GATE
    assert "zkprof: --fail-on saving>5: wall time to be saved is " in capsys.readouterr().err
    assert page.exists(), "what was asked for is written all the same"


@pytest.mark.parametrize(("gate", "code"), [("inconclusive", Exit.GATE), ("saving>1", 7)])
def test_run_ends_with_the_gates_code(gate: str, code: int) -> None:
    assert run("run", "--fail-on", gate, "--", "sh", "-c", "sleep 0.5; exit 7") == code


def test_a_gate_that_saw_too_little_is_not_passed() -> None:
    assert run("run", "--", "sleep", "0.2") == 0
    assert run("run", "--fail-on", "saving>1", "--", "sleep", "0.2") == Exit.INCONCLUSIVE


def test_a_gate_that_saw_nothing_is_not_passed() -> None:
    command = ["sh", "-c", "exit 0"]
    with mock.patch("zkprof.commands.run.watch", side_effect=TargetGoneError("gone")):
        assert run("run", "--", *command) == 0
        assert run("run", "--fail-on", "saving>5", "--", *command) == Exit.GONE


# ---------------------------------------------------------------------- files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_formats_at_once(tmp_path: Path, full: Report) -> None:
    file = tmp_path / "r.json"
    file.write_text(dump(full))
    formats = ("json", "html", "speedscope", "collapsed")
    args = [word for name in formats for word in (f"--{name}", str(tmp_path / f"out.{name}"))]
    assert run("report", str(file), *args) == Exit.OK
    assert load(tmp_path / "out.json") == full
    assert (tmp_path / "out.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "out.speedscope").read_text())["profiles"]
    assert ";main;" in (tmp_path / "out.collapsed").read_text()
    assert {mode(tmp_path / f"out.{name}") for name in formats} == {0o600}
    assert len(list(tmp_path.iterdir())) == 5, "no temporary file is left"


def test_standard_output(capsys: pytest.CaptureFixture[str], tmp_path: Path, full: Report) -> None:
    file = tmp_path / "r.json"
    file.write_text(dump(full))
    assert run("report", str(file), "--collapsed", "-") == Exit.OK
    assert all(line.rpartition(" ")[2].isdigit() for line in capsys.readouterr().out.splitlines())
    assert run("report", str(file), "--json", "-", "--html", "-") == Exit.ERROR
    assert "takes one result" in capsys.readouterr().err


def test_nothing_is_written_when_one_result_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, measurement: Make
) -> None:
    file, old = tmp_path / "r.json", tmp_path / "old.html"
    file.write_text(dump(Report.of(measurement())))
    old.write_text("precious")
    args = ["--html", str(old), "--speedscope", str(tmp_path / "new")]
    assert run("report", str(file), *args) == Exit.ERROR
    assert "there are no stacks to export" in capsys.readouterr().err
    assert old.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.html", "r.json"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o644)
    with replacing(str(path)) as stream:
        stream.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert mode(path) == 0o600


def test_a_failure_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with pytest.raises(ZeroDivisionError), replacing(str(path)) as stream:
        stream.write("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with replacing(str(tmp_path / "link")) as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with replacing(str(pipe)) as stream:
        stream.write("through")
    reader.join(10)
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_open_file_is_written_to(tmp_path: Path, full: Report) -> None:
    file = tmp_path / "r.json"
    file.write_text(dump(full))
    command = [sys.executable, "-m", "zkprof", "report", str(file), "--collapsed", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ";main;" in done.stdout
    with (tmp_path / "out").open("w") as out:
        subprocess.run(command, stdout=out, check=True)
    assert ";main;" in (tmp_path / "out").read_text()


def test_under_sudo_it_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "2345")
    with replacing(str(tmp_path / "f")) as stream:
        stream.write("x")
    found = (tmp_path / "f").stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


@pytest.mark.parametrize("path", ["no/such/folder/f", "."])
def test_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=f"cannot write {path}"), replacing(path):
        pytest.fail("it is known first")


def test_reports_with_impossible_numbers(tmp_path: Path, full: Report) -> None:
    text = dump(full)
    for bad in ("NaN", "Infinity", "1e999", "1" + "0" * 400, str(1 << 70)):
        file = tmp_path / "bad.json"
        file.write_text(text.replace('"cpu_s":32.0', f'"cpu_s":{bad}', 1))
        assert run("report", str(file)) == Exit.ERROR


def test_reports_with_frames_that_are_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, full: Report
) -> None:
    data = json.loads(dump(full))
    data["measurement"]["stacks"][3]["frames"][0] = 1000
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(data))
    assert run("report", str(file)) == Exit.ERROR
    assert "stacks[3].frames refers to frames that are not there" in capsys.readouterr().err
