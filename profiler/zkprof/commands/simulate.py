# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof simulate FILE`: which size of the cache would serve a program best."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from zkprof.arguments import file_option
from zkprof.files import STANDARD_OUTPUT, replacing
from zkprof.render import console
from zkprof.simulate import parse_size, simulate

if TYPE_CHECKING:
    from zkprof.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "simulate",
        help="find the size of cache that a trace or a report asks for",
        description="Replay a trace of `zk-nalloc record` through libzknalloc with caches of "
        "different sizes, without touching the memory, and show what each would serve. Of a "
        "report of --json the same is estimated from the process's memory.",
    )
    file = parser.add_argument("file", metavar="FILE", type=Path, help="a trace, or a report")
    file.complete = shtab.FILE
    parser.add_argument(
        "--cache", metavar="SIZES", type=_sizes, default=[], help="to try, as 512M,1G,2G"
    )
    file_option(parser, "--json", "write the results as JSON")
    parser.set_defaults(call=_simulate)


def _sizes(text: str) -> list[int]:
    try:
        return [parse_size(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _simulate(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        return simulate(
            args.file,
            console(sys.stderr if args.json == STANDARD_OUTPUT else sys.stdout),
            sizes=args.cache,
            json_file=stack.enter_context(replacing(args.json)) if args.json else None,
        )
