# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reports as JSON: nothing is lost on the way, and bad files are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.model import Kind, LibraryCounters, Measurement, Tier
from zkprof.report import Report, ReportError, dump, from_json, load, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Measurement]


@pytest.fixture
def report(measurement: Make, library: Callable[..., LibraryCounters]) -> Report:
    return Report.of(
        measurement({Kind.FAULT_ANON: 0.3}, noise=0.01, growth=0.1, library=library(hits=3))
    )


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("with_library", [True, False])
def test_round_trip(
    measurement: Make,
    library: Callable[..., LibraryCounters],
    tier: Tier,
    *,
    with_library: bool,
) -> None:
    m = measurement(
        {Kind.FAULT_ANON: 0.3, Kind.UNMAP: 0.05},
        noise=0.01,
        tier=tier,
        exited=True,
        library=library(hits=3, misses=1) if with_library else None,
    )
    before = Report.of(m)
    after = from_json(json.loads(dump(before)))
    assert after == before
    assert type(after.measurement.method.tier) is Tier
    assert all(type(kind) is Kind for kind in after.measurement.classes)


def test_what_readers_without_zkprof_rely_on(report: Report) -> None:
    data = to_json(report)
    assert data["schema"] == "zkprof/1"
    assert data["estimate"]["verdict"] == "allocation-bound"
    assert set(data["estimate"]["saving_wall"]) == {"low", "mid", "high"}
    assert data["estimate"]["growth"]["share"] == pytest.approx(0.1, abs=1e-6)
    assert data["measurement"]["classes"]["fault.anon"]["seconds"] == pytest.approx(1.5)
    assert {"id", "text", "command"} == set(data["advice"][0])


def names(value: object) -> set[str]:
    """Return the names of all fields, but not the keys of tables."""
    found = set()
    if isinstance(value, dict):
        for name, item in value.items():
            found |= {name} | (set() if name in TABLES else names(item))
    elif isinstance(value, list):
        for item in value:
            found |= names(item)
    return found


TABLES = {"classes", "overlays", "by_kind", "cpu_s", "mm_s", "counters"}
README = Path(__file__).parents[3] / "profiler" / "README.md"


def test_every_field_is_documented(report: Report) -> None:
    text = README.read_text()
    # Fields are written as `name`, `.name`, `parent.name` or `name[]`.
    documented = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", text))))
    assert names(to_json(report)) - documented == set()
    assert all(f"`{kind}`" in text for kind in Kind)


def test_arguments_are_not_written(measurement: Make) -> None:
    report = Report.of(measurement({Kind.FAULT_ANON: 0.3}), ["./prove", "--key", "hunter2"])
    assert any("hunter2" in str(item.command) for item in report.advice)
    assert "hunter2" not in dump(report)


def test_unknown_fields_are_ignored(report: Report) -> None:
    data = to_json(report)
    data["new"] = 1
    data["measurement"]["new"] = 1
    data["measurement"]["target"]["new"] = 1
    assert from_json(data) == report


def test_fields_with_defaults_may_be_missing(report: Report) -> None:
    data = to_json(report)
    del data["measurement"]["overlays"], data["measurement"]["exited"]
    assert from_json(data).measurement.overlays == {}


def change(data: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        data = data[name]
    data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", "zkprof/2", "its schema is 'zkprof/2', not 'zkprof/1'"),
        ("measurement", None, "measurement cannot be null"),
        ("measurement.cpu_s", "much", 'measurement.cpu_s cannot be "much"'),
        ("measurement.cpu_s", True, "measurement.cpu_s cannot be true"),
        ("measurement.target.pid", 1.5, "measurement.target.pid cannot be 1.5"),
        ("measurement.method.tier", "magic", 'measurement.method.tier cannot be "magic"'),
        ("measurement.classes", {"fault.new": {}}, 'measurement.classes cannot be "fault.new"'),
        ("measurement.memory", [{}], "measurement.memory[0].t is missing"),
        (
            "measurement.bins",
            [{"t": 0, "width_s": 1, "cpu_s": {"x": 1}, "mm_s": {}}],
            "measurement.bins[0].cpu_s has the key 'x', which is no number",
        ),
    ],
)
def test_what_is_wrong_and_where(report: Report, path: str, value: object, words: str) -> None:
    data = to_json(report)
    change(data, path, value)
    with pytest.raises(ReportError) as error:
        from_json(data)
    assert words in str(error.value)


@pytest.mark.parametrize("data", [None, [], "x", 3, {}, {"schema": None}])
def test_anything_else_is_no_report(data: object) -> None:
    with pytest.raises(ReportError, match="its schema is None"):
        from_json(data)


def test_files(tmp_path: Path, report: Report) -> None:
    good = tmp_path / "good.json"
    good.write_text(dump(report))
    assert load(good) == report
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, words in [
        ("text", "it is not JSON"),
        ("bytes", "it is not JSON"),
        ("empty", "it is empty"),
        ("absent", "No such file"),
        (".", "Is a directory"),
    ]:
        with pytest.raises(ReportError, match=words):
            load(tmp_path / name)
