# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof PID`: measure a running process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkprof import outputs
from zkprof.again import given
from zkprof.arguments import measuring, pid
from zkprof.report import Report
from zkprof.runner import watch

if TYPE_CHECKING:
    import argparse

    from zkprof.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "attach",
        help="measure a running process; the word may be left out",
        description="Measure a running process, without stopping it or injecting anything. "
        "Ctrl-C ends the window early, with a report.",
    )
    parser.add_argument("pid", metavar="PID", type=pid, help="the process")
    measuring(parser, "seconds to measure (default 10)", default=10.0)
    outputs.add_options(parser)
    parser.set_defaults(call=attach, parser=parser)


def attach(args: argparse.Namespace) -> int:
    """Measure a process and report."""
    with outputs.Outputs(args) as output:
        title = f"measuring process {args.pid} for {args.duration:g} s (Ctrl-C ends it earlier)"
        m = watch(
            args.pid,
            args.duration,
            args.rate,
            out=output.screen,
            title=title,
            children=args.children,
            python=args.python,
        )
        return output.write(Report.of(m, None, given(args.parser, args)))
