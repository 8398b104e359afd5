# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof run -- CMD`: start a command and measure it."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING

from zkprof import outputs
from zkprof.arguments import measuring
from zkprof.errors import Exit, ZkprofError
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
    parser.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER, help="what to run")
    parser.set_defaults(call=run)


def run(args: argparse.Namespace) -> int:
    """Run a command, measure it, report, and return its exit code."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise ZkprofError("what is to be run? zkprof run [-d SECONDS] -- CMD [ARG ...]")
    failed = Exit.OK
    # Standard output is the command's; the report goes to stderr.
    with outputs.Outputs(args, to=sys.stderr) as output, Child(command) as child:
        try:
            m = watch(
                child.pid,
                args.duration or math.inf,
                args.rate,
                out=None,
                title="",
                children=args.children,
                python=args.python,
            )
            if output.write(Report.of(m, command)) is Exit.GATE:
                failed = Exit.GATE
        except ZkprofError as error:
            sys.stderr.write(f"zkprof: {clean(str(error))}\n")
            # A condition that nothing was measured for is not one that held.
            failed = error.exit_code if args.fail_on else Exit.OK
        code = child.wait()
    return failed or code
