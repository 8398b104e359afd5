# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.zkprof`: check zkprof against programs whose truth is known.

Exit codes: 0 all aims were met; 1 some were not; 2 bad usage; 3 this user or machine cannot
sample the kernel, so there is nothing to check, or a target failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from zkprof.model import Tier

from . import table
from .document import Conditions, document, earlier, together
from .judge import Judgement, judge
from .race import BenchError, allocators, race
from .targets import TARGETS, Target, build

OK, MISSED, USAGE, IMPOSSIBLE = 0, 1, 2, 3


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    made = argparse.ArgumentParser(prog="python -m benches.zkprof", description=__doc__)
    made.add_argument("targets", nargs="*", metavar="NAME", help="targets (default: all)")
    made.add_argument("--list", action="store_true", help="name the targets, then stop")
    made.add_argument("--quick", action="store_true", help="4 rounds instead of 12")
    made.add_argument("--rounds", type=int, help="batches of about a second on each allocator")
    made.add_argument("--rate", type=float, default=397.0, help="samples a second (default 397)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all numbers as JSON")
    made.add_argument(
        "--keep", action="store_true", help="keep what FILE has of targets not measured now"
    )
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    made = parser()
    args = made.parse_args(argv)
    console = Console(highlight=False)
    if args.list:
        for target in TARGETS:
            console.print(f"{target.name:14s} {target.what}", markup=False)
        return OK
    known = {target.name: target for target in TARGETS}
    if unknown := [name for name in args.targets if name not in known]:
        made.error(f"unknown target {', '.join(unknown)}: choose from {', '.join(known)}")
    rounds = args.rounds or (4 if args.quick else 12)
    if rounds < 3:
        made.error("--rounds needs 3 or more: a median of fewer says nothing")
    if args.keep and not args.json:
        made.error("--keep needs --json FILE, where the other targets are")
    conditions = Conditions.here(rounds, args.rate)
    chosen = [known[name] for name in args.targets] or list(TARGETS)
    try:
        old = earlier(args.json, conditions) if args.keep else []
        judgements = together(old, _run(chosen, rounds, args.rate, console))
    except BenchError as error:
        console.print(f"benches.zkprof: {error}", markup=False, style="red", soft_wrap=True)
        return IMPOSSIBLE
    console.print(table.summary_text(judgements), markup=False, soft_wrap=True)
    if args.json:
        args.json.write_text(json.dumps(document(judgements, conditions), indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text(table.markdown(judgements, str(conditions)))
    return OK if table.all_met(judgements) else MISSED


def _run(
    chosen: Sequence[Target], rounds: int, rate_hz: float, console: Console
) -> list[Judgement]:
    environments = allocators(os.environ)
    judgements = []
    with tempfile.TemporaryDirectory(prefix="zkprof-bench-") as folder:
        program = build(Path(folder))
        for number, target in enumerate(chosen, start=1):
            began = time.monotonic()
            title = f"{number}/{len(chosen)} {target.name}: {target.what}"
            with console.status(title):
                outcome = race(
                    target.command(program),
                    environments,
                    min(rounds, target.batches),
                    tuple(Tier),
                    rate_hz,
                )
            if problem := outcome.problems.get(Tier.KERNEL):
                raise BenchError(f"the kernel cannot be sampled: {problem}")
            judgements.append(judge(target, outcome))
            console.print(
                f"{title}  ({time.monotonic() - began:.0f} s)", markup=False, soft_wrap=True
            )
            console.print(table.lines(judgements[-1]), markup=False, soft_wrap=True)
    return judgements


if __name__ == "__main__":
    sys.exit(main())
