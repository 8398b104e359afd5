# SPDX-License-Identifier: MIT OR Apache-2.0
"""Arguments that several commands share: their types, and groups of options.

A type raises `argparse.ArgumentTypeError` with what is wrong and what would be
right; the parser adds where, in one line.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, NoReturn

import shtab

from .errors import Exit
from .model import DEFAULT_RATE_HZ

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[Any]  # noqa: SLF001  (has no other name)

RATE_LIMITS = (1.0, 10_000.0)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 1."""

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit."""
        self.exit(Exit.ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def is_pid(text: str) -> bool:
    """Say whether this can be the number of a process."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) < 2**31


def pid(text: str) -> int:
    """Return a process number."""
    if not is_pid(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no process number")
    return int(text)


def duration(text: str) -> float:
    """Return a number of seconds."""
    seconds = number(text)
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration: give seconds, from 0.1 to 86400"
        )
    return seconds


def rate(text: str) -> float:
    """Return a number of samples a second."""
    hz = number(text)
    low, high = RATE_LIMITS
    if not low <= hz <= high:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no rate: give samples a second, from {low:g} to {high:g}"
        )
    return hz


def number(text: str) -> float:
    """Return a number, or one that fails every comparison."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def whole(low: int, high: int) -> type[int]:
    """Return an argument type: whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return parse  # type: ignore[return-value]


def measuring(parser: argparse.ArgumentParser, help_text: str, default: float | None) -> None:
    """Add the options of the commands that measure."""
    parser.add_argument(
        "-d", "--duration", metavar="SECONDS", type=duration, default=default, help=help_text
    )
    parser.add_argument(
        "--rate",
        metavar="HZ",
        type=rate,
        default=DEFAULT_RATE_HZ,
        help=f"samples per second of CPU time (default {DEFAULT_RATE_HZ:g})",
    )
    parser.add_argument(
        "--children", action="store_true", help="measure its child processes too, all as one"
    )
    parser.add_argument(
        "--no-python",
        dest="python",
        action="store_false",
        help="do not look for the functions of a Python program",
    )


def file_option(parser: argparse._ActionsContainer, name: str, help_text: str) -> None:
    """Add an option that names a file to be written."""
    action = parser.add_argument(name, metavar="FILE", help=f"{help_text}; - is stdout")
    action.complete = shtab.FILE  # type: ignore[attr-defined]
