# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof run -- CMD`: start a command and measure it."""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from zkprof import outputs
from zkprof.ab import MIN_PAIRS, compare, variables
from zkprof.again import given
from zkprof.arguments import measuring, whole
from zkprof.errors import Exit, ZkprofError
from zkprof.files import STANDARD_OUTPUT, replacing
from zkprof.render import console
from zkprof.report import Report
from zkprof.runner import Child, watch
from zkprof.text import clean

if TYPE_CHECKING:
    from zkprof.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="start a command and measure it",
        usage="%(prog)s [options] -- CMD [ARG ...]",
        description="Start CMD and measure it from its first instruction on. The report goes "
        "to standard error, and CMD's exit code is passed on, unless --fail-on is met.",
    )
    measuring(parser, "seconds to measure (default: until CMD ends)", default=None)
    outputs.add_options(parser)
    parser.add_argument(
        "--ab",
        metavar="ENV",
        type=_variables,
        help="run it in turns as it is and with ENV (NAME=VALUE ..., or libzknalloc), and "
        "compare what was saved with what was predicted; of the outputs, --json only",
    )
    parser.add_argument(
        "--pairs",
        type=whole(MIN_PAIRS, 1000),
        default=5,
        metavar="N",
        help="with --ab: runs of each (default 5)",
    )
    parser.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER, help="what to run")
    parser.set_defaults(call=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run a command, measure it, report, and return its exit code."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise ZkprofError("what is to be run? zkprof run [-d SECONDS] -- CMD [ARG ...]")
    if args.ab:
        return _compare(args, command)
    reached = Exit.OK
    # Standard output is the command's; the report goes to stderr.
    with outputs.Outputs(args, to=sys.stderr) as output, Child(command, held=True) as child:
        try:
            m = watch(
                child.pid,
                args.duration or math.inf,
                args.rate,
                out=None,
                title="",
                children=args.children,
                python=args.python,
                on_open=child.release,
            )
            reached = output.write(Report.of(m, command, given(args.parser, args)))
        except ZkprofError as error:
            sys.stderr.write(f"zkprof: {clean(str(error))}\n")
            reached = error.exit_code
        child.release()
        code = child.wait()
    if reached is Exit.GATE:
        return reached
    # A condition for which nothing, or too little, was measured is not one that held.
    return code or (reached if args.fail_on else Exit.OK)


def _compare(args: argparse.Namespace, command: list[str]) -> int:
    with ExitStack() as stack:
        return compare(
            command,
            args.ab,
            console(sys.stderr if args.json == STANDARD_OUTPUT else sys.stdout),
            pairs=args.pairs,
            rate_hz=args.rate,
            json_file=stack.enter_context(replacing(args.json)) if args.json else None,
        )


def _variables(text: str) -> dict[str, str]:
    try:
        return variables(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
