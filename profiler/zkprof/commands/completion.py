# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof completion SHELL`: the script that completes zkprof's arguments.

The script is complete in itself: completing starts no Python.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import shtab

from zkprof.errors import Exit

if TYPE_CHECKING:
    import argparse

    from zkprof.arguments import Commands

_SHELLS = ("bash", "zsh", "fish")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help="write the script that completes arguments in a shell",
        description="Write the script that completes zkprof's arguments: "
        "source <(zkprof completion bash), or put it where the shell looks for it.",
    )
    parser.add_argument("shell", choices=_SHELLS, help="the shell")
    parser.set_defaults(call=completion)


def completion(args: argparse.Namespace) -> int:
    """Write the script of a shell."""
    from zkprof.cli import parser  # noqa: PLC0415  (it imports this module)

    sys.stdout.write(shtab.complete(parser(), shell=args.shell).rstrip("\n") + "\n")
    return Exit.OK
