# SPDX-License-Identifier: MIT OR Apache-2.0
"""Text of strangers, made fit to be shown.

Names of threads, programs, modules and functions are chosen by the target,
and a name may hold an escape sequence that rewrites the terminal, a line
break, a mark that turns the reading direction round, or bytes that are no
text at all.  `clean` is applied where a value enters the showing side, once
and to the whole value, so that no way of showing can forget it.  The JSON
report alone keeps names as they are: its syntax escapes them.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")


def clean(text: str) -> str:
    r"""Return `text` with everything that is not printable written as ``\xNN``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def cleaned(value: T) -> T:
    """Return a value of the model with each string in it cleaned."""
    return _cleaned(value)  # type: ignore[no-any-return]


def size(n: float) -> str:
    """Write a number of bytes for people."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(n) >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n:.0f} B"


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")


def _cleaned(value: Any) -> Any:  # noqa: ANN401  (any value of the model)
    if isinstance(value, Enum) or value is None:
        return value
    if isinstance(value, str):
        return clean(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        before = {name: getattr(value, name) for name in _fields_with_text(type(value))}
        after = {name: _cleaned(item) for name, item in before.items()}
        same = all(after[name] is item for name, item in before.items())
        return value if same else dataclasses.replace(value, **after)
    if isinstance(value, tuple):
        items = tuple(_cleaned(item) for item in value)
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else items
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value


@cache
def _fields_with_text(kind: type) -> tuple[str, ...]:
    """Return the fields that may hold strings: most of a measurement is numbers."""
    hints = get_type_hints(kind)
    return tuple(f.name for f in dataclasses.fields(kind) if _may_hold_text(hints[f.name]))


@cache
def _may_hold_text(kind: Any) -> bool:  # noqa: ANN401  (types are of many kinds)
    if args := get_args(kind):
        return any(_may_hold_text(arg) for arg in args)
    if not isinstance(kind, type) or issubclass(kind, Enum):
        return False
    return kind is str or (dataclasses.is_dataclass(kind) and bool(_fields_with_text(kind)))
