# SPDX-License-Identifier: MIT OR Apache-2.0
"""Stacks for other tools: what they add up to, and that names stay names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from zkprof.exports import NoStacksError, collapsed, speedscope
from zkprof.model import Kind
from zkprof.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def follows_the_format(data: dict[str, Any]) -> None:
    """Check what speedscope's file-format-spec.ts demands of sampled profiles."""
    assert data["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert set(data) <= {
        "$schema", "shared", "profiles", "name", "activeProfileIndex", "exporter"
    }  # fmt: skip
    frames = data["shared"]["frames"]
    for frame in frames:
        assert set(frame) <= {"name", "file", "line", "col"}
        assert isinstance(frame["name"], str)
        assert isinstance(frame.get("line", 1), int)
    assert 0 <= data["activeProfileIndex"] < len(data["profiles"])
    for profile in data["profiles"]:
        assert profile["type"] == "sampled"
        assert profile["unit"] in {"none", "nanoseconds", "microseconds", "milliseconds", "seconds"}
        assert isinstance(profile["name"], str)
        assert len(profile["samples"]) == len(profile["weights"])
        assert all(0 <= i < len(frames) for sample in profile["samples"] for i in sample)
        total = profile["endValue"] - profile["startValue"]
        assert sum(profile["weights"]) == pytest.approx(total)


def test_speedscope(full: Report) -> None:
    data = json.loads(speedscope(full))
    follows_the_format(data)
    m = full.measurement
    assert len(data["profiles"]) == len(m.threads)
    assert sum(p["endValue"] for p in data["profiles"]) == pytest.approx(m.cpu_s)
    assert data["profiles"][0]["name"].startswith("worker-")
    names = [frame["name"] for frame in data["shared"]["frames"]]
    leaves = Counter[str]()
    for profile in data["profiles"]:
        for sample, weight in zip(profile["samples"], profile["weights"], strict=True):
            assert names[sample[0]] == "main"
            leaves[names[sample[-1]]] += weight
    for kind, leaf in (
        (Kind.FAULT_ANON, "[page faults, anonymous]"),
        (Kind.UNMAP, "[munmap]"),
        (Kind.USER, "[its own work]"),
    ):
        assert leaves[leaf] == pytest.approx(m.classes[kind].seconds)


def test_collapsed(full: Report) -> None:
    lines = collapsed(full).splitlines()
    rows = [re.fullmatch(r"(.+) (\d+)", line) for line in lines]
    assert all(rows)
    total = sum(int(row[2]) for row in rows if row)
    assert total == pytest.approx(1e6 * full.measurement.cpu_s, rel=1e-4)
    assert len(set(lines)) == len(lines)
    first = rows[0]
    assert first
    frames = first[1].split(";")
    assert frames[0].startswith("worker-")
    assert frames[1] == "main"
    assert frames[-1] == "[its own work]"


def test_hostile_names(evil: Report) -> None:
    follows_the_format(json.loads(speedscope(evil)))
    text = collapsed(evil)
    assert text.encode()
    depth = 2 + max(len(stack.frames) for stack in evil.measurement.stacks)
    for line in text.splitlines():
        assert line.isprintable()
        assert line.count(";") < depth  # none comes from a name
        assert line.rpartition(" ")[2].isdigit()


def test_without_stacks(made: Callable[..., Any]) -> None:
    report = Report.of(made(stacks=(), frames=()))
    for export in (speedscope, collapsed):
        with pytest.raises(NoStacksError, match="no stacks to export"):
            export(report)


@pytest.mark.outside
def test_speedscopes_own_schema(full: Report, evil: Report, tmp_path: Path) -> None:
    """Validate against the schema that speedscope itself ships."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("npm is not installed")
    subprocess.run([npm, "pack", "--silent", "speedscope"], cwd=tmp_path, check=True)
    (archive,) = tmp_path.glob("speedscope-*.tgz")
    with tarfile.open(archive) as tar:
        (name,) = (n for n in tar.getnames() if n.endswith("file-format-schema.json"))
        member = tar.extractfile(name)
        assert member
        schema = json.load(member)
    for report in (full, evil):
        jsonschema.validate(json.loads(speedscope(report)), schema)
