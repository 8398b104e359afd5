# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof report FILE`: show a saved report, or write it in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from zkprof import outputs
from zkprof.report import load

if TYPE_CHECKING:
    import argparse

    from zkprof.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="show a report that --json has written, or write it in another format",
        description="Show a report that --json has written, judged by the rules of this version.",
    )
    file = parser.add_argument("file", metavar="FILE", type=Path, help="a report")
    file.complete = shtab.FILE
    outputs.add_options(parser)
    parser.set_defaults(call=report)


def report(args: argparse.Namespace) -> int:
    """Show a saved report."""
    with outputs.Outputs(args) as output:
        return output.write(load(args.file))
