# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.provers`: real provers, whole proofs, every allocator.

Exit codes: 0 all rows were measured; 1 a prover failed, refused its own proof
or could not be installed; 2 bad usage; 3 something is not on this machine
(`--allow-missing` turns that into 0).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benches import allocators
from benches.allocators import OWN, REGISTRY, Found

from . import aims, markdown, profile, report
from .progress import Durations
from .registry import PROVERS
from .report import Case
from .runner import usable_cpus
from .session import Session, plan
from .store import Results
from .tools import Missing, default_cache

OK, FAILED, USAGE, MISSING = 0, 1, 2, 3


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benches.provers",
        description="Prove real circuits with published provers on every allocator.",
    )
    made.add_argument("provers", nargs="*", metavar="NAME", help="provers (default: all)")
    made.add_argument("--list", action="store_true", help="name provers and allocators, then stop")
    made.add_argument(
        "--allocators",
        metavar="A,B",
        help="what to compare; NAME+VARIABLE=value adds a setting (default: all)",
    )
    made.add_argument("--preload", type=Path, metavar="PATH", help="libzknalloc_preload.so to use")
    made.add_argument(
        "--size", default="default", metavar="S,T", help="quick, default, large, a number; several"
    )
    made.add_argument("--proofs", type=int, help="proofs in each process, 2 or more")
    made.add_argument("--rounds", type=int, default=2, help="processes for each setting")
    made.add_argument("--threads", type=int, default=usable_cpus(), help="threads of the prover")
    made.add_argument("--cache", type=Path, default=default_cache(), help="where to install")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    made.add_argument("--csv", type=Path, metavar="FILE", help="write one line for each proof")
    made.add_argument(
        "--record", type=Path, metavar="DIR", help="measure nothing, record a trace of each prover"
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write JSON, CSV, tables and plots there, together with the results it has already",
    )
    made.add_argument(
        "--earlier",
        choices=("add", "complete", "replace"),
        default="add",
        help="rows that DIR has already: add --rounds processes (default), "
        "complete them to so many, or measure them anew",
    )
    made.add_argument(
        "--show", type=Path, metavar="DIR", help="print what DIR holds as Markdown, then stop"
    )
    made.add_argument(
        "--zkprof",
        action="store_true",
        help="let zkprof predict the saving from the first glibc run, and say what happened",
    )
    made.add_argument("--zkprof-seconds", type=float, default=10.0, metavar="S")
    made.add_argument("--allow-missing", action="store_true", help="missing rows are no error")
    return made


def chosen(args: argparse.Namespace) -> list[Case]:
    """Return what is to be measured: provers, all where none is given, at each size."""
    if unknown := [name for name in args.provers if name not in PROVERS]:
        names = ", ".join(PROVERS)
        raise ValueError(f"unknown prover {', '.join(unknown)}: choose from {names}")
    if args.proofs is not None and args.proofs < 2:
        raise ValueError("--proofs needs 2 or more: the first proof is cold")
    if args.rounds < 1 or args.threads < 1:
        raise ValueError("--rounds and --threads need 1 or more")
    cases = [
        Case(name, PROVERS[name].size(size), args.threads)
        for name in args.provers or PROVERS
        for size in args.size.split(",")
    ]
    return list(dict.fromkeys(cases))


def compared(given: str | None, preload: Path | None) -> list[Found]:
    """Look for the allocators to compare, by default all that need no build of their own."""
    preloadable = [name for name, one in REGISTRY.items() if one.crate is None]
    return allocators.find(given.split(",") if given else preloadable, preload)


def show_list(console: Console) -> int:
    """Name every prover with its sizes, and every allocator."""
    for prover in PROVERS.values():
        sizes = ", ".join(f"{name} {size:,}" for name, size in prover.sizes.items())
        console.print(
            f"[bold]{prover.name}[/]  {escape(prover.title)}\n    {sizes} ({prover.unit})"
        )
    console.print()
    for found in compared(None, None):
        note = f"missing: {found.missing}" if found.missing else found.allocator.title
        console.print(f"[bold]{found.allocator.name}[/]  {escape(note)}")
    return OK


