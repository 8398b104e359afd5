# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof doctor [PID]`: what can be measured here, and what would enable the rest."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from zkprof.arguments import pid
from zkprof.doctor import Diagnosis, diagnose
from zkprof.errors import Exit
from zkprof.model import Tier
from zkprof.render import console, show

if TYPE_CHECKING:
    import argparse

    from zkprof.arguments import Commands

SCHEMA = "zkprof-doctor/1"

_TIERS = {
    Tier.KERNEL: "Measured by kernel stacks: everything is told apart.",
    Tier.USER: "Measured by unprivileged perf: the kernel's share and where faults are.",
    Tier.PROC: "Measured by counters in /proc only: shares are estimates, without stacks.",
}


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what can be measured here, and what would enable the rest",
        description="Try all that measuring needs, on process PID or on zkprof itself, and say "
        "what works and which command would enable the rest.",
    )
    parser.add_argument(
        "pid", metavar="PID", type=pid, nargs="?", help="the process to be measured"
    )
    parser.add_argument("--json", action="store_true", help="write JSON to standard output")
    parser.set_defaults(call=doctor)


def doctor(args: argparse.Namespace) -> int:
    """Try everything and say what came of it."""
    found = diagnose(args.pid)
    if args.json:
        json.dump({"schema": SCHEMA, **asdict(found)}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show(console(sys.stdout), _table(found))
    return Exit.OK


def _table(found: Diagnosis) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    for check in found.checks:
        mark = Text("yes", "green") if check.ok else Text("no", "bold red")
        table.add_row(mark, Text(check.detail))
        if check.fix:
            # Unbroken, so that it can be copied, and cut by no terminal.
            table.add_row("", Padding(Text(check.fix, "bold"), (0, 0, 0, 2)))
    table.add_row("", "")
    table.add_row("", Text(_TIERS[found.tier], "bold"))
    return table
