# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof demo`: predict the gain for a small prover, then measure it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from zkprof.arguments import file_option, whole
from zkprof.demo import demo
from zkprof.files import STANDARD_OUTPUT, replacing
from zkprof.render import console

if TYPE_CHECKING:
    import argparse

    from zkprof.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="predict the gain for a small prover, then measure it",
        description="Measure a small STARK prover, predict what libzknalloc would save, then let "
        "it prove in turns on the system allocator, on libzknalloc and on a glibc that never "
        "gives memory back, and compare.",
    )
    file_option(parser, "--json", "write the results as JSON")
    parser.add_argument(
        "--log-rows", type=whole(6, 22), default=16, metavar="N", help="2^N rows (default 16)"
    )
    parser.add_argument(
        "--threads", type=whole(1, 64), default=1, metavar="T", help="of the prover (default 1)"
    )
    parser.add_argument(
        "--proofs", type=whole(2, 1000), default=7, metavar="K", help="on each (default 7)"
    )
    for name, what in (
        ("--prover", "another demonstration prover"),
        ("--preload", "another libzknalloc_preload.so"),
    ):
        option = parser.add_argument(name, type=Path, metavar="FILE", help=what)
        option.complete = shtab.FILE
    parser.set_defaults(call=_demo)


def _demo(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        return demo(
            console(sys.stderr if args.json == STANDARD_OUTPUT else sys.stdout),
            json_file=stack.enter_context(replacing(args.json)) if args.json else None,
            log_rows=args.log_rows,
            threads=args.threads,
            proofs=args.proofs,
            prover=args.prover,
            preload=args.preload,
        )