def draw(results: Results, folder: Path, console: Console) -> None:
    """Write the plots and the tables of everything that the folder holds."""
    (folder / "tables.md").write_text(markdown.render(results))
    try:
        from . import plots  # noqa: PLC0415 - matplotlib is of the extra "bench"
    except ImportError as error:
        console.print(f"no plots: {error}; pip install '.[bench]'", markup=False)
    else:
        plots.draw(report.summarise(results.runs), folder)
    console.print(f"written: {folder}", markup=False, soft_wrap=True)


def library(settings: dict[str, Found]) -> str | None:
    """Return version and digest of the library that is measured as ours."""
    own = (one.library for one in settings.values() if one.allocator.family == OWN)
    path = next((path for path in own if path is not None), None)
    if path is None:
        return None
    # What is preloaded is small; the library proper lies beside it.
    files = sorted(path.parent.glob("libzknalloc.so*")) or [path]
    return "sha256 " + hashlib.sha256(files[0].read_bytes()).hexdigest()[:12]


def show(folder: Path, console: Console) -> int:
    """Print what a folder holds, measuring nothing."""
    if not (folder / "results.json").exists():
        raise ValueError(f"{folder} has no results.json")
    console.print(markdown.render(Results.load(folder)), markup=False, soft_wrap=True, end="")
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    made = parser()
    args = made.parse_args(argv)
    console = Console(highlight=False)
    try:
        if args.list:
            return show_list(console)
        if args.show:
            return show(args.show, console)
        cases = chosen(args)
        wanted = compared(args.allocators, args.preload)
        results = Results.load(args.out)
    except ValueError as error:
        made.error(str(error))  # exits with 2
    settings = {} if args.record else {one.allocator.name: one for one in wanted if not one.missing}
    command = shlex.join(["python", "-m", "benches.provers", *(argv or sys.argv[1:])])
    variables = {name: found.variables() for name, found in settings.items()}
    try:
        this = results.begin(command, variables, library(settings))
    except ValueError as error:
        made.error(str(error))
    session = Session(
        console,
        args.cache,
        results,
        this,
        Durations.load(args.cache),
        args.out,
        args.zkprof_seconds if args.zkprof else None,
    )
    if args.record:
        for case in cases:
            session.record(case, args.proofs or PROVERS[case.prover].proofs, args.record)
        return exit_code(session, args)
    for found in wanted:
        if found.missing:
            session.note(this.missing, found.allocator.name, Missing(found.missing))
    if args.earlier == "replace":
        results.forget(cases, settings)
    complete = args.earlier == "complete"
    steps = plan(cases, settings, args.proofs, args.rounds, results, complete=complete)
    if steps:
        session.measure(steps, settings)
    finish(session, args)
    return exit_code(session, args)


def finish(session: Session, args: argparse.Namespace) -> None:
    """Say what holds, and write the files that were asked for."""
    results = session.results
    session.keep()
    predictions = results.predictions()
    if len(predictions) > 1:
        session.say(profile.table(predictions))
    if checked := aims.check(results.runs, predictions, results.profiles):
        session.say(aims.text(checked))
    if args.json:
        args.json.write_text(json.dumps(results.document(), indent=1) + "\n")
    if args.csv:
        with args.csv.open("w", newline="") as file:
            report.write_csv(results.runs, file)
    if args.out is not None and results.runs:
        draw(results, args.out, session.console)


def exit_code(session: Session, args: argparse.Namespace) -> int:
    """Say whether every row was measured."""
    if session.slice.failed:
        return FAILED
    return MISSING if session.slice.missing and not args.allow_missing else OK


if __name__ == "__main__":
    sys.exit(main())
