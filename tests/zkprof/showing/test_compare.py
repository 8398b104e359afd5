# SPDX-License-Identifier: MIT OR Apache-2.0
"""Comparisons: intervals that hold what they promise, and honest gaps."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from zkprof import pagedata
from zkprof.cli import main
from zkprof.compare import NOISE, UNKNOWN, Comparison, Row, _jackknife, _student, compare
from zkprof.errors import Exit
from zkprof.model import Kind, Measurement, Share
from zkprof.report import Report, dump

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., Measurement]


def row(found: Comparison, name: str) -> Row:
    (one,) = (r for r in found.rows if r.id == name)
    return one


def runs(made: Make, seconds: list[float]) -> list[Report]:
    """Make whole runs that took so long, all of it CPU time of one thread."""
    m = made(threads=1)
    return [Report.of(dataclasses.replace(m, duration_s=s, cpu_s=s, exited=True)) for s in seconds]


def test_a_change_of_means(made: Make) -> None:
    found = compare(runs(made, [10.0, 10.1, 9.9]), runs(made, [8.0, 8.08, 7.92]))
    wall = row(found, "wall")
    assert found.whole_runs
    assert (wall.before, wall.after) == (pytest.approx(10.0), pytest.approx(8.0))
    assert wall.change
    assert wall.change.mid == pytest.approx(-0.2, abs=1e-4)
    assert wall.change.low < -0.2 < wall.change.high
    # Welch: standard errors of 0.577 % each, 4 degrees of freedom.
    half = math.log1p(wall.change.high) - math.log(0.8)
    assert half == pytest.approx(2.776 * math.sqrt(2 * 0.01**2 / 3), rel=0.01)
    assert wall.word == "less"
    assert row(found, "cpu").certain


def test_intervals_hold_the_truth_as_often_as_they_say(made: Make) -> None:
    dice = random.Random(7)
    (template,) = runs(made, [1.0])

    def some(mean: float) -> list[Report]:
        return [
            dataclasses.replace(
                template,
                measurement=dataclasses.replace(
                    template.measurement, duration_s=mean * math.exp(dice.gauss(0, 0.05))
                ),
            )
            for _ in range(4)
        ]

    held = 0
    for _ in range(400):
        change = row(compare(some(10.0), some(9.0)), "wall").change
        assert change
        held += change.low <= -0.1 <= change.high
    assert 0.92 <= held / 400 <= 0.98


def test_one_run_says_nothing_about_the_next(made: Make) -> None:
    found = compare(runs(made, [10.0]), runs(made, [5.0]))
    wall = row(found, "wall")
    assert wall.change
    assert wall.change.mid == pytest.approx(-0.5)
    assert not wall.interval
    assert not wall.certain
    assert wall.word == UNKNOWN
    assert row(found, "memory").interval, "shares have intervals of their own"


def faulting(made: Make, counts: list[int], *, whole: bool) -> list[Report]:
    """Make measurements with so many page faults."""
    reports = []
    for n in counts:
        m = made()
        last = len(m.memory) - 1
        memory = tuple(
            dataclasses.replace(p, minor_faults=n * i // last) for i, p in enumerate(m.memory)
        )
        reports.append(Report.of(dataclasses.replace(m, memory=memory, exited=whole)))
    return reports


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "mid", "word"),
    [
        ([1000], [0], -1.0, "gone"),
        ([1000, 1100, 1050], [0, 0, 0], -1.0, "gone"),
        ([0, 0, 9], [0, 0, 0], -1.0, NOISE),
        ([1000, 1100, 1050], [0, 10, 0], -0.997, "less"),
        ([0, 0, 0], [1000, 1100, 1050], None, "new"),
        ([0], [0], None, "none"),
    ],
)
def test_what_is_gone_was_saved(
    made: Make, before: list[int], after: list[int], mid: float | None, word: str, *, whole: bool
) -> None:
    sides = [faulting(made, counts, whole=whole) for counts in (before, after)]
    faults = row(compare(*sides), "faults")
    if mid is None:
        assert faults.change is None
    else:
        assert faults.change
        assert faults.change.mid == pytest.approx(mid, abs=1e-3)
        assert faults.change.low >= -1.0
    assert faults.word == word


def test_a_share_without_samples_is_less(made: Make) -> None:
    m = made()
    classes = m.classes | {Kind.FAULT_ANON: Share(0.0, 0.0, 0.01)}
    found = compare([Report.of(m)], [Report.of(dataclasses.replace(m, classes=classes))])
    assert row(found, "anon").after == 0
    assert row(found, "anon").word == "less"


def test_windows_have_rates_only(made: Make) -> None:
    found = compare([Report.of(made())], [Report.of(made())])
    assert not found.whole_runs
    assert {r.id for r in found.rows} >= {"cores", "faults", "peak", "memory", "anon"}
    assert not {r.id for r in found.rows} & {"wall", "cpu"}
    assert row(found, "cores").interval
    assert row(found, "anon").word == NOISE
    assert found.said is None


def test_shares_are_compared_in_points(made: Make) -> None:
    m = made()
    classes = m.classes | {Kind.FAULT_ANON: Share(0.0, 0.0, 0.01), Kind.UNMAP: Share(0, 0, 0.01)}
    found = compare([Report.of(m)], [Report.of(dataclasses.replace(m, classes=classes))])
    anon = row(found, "anon")
    assert anon.change
    assert anon.change.mid == pytest.approx(-0.32)
    assert anon.change.high < -0.29
    assert anon.word == "less"
    # Of two classes: errors of 0.82 and 0.13 points, added in quadrature.
    memory = row(found, "memory")
    assert memory.change
    assert memory.change.mid == pytest.approx(-0.37)
    half = memory.change.high - memory.change.mid
    assert half == pytest.approx(math.hypot(0.016, 0.0025, 0.001), rel=0.05)


def test_rates_vary_within_their_window() -> None:
    dice = random.Random(3)
    held = 0
    for _ in range(300):
        slices = [
            (dice.gauss(100, 10) * c, c, 1.0) for c in (dice.uniform(0.5, 1) for _ in "x" * 20)
        ]
        value, variance = _jackknife(slices, 0, 1)
        assert variance
        held += abs(math.log(value / 100)) <= _student(19) * math.sqrt(variance)
    assert held / 300 >= 0.9


@pytest.mark.parametrize("freedom", [0.2, 1, 2.9, 11, 25, 100, 5000, math.inf])
def test_student(freedom: float) -> None:
    known = {1: 12.706, 2.9: 4.303, 11: 2.228, 25: 2.086, 100: 2.0, 5000: 1.962, math.inf: 1.96}
    assert _student(freedom) == known.get(freedom, 12.706)


@pytest.mark.parametrize("whole", [False, True])
def test_stacks_are_weighed_by_what_is_compared(made: Make, *, whole: bool) -> None:
    m = made()
    kept = tuple(s for s in m.stacks if s.kind is not Kind.FAULT_ANON)
    after = dataclasses.replace(m, stacks=kept, cpu_s=0.68 * m.cpu_s)
    flame = pagedata.flame([after, after], [m], whole_runs=whole)
    assert flame
    sums = [sum(leaf[i] for leaf in flame["leaves"]) for i in (2, 3)]
    # Of whole runs the saving is missing; of windows each side is all of its time.
    assert sums == [pytest.approx(0.68 if whole else 1.0, abs=1e-3), pytest.approx(1, abs=1e-3)]


def test_nothing_to_compare(made: Make) -> None:
    m = dataclasses.replace(made(), memory=(), classes={}, cpu_s=0.0, bins=(), stacks=())
    found = compare([Report.of(m)], [Report.of(m)])
    assert all(r.change is None or r.change.mid == 0 for r in found.rows)


def test_the_prediction_is_put_to_the_test(made: Make) -> None:
    found = compare(runs(made, [10.0, 10.2]), runs(made, [6.0, 6.1]))
    assert found.said
    predicted, measured = found.said
    assert predicted.mid == found.before[0].estimate.saving_wall.mid
    assert measured.mid == pytest.approx(0.4, abs=0.01)
    assert measured.low < measured.mid < measured.high


# ---------------------------------------------------------------- the command


@pytest.fixture
def files(made: Make, tmp_path: Path) -> dict[str, str]:
    names = {}
    for name, seconds in {"a1": 10.0, "a2": 10.1, "b1": 8.0, "b2": 8.1}.items():
        (report,) = runs(made, [seconds])
        path = tmp_path / f"{name}.json"
        path.write_text(dump(report))
        names[name] = str(path)
    return names


def run(*args: str) -> int:
    try:
        return main(["compare", *args])
    except SystemExit as end:
        return int(end.code or 0)


def test_text(capsys: pytest.CaptureFixture[str], files: dict[str, str]) -> None:
    f = files
    assert run(f["a1"], f["a2"], "--to", f["b1"], f["b2"]) == Exit.OK
    text = capsys.readouterr().out
    assert "prove 4242, 2 runs" in text
    assert max(map(len, text.splitlines())) <= 80
    (line,) = (line for line in text.splitlines() if line.startswith("wall time"))
    assert line.split()[2:7] == ["10.05", "s", "8.05", "s", "-19.9%"]
    assert line.endswith("less")
    assert "Predicted before: " in text


def test_json_and_html(tmp_path: Path, files: dict[str, str]) -> None:
    json_file, html_file = tmp_path / "c.json", tmp_path / "c.html"
    assert run(files["a1"], files["b1"], "--json", str(json_file), "--html", str(html_file)) == 0
    data = json.loads(json_file.read_text())
    assert data["schema"] == "zkprof-compare/1"
    assert data["rows"][0]["id"] == "wall"
    assert data["rows"][0]["change"]["mid"] == pytest.approx(-0.2)
    assert "What changed" in html_file.read_text()


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("wall<5", Exit.GATE),
        ("wall>5", Exit.OK),
        ("cpu<0.5", Exit.GATE),
        ("memory>50", Exit.OK),
        ("cores>1", Exit.ERROR),
        ("speed>1", Exit.ERROR),
        ("wall", Exit.ERROR),
    ],
)
def test_gates(
    capsys: pytest.CaptureFixture[str], files: dict[str, str], gate: str, code: Exit
) -> None:
    f = files
    assert run(f["a1"], f["a2"], "--to", f["b1"], f["b2"], "--fail-on", gate) == code
    error = capsys.readouterr().err
    assert error.count("\n") == (code is not Exit.OK)


def test_noise_trips_no_gate(made: Make, tmp_path: Path) -> None:
    paths = []
    for i, report in enumerate(runs(made, [10.0, 12.0, 11.0, 12.5])):
        paths.append(tmp_path / f"{i}.json")
        paths[-1].write_text(dump(report))
    names = [str(p) for p in paths]
    assert run(*names[:2], "--to", *names[2:], "--fail-on", "wall>1") == Exit.OK
    # One run each has no interval: then the value decides.
    assert run(names[0], names[1], "--fail-on", "wall>1") == Exit.GATE


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["one"], "two reports are compared"),
        (["1", "2", "3"], "two reports are compared"),
        (["none", "none"], "cannot read none"),
        ([], "required: FILE"),
        (["a", "b", "--json", "-", "--html", "-"], "standard output takes one result"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert run(*args) == Exit.ERROR
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_hostile_names(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    evil: Any,  # noqa: ANN401
) -> None:
    path = tmp_path / "evil.json"
    path.write_text(dump(evil))
    assert run(str(path), str(path)) == Exit.OK
    text = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in text)
