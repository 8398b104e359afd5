# SPDX-License-Identifier: MIT OR Apache-2.0
"""The JSON Schema: kept up to date, valid, and true of real reports."""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator

from zkprof.measure import measure
from zkprof.report import Report, to_json
from zkprof.schema import schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEPT = "data/zkprof-1.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    kept = json.loads((resources.files("zkprof") / KEPT).read_text("utf-8"))
    Draft202012Validator.check_schema(kept)
    return Draft202012Validator(kept)


def test_the_file_is_what_the_model_says() -> None:
    kept = json.loads((resources.files("zkprof") / KEPT).read_text("utf-8"))
    assert kept == schema(), "run python -m zkprof.schema, see its docstring"


def test_a_full_report_is_valid(full: Report, validator: Draft202012Validator) -> None:
    validator.validate(json.loads(json.dumps(to_json(full))))


def test_a_measured_report_is_valid(
    compiled: Callable[..., Path], run: Callable[..., Any], validator: Draft202012Validator
) -> None:
    with run(compiled("workload"), "faults") as process:
        report = Report.of(measure(process.pid, 0.5))
    validator.validate(json.loads(json.dumps(to_json(report))))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "zkprof/2"),
        (("estimate", "verdict"), "fast"),
        (("measurement", "cpu_s"), "1"),
        (("measurement", "classes", "fault.new"), {"seconds": 1, "low": 1, "high": 1}),
        (("measurement", "bins", 0, "cpu_s", "x"), 1.0),
        (("measurement", "stacks", 0, "frames", 0), "main"),
        (("measurement", "target", "pid"), None),
    ],
)
def test_a_wrong_report_is_not(
    full: Report, validator: Draft202012Validator, path: tuple[Any, ...], value: object
) -> None:
    data = copy.deepcopy(json.loads(json.dumps(to_json(full))))
    *parents, last = path
    place = data
    for step in parents:
        place = place[step]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(data)


def test_fields_explain_themselves(validator: Draft202012Validator) -> None:
    definitions = validator.schema["$defs"]
    assert "Outermost first" in definitions["StackTime"]["properties"]["frames"]["description"]
    assert all(d.get("description") for d in definitions.values() if "properties" in d)
