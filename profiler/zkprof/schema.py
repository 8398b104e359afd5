# SPDX-License-Identifier: MIT OR Apache-2.0
"""The JSON Schema of reports, made from the classes that reports are made of.

`data/zkprof-1.schema.json` is its output, kept in the repository and in the
wheel so that readers in other languages can check and generate from it:

    python -m zkprof.schema > profiler/zkprof/data/zkprof-1.schema.json

A test compares the two.  Descriptions are the docstrings of the fields.  All
objects may have more fields than listed: fields are added under one schema.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
import types
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from .advice import Item
from .estimate import Estimate, Range
from .model import Measurement
from .report import SCHEMA


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report."""
    definitions: dict[str, Any] = {}
    estimate = _type(Estimate, definitions)
    measurement = _type(Measurement, definitions)
    item = _type(Item, definitions)
    # Written although they are no fields: what follows from the fields.
    growth = definitions["Growth"]
    growth["properties"]["share"] = {"type": "number", "minimum": 0, "maximum": 1}
    growth["required"].append("share")
    speed_up = _type(Range, definitions) | {"description": "How many times as fast it would be."}
    definitions["Estimate"]["properties"]["speed_up"] = speed_up
    definitions["Estimate"]["required"].append("speed_up")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        "description": "A report of zkprof. Times in seconds, sizes in bytes, shares from 0 to 1.",
        "type": "object",
        "properties": {
            "schema": {"const": SCHEMA},
            "estimate": estimate,
            "advice": {"type": "array", "items": item},
            "measurement": measurement,
        },
        "required": ["schema", "estimate", "advice", "measurement"],
        "$defs": dict(sorted(definitions.items())),
    }


def _type(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return the schema of a type, adding classes to `definitions`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is types.UnionType:  # only ever "X | None"
        return {"anyOf": [_type(args[0], definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _type(args[0], definitions)}
    if origin is dict:
        return {
            "type": "object",
            "propertyNames": _key(args[0], definitions),
            "additionalProperties": _type(args[1], definitions),
        }
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # taken, while its fields are looked at
        definitions[name] = (
            {"enum": [member.value for member in kind]}
            if issubclass(kind, Enum)
            else _object(kind, definitions)
        )
    return {"$ref": f"#/$defs/{name}"}


_PLAIN = {int: "integer", float: "number", bool: "boolean", str: "string"}


def _key(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object's keys, which are always strings."""
    if kind is int:
        return {"pattern": "^-?[0-9]+$"}
    return {} if kind is str else _type(kind, definitions)


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, texts = get_type_hints(kind), _docstrings(kind)
    properties, required = {}, []
    for field in dataclasses.fields(kind):
        properties[field.name] = _type(hints[field.name], definitions)
        if field.name in texts:
            properties[field.name]["description"] = texts[field.name]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    summary = (inspect.getdoc(kind) or "").split("\n\n")[0]
    return {
        "type": "object",
        "description": _one_line(summary),
        "properties": properties,
        "required": required,
    }


def _docstrings(kind: type) -> dict[str, str]:
    """Return the string written below each field, which Python itself drops."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found: dict[str, str] = {}
    name = None
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[name] = _one_line(str(node.value.value))
            name = None
        else:
            name = None
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
