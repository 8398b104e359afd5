# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command line that measures the same once more, as advice gives it.

What the user typed is repeated: every option that is not at its default, but
for the one that the advice changes. Of a saved report only those options are
known that its measurement shows. Arguments of a running target are not
repeated, for they may hold secrets; `ARGS...` stands for them.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, TypeAlias

from .estimate import Verdict
from .model import DEFAULT_RATE_HZ

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from .model import Measurement

Options: TypeAlias = "tuple[tuple[str, ...], ...]"
"""Options of a command line, each with its value where it takes one."""


def given(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Options:
    """Return the options of `parser` that are not at their defaults in `args`."""
    return tuple(_given(parser, args))


def _given(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    for action in parser._actions:  # noqa: SLF001  (there is no other list of them)
        value = getattr(args, action.dest, action.default)
        if not action.option_strings or value == action.default:
            continue
        name = action.option_strings[0]
        if action.nargs == 0:
            yield (name,)
        else:
            for one in value if isinstance(value, list) else [value]:
                yield name, _typed(one)


def _typed(value: Any) -> str:  # noqa: ANN401  (of any option's type)
    """Return a value as it is typed."""
    if isinstance(value, Verdict):
        return value.replace(" ", "-")
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown(m: Measurement) -> Options:
    """Return the options that a measurement must have been made with."""
    rate_hz = m.method.rate_hz
    return (
        *([("--rate", f"{rate_hz:g}")] if rate_hz not in (0.0, DEFAULT_RATE_HZ) else []),
        *([("--children",)] if len(m.pids) > 1 else []),
    )


def program(m: Measurement, argv: Sequence[str] | None) -> str:
    """Return what to type to start the target."""
    if argv:
        return shlex.join(argv)
    return f"{shlex.quote(m.target.command or m.target.exe or m.target.comm)} ARGS..."


def again(
    m: Measurement, argv: Sequence[str] | None, options: Options, change: tuple[str, ...] = ()
) -> str:
    """Return the command that measures a target once more.

    Parameters
    ----------
    m
        What was measured.
    argv
        The command that was run, where zkprof started it.
    options
        The options that were given.
    change
        One that is to be different.
    """
    kept = [option for option in options if option[:1] != change[:1]]
    words = shlex.join(word for option in (change, *kept) for word in option)
    if argv or m.exited:
        return f"zkprof run {words} -- {program(m, argv)}"
    return f"zkprof {m.target.pid} {words}".rstrip()
