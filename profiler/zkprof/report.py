# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reports as JSON: what `--json` writes and `zkprof report` reads.

The schema is "zkprof/1"; `schema` writes it as JSON Schema, and
profiler/README.md explains it.  Its core is the `Measurement`, field by field,
so that a report can be judged anew by a later version; `estimate` and
`advice` are there for readers without zkprof.

Compatibility: fields are only added under one schema, and unknown fields are
ignored.  Neither arguments nor environment of the target are written: they
may hold secrets.
"""

from __future__ import annotations

import dataclasses
import json
import types
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from .advice import Item, advise
from .errors import ZkprofError
from .estimate import Estimate, estimate
from .model import Measurement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .again import Options

SCHEMA = "zkprof/1"

# No number of a measurement is larger; neither infinity nor NaN is below it.
_LIMIT = 1 << 64


class ReportError(ZkprofError):
    """A file that is no report, or cannot be read or written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A measurement with what follows from it."""

    measurement: Measurement
    estimate: Estimate
    advice: tuple[Item, ...]

    @classmethod
    def of(
        cls, m: Measurement, argv: Sequence[str] | None = None, options: Options | None = None
    ) -> Report:
        """Judge a measurement.

        Parameters
        ----------
        m
            The measurement.
        argv
            The command that was run, where zkprof started it.
        options
            What zkprof was told besides; None takes what the measurement shows of it.
        """
        e = estimate(m)
        return cls(m, e, advise(m, e, argv, options))


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON's types."""
    return {
        "schema": SCHEMA,
        "estimate": _plain(report.estimate)
        | {
            "growth": _plain(report.estimate.growth) | {"share": report.estimate.growth.share},
            "speed_up": _plain(report.estimate.speed_up),
        },
        # Made anew: the advice on screen may hold the command's arguments.
        "advice": _plain(advise(report.measurement, report.estimate)),
        "measurement": _plain(report.measurement),
    }


def from_json(data: object) -> Report:
    """Rebuild a report; estimate and advice are made anew.

    Raises
    ------
    ReportError
        `data` is not of this schema; the text says where.
    """
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(data, dict) or schema != SCHEMA:
        message = f"its schema is {schema!r}, not {SCHEMA!r}: write it with `zkprof PID --json`"
        raise ReportError(message)
    m = _build(Measurement, data.get("measurement"), "measurement")
    for i, stack in enumerate(m.stacks):
        if not all(0 <= frame < len(m.frames) for frame in stack.frames):
            message = f"measurement.stacks[{i}].frames refers to frames that are not there"
            raise ReportError(message)
    return Report.of(m)


def dump(report: Report) -> str:
    """Return the report as the text of a JSON file."""
    return json.dumps(to_json(report), separators=(",", ":"), allow_nan=False) + "\n"


def load(path: Path) -> Report:
    """Read a report.

    Raises
    ------
    ReportError
        The file cannot be read, or is no report.
    """
    try:
        text = path.read_text("utf-8")
        if not text.strip():
            message = f"{path} is no report: it is empty"
            raise ReportError(message)
        data = json.loads(text)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ReportError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{path} is no report: it is not JSON ({error})"
        raise ReportError(message) from error
    try:
        return from_json(data)
    except ReportError as error:
        message = f"{path} is no report: {error}"
        raise ReportError(message) from error


def _plain(value: Any) -> Any:  # noqa: ANN401  (JSON is of any type)
    """Turn dataclasses, enums and tuples into what `json` writes."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    return value


def _build(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    """Turn JSON's types into a value of type `kind`, or say what is wrong at `where`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):  # only ever "X | None" in the model
        return None if value is None else _build(args[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_build(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {
            _build_key(args[0], key, where): _build(args[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        hints = _hints(kind)
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(kind):
            if field.name in value:
                at = f"{where}.{field.name}"
                fields[field.name] = _build(hints[field.name], value[field.name], at)
            elif field.default is dataclasses.MISSING and (
                field.default_factory is dataclasses.MISSING
            ):
                message = f"{where}.{field.name} is missing"
                raise ReportError(message)
        return kind(**fields)
    if isinstance(kind, type) and issubclass(kind, Enum) and value in list(kind):
        return kind(value)
    if kind is float and type(value) in (int, float) and abs(value) < _LIMIT:
        return float(value)
    if kind is int and type(value) is int and abs(value) < _LIMIT:
        return value
    if kind in (bool, str) and type(value) is kind:
        return value
    message = f"{where} cannot be {json.dumps(value)[:40]}"
    raise ReportError(message)


# Asking for them costs more than building the value.
_hints = cache(get_type_hints)


def _build_key(kind: Any, key: str, where: str) -> Any:  # noqa: ANN401
    if kind is int:
        try:
            return int(key)
        except ValueError:
            message = f"{where} has the key {key!r}, which is no number"
            raise ReportError(message) from None
    return _build(kind, key, where)
