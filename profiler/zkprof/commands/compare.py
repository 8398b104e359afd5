# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof compare BEFORE AFTER`: what changed, and whether it is noise."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from zkprof.arguments import file_option
from zkprof.compare import IDS, compare
from zkprof.errors import Exit, ZkprofError
from zkprof.files import STANDARD_OUTPUT, replacing
from zkprof.gates import Comparison as Gate
from zkprof.gates import comparison
from zkprof.render import console, show
from zkprof.report import load
from zkprof.show_compare import dump, screen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zkprof.arguments import Commands
    from zkprof.compare import Comparison


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="say what changed between reports, and whether it is noise",
        usage="%(prog)s BEFORE AFTER [options]\n"
        "       %(prog)s BEFORE [BEFORE ...] --to AFTER [AFTER ...] [options]",
        description="Compare two reports, or two sets of reports of the same program: only "
        "several runs a side say how much runs differ by themselves.",
    )
    files = parser.add_argument(
        "files", metavar="FILE", type=Path, nargs="+", help="reports that --json has written"
    )
    to = parser.add_argument(
        "--to", metavar="AFTER", type=Path, nargs="+", help="several reports to compare with"
    )
    for option in (files, to):
        option.complete = shtab.FILE
    file_option(parser, "--json", "write the comparison as JSON")
    file_option(parser, "--html", "write it as HTML, with a flame graph of the differences")
    parser.add_argument(
        "--fail-on",
        metavar="CONDITION",
        type=_condition,
        action="append",
        default=[],
        help="exit with 10 where a quantity changed by more, in per cent or points, beyond "
        f"noise: like 'cpu>5', 'peak>10', 'memory>2' ({', '.join(IDS)})",
    )
    parser.set_defaults(call=_compare)


def _compare(args: argparse.Namespace) -> int:
    before, after = _sides(args)
    if args.json == args.html == STANDARD_OUTPUT:
        raise ZkprofError("standard output takes one result: give the other a file")
    with ExitStack() as stack:
        outputs = {
            name: (path, stack.enter_context(replacing(path)))
            for name in ("json", "html")
            if (path := getattr(args, name)) is not None
        }
        found = compare([load(file) for file in before], [load(file) for file in after])
        if not any(path == STANDARD_OUTPUT for path, _ in outputs.values()):
            show(console(sys.stdout), screen(found))
        for name, (_, buffer) in outputs.items():
            buffer.write(_html(found) if name == "html" else dump(found))
    if reason := _tripped(found, args.fail_on):
        sys.stderr.write(f"zkprof: --fail-on {reason}\n")
        return Exit.GATE
    return Exit.OK


def _html(found: Comparison) -> str:
    from zkprof.html import comparison_page  # noqa: PLC0415  (loads a template engine)

    return comparison_page(found)


def _sides(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    if args.to:
        return args.files, args.to
    if len(args.files) != 2:
        raise ZkprofError(
            "two reports are compared: zkprof compare BEFORE AFTER; "
            "of several, name the second set after --to"
        )
    return args.files[:1], args.files[1:]


def _condition(text: str) -> Gate:
    found = comparison(text, IDS)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no condition: give a comparison like 'cpu>5' ({', '.join(IDS)})"
        )
    return found


def _tripped(found: Comparison, gates: Iterable[Gate]) -> str:
    """Say which condition is met; where there is no interval, the value decides."""
    rows = {row.id: row for row in found.rows}
    for gate in gates:
        row = rows.get(gate.name)
        if row is None and gate.name in ("wall", "cpu"):
            raise ZkprofError(
                f"--fail-on {gate} needs whole runs: measure with `zkprof run`, to the end"
            )
        if row is None and gate.name == "cores":
            raise ZkprofError(f"--fail-on {gate}: of whole runs, give cpu or wall")
        if row is None or row.change is None:
            continue
        if gate.trips(100 * row.change.mid) and (row.certain or not row.interval):
            unit = " points" if row.unit == "share" else "%"
            return f"{gate}: {row.name.strip()} changed by {100 * row.change.mid:+.1f}{unit}"
    return ""
