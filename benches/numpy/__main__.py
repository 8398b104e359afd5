# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.numpy`: NumPy's work on NumPy's allocator, on ours, and on others.

Exit codes: 0 all was measured; 1 a case failed or computed something wrong;
2 bad usage; 3 an allocator or module is not on this machine (`--allow-missing`
makes that 0).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from benches.allocators import REGISTRY, Allocator, Found, find
from benches.numpy import report
from benches.numpy.runner import INSTALL, LIMIT, Failed, Run, run_all
from benches.numpy.workloads import CASES, Case

OK, FAILED, USAGE, MISSING = 0, 1, 2, 3

DEFAULT = "limit,glibc,numpy-install,glibc-keep,jemalloc,jemalloc-tuned,mimalloc3,mimalloc3-tuned"


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benches.numpy",
        description="NumPy's work on NumPy's own allocator, on the cache and on others.",
    )
    made.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    made.add_argument("--list", action="store_true", help="name cases and allocators, then stop")
    made.add_argument("--allocators", metavar="A,B", default=DEFAULT, help=f"default: {DEFAULT}")
    made.add_argument("--repetitions", type=int, default=5, help="processes for each pair")
    made.add_argument("--seconds", type=float, default=1.0, help="of a process's rounds")
    made.add_argument("--rounds", type=int, default=5, help="of a process, at least")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    made.add_argument("--csv", type=Path, metavar="FILE", help="write a line for each row")
    made.add_argument("--allow-missing", action="store_true", help="what is missing is no error")
    return made


OWN = {
    LIMIT: Allocator(LIMIT, "the work alone, on arrays that are there", LIMIT),
    INSTALL: Allocator(INSTALL, "zk_nalloc.numpy.install(), nothing preloaded", INSTALL),
}
"""What the worker itself does, besides the allocators of other benchmarks."""


def chosen_cases(names: Sequence[str]) -> list[Case]:
    """Look cases up; all of them where none is named."""
    if unknown := [name for name in names if name not in CASES]:
        raise ValueError(f"unknown case {', '.join(unknown)}: choose from {', '.join(CASES)}")
    return [CASES[name] for name in names or CASES]


def chosen_allocators(names: Sequence[str]) -> list[Found]:
    """Look allocators up, ours and those that can be preloaded."""
    return [Found(OWN[name]) if name in OWN else find([name])[0] for name in names]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    made = parser()
    args = made.parse_args(argv)
    console = Console(highlight=False)
    if args.list:
        for case in CASES.values():
            console.print(f"[bold]{case.name}[/]  {case.what}")
        console.print()
        for allocator in (*OWN.values(), *REGISTRY.values()):
            if allocator.crate:  # a program of its own, nothing to preload
                continue
            console.print(f"[bold]{allocator.name}[/]  {allocator.title}")
        return OK
    try:
        cases = chosen_cases(args.cases)
        wanted = chosen_allocators(args.allocators.split(","))
        if crates := [found.allocator.name for found in wanted if found.allocator.crate]:
            raise ValueError(f"{', '.join(crates)}: Rust crates cannot be preloaded")
        if args.repetitions < 1 or args.rounds < 2:
            raise ValueError("--repetitions needs 1 or more, --rounds 2: the first is cold")
    except ValueError as error:
        made.error(str(error))  # exits with 2
    missing = {found.allocator.name: found.missing for found in wanted if found.missing}
    settings = {found.allocator.name: found.variables() for found in wanted if not found.missing}
    present: list[Case] = []
    for case in cases:
        if case.needs and importlib.util.find_spec(case.needs) is None:
            missing[case.name] = f"{case.needs} is not installed: pip install {case.needs}"
        else:
            present.append(case)
    runs: list[Run] = []
    failed: dict[str, str] = {}
    with console.status("") if console.is_terminal else nullcontext() as status:
        results = run_all(
            present,
            settings,
            repetitions=args.repetitions,
            seconds=args.seconds,
            min_rounds=args.rounds,
            progress=lambda text: status.update(text) if status else None,
        )
        current: list[Run] = []
        for result in results:
            if isinstance(result, Failed):
                failed[str(result)] = "failed"
                continue
            if current and result.case != current[0].case:
                show(console, current)
                current = []
            current.append(result)
            runs.append(result)
        show(console, current)
    rows = report.summarise(runs)
    if runs:
        console.print(report.LEGEND, soft_wrap=True)
        console.print()
    if verdicts := report.judge(rows):
        console.print(report.verdict_table(verdicts))
    for name, reason in missing.items():
        console.print(f"missing: {name}: {reason}", markup=False, soft_wrap=True)
    for text in failed:
        console.print(f"failed: {text}", markup=False, soft_wrap=True)
    if args.json:
        notes = {"missing": missing, "failed": failed}
        args.json.write_text(json.dumps(report.document(runs, rows, settings, notes)) + "\n")
    if args.csv:
        with args.csv.open("w", newline="") as file:
            report.write_csv(rows, file)
    if failed:
        return FAILED
    return MISSING if missing and not args.allow_missing else OK


def show(console: Console, runs: Sequence[Run]) -> None:
    """Print the table of one case."""
    if runs:
        console.print(f"{runs[0].case}: {CASES[runs[0].case].what}", style="bold", soft_wrap=True)
        console.print(report.table(report.summarise(runs)))
        console.print()


if __name__ == "__main__":
    sys.exit(main())
