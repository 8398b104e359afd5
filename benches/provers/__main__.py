# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.provers`: real provers, whole proofs, every allocator.

Exit codes: 0 all rows were measured; 1 a prover failed, refused its own proof
or could not be installed; 2 bad usage; 3 something is not on this machine
(`--allow-missing` turns that into 0).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from benches import allocators
from benches.allocators import REGISTRY, Found

from . import profile, report
from .record import record
from .registry import PROVERS, Prover
from .runner import Run, RunFailed, Workload, usable_cpus
from .tools import CSources, InstallFailed, Missing, default_cache

OK, FAILED, USAGE, MISSING = 0, 1, 2, 3


@dataclass(slots=True)
class Session:
    """What one invocation has found so far."""

    console: Console
    runs: list[Run] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    predictions: list[profile.Prediction] = field(default_factory=list)

    def note(self, kind: dict[str, str], name: str, error: Exception) -> None:
        """Record and show why a row will not be there."""
        kind[name] = str(error)
        label = "missing" if kind is self.missing else "failed"
        self.console.print(f"{label}: {name}: {error}", markup=False, soft_wrap=True)


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
    made.add_argument("--size", default="default", help="quick, default, large or a number")
    made.add_argument("--proofs", type=int, help="proofs in each process, 2 or more")
    made.add_argument("--rounds", type=int, default=2, help="processes for each setting")
    made.add_argument("--threads", type=int, default=usable_cpus(), help="threads of the prover")
    made.add_argument("--cache", type=Path, default=default_cache(), help="where to install")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    made.add_argument("--csv", type=Path, metavar="FILE", help="write one line for each proof")
    made.add_argument(
        "--record", type=Path, metavar="DIR", help="measure nothing, record a trace of each prover"
    )
    made.add_argument("--out", type=Path, metavar="DIR", help="write JSON, CSV and plots there")
    made.add_argument(
        "--zkprof",
        action="store_true",
        help="let zkprof predict the saving from the first glibc run, and say what happened",
    )
    made.add_argument("--zkprof-seconds", type=float, default=10.0, metavar="S")
    made.add_argument("--allow-missing", action="store_true", help="missing rows are no error")
    return made


def chosen(given: Sequence[str]) -> list[Prover]:
    """Look provers up; all of them where none is given."""
    if unknown := [name for name in given if name not in PROVERS]:
        names = ", ".join(PROVERS)
        raise ValueError(f"unknown prover {', '.join(unknown)}: choose from {names}")
    return [PROVERS[name] for name in given] if given else list(PROVERS.values())


def compared(given: str | None, preload: Path | None) -> list[Found]:
    """Look for the allocators to compare: by default all that can be preloaded."""
    preloadable = [name for name, one in REGISTRY.items() if one.crate is None]
    return allocators.find(given.split(",") if given else preloadable, preload)


def measure(
    session: Session,
    prover: Prover,
    settings: dict[str, dict[str, str]],
    args: argparse.Namespace,
) -> None:
    """Install one prover, run it on every allocator in turn, show its table."""
    size = prover.size(args.size)
    proofs = args.proofs or prover.proofs
    runs: list[Run] = []
    profiled: Run | None = None
    busy: AbstractContextManager[Status | None] = (
        session.console.status("") if session.console.is_terminal else nullcontext()
    )
    with busy as status:

        def progress(text: str) -> None:
            if status is not None:
                status.update(escape(text))

        try:
            progress(f"installing {prover.title}")
            workload = Workload(
                prover,
                prover.tool.install(args.cache),
                size,
                args.threads,
                args.cache.resolve() / "data" / prover.name,
            )
            progress(f"{prover.name}: keys and circuits")
            workload.prepare()
            if args.record:
                line = record(workload, proofs, args.record, progress)
                session.console.print(line, markup=False, soft_wrap=True)
                return
        except Missing as error:
            session.note(session.missing, prover.name, error)
            return
        except (InstallFailed, RunFailed) as error:
            session.note(session.failed, prover.name, error)
            return
        for number in range(args.rounds):
            for name, variables in settings.items():
                if f"{prover.name} on {name}" in session.failed:
                    continue
                try:
                    one, settled = linked(workload, variables, args.cache)
                    if args.zkprof and name == "glibc" and number == 0:
                        run, found = profile.profile(
                            one, name, proofs, settled, args.zkprof_seconds, progress
                        )
                        if found["report"] is None:
                            late = RunFailed(f"no report: {found['screen'].strip()}")
                            session.note(session.failed, f"zkprof of {prover.name}", late)
                        else:
                            profiled = run
                            session.profiles[prover.name] = found
                    else:
                        run = one.run(name, proofs, settled, progress)
                    runs.append(run)
                except (Missing, InstallFailed, RunFailed) as problem:
                    session.note(session.failed, f"{prover.name} on {name}", problem)
        if not runs:
            return
        session.runs.extend(runs)
        rows = report.summarise(runs)
    session.console.print(report.table(rows, runs[0].what))
    ours = next((row for row in rows if row.allocator == allocators.OWN), None)
    if profiled is not None and ours is not None:
        found = session.profiles[prover.name]
        session.predictions.append(profile.compare(profiled, found, ours))
        session.console.print(profile.table(session.predictions[-1:]), markup=False)


def linked(
    workload: Workload, variables: dict[str, str], cache: Path
) -> tuple[Workload, dict[str, str]]:
    """Where our library is to be preloaded into a program that can link it, link it."""
    tool = workload.prover.tool
    preload = variables.get("LD_PRELOAD", "")
    if not isinstance(tool, CSources) or Path(preload).name != "libzknalloc_preload.so":
        return workload, variables
    others = {k: v for k, v in variables.items() if k != "LD_PRELOAD"}
    return replace(workload, installed=tool.linked(cache, Path(preload))), others


def available(session: Session, wanted: Sequence[Found]) -> dict[str, dict[str, str]]:
    """Return the variables of each allocator that this machine has."""
    for found in wanted:
        if found.missing:
            session.note(session.missing, found.allocator.name, Missing(found.missing))
    return {found.allocator.name: found.variables() for found in wanted if not found.missing}


def show_list(console: Console) -> None:
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


def write(
    session: Session, command: str, settings: dict[str, dict[str, str]], args: argparse.Namespace
) -> None:
    """Write the files that were asked for."""
    document = report.document(
        session.runs,
        command=command,
        settings=settings,
        missing=session.missing,
        failed=session.failed,
        predictions=[asdict(one) | {"holds": one.holds} for one in session.predictions],
        zkprof={name: found["report"]["estimate"] for name, found in session.profiles.items()},
    )
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    if args.csv:
        with args.csv.open("w", newline="") as file:
            report.write_csv(session.runs, file)
    if args.out is None:
        return
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    rows = report.summarise(session.runs)
    with (args.out / "proofs.csv").open("w", newline="") as file:
        report.write_csv(session.runs, file)
    with (args.out / "summary.csv").open("w", newline="") as file:
        report.write_rows(rows, report.Summary, file)
    with (args.out / "predictions.csv").open("w", newline="") as file:
        report.write_rows(session.predictions, profile.Prediction, file)
    for name, found in session.profiles.items():
        (args.out / f"zkprof-{name}.json").write_text(json.dumps(found["report"]) + "\n")
    try:
        from . import plots  # noqa: PLC0415 - matplotlib is of the extra "bench"
    except ImportError as error:
        session.console.print(f"no plots: {error}; pip install '.[bench]'", markup=False)
    else:
        plots.draw(rows, args.out)
    session.console.print(f"written: {args.out}", markup=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    made = parser()
    args = made.parse_args(argv)
    console = Console(highlight=False)
    if args.list:
        show_list(console)
        return OK
    try:
        provers = chosen(args.provers)
        wanted = compared(args.allocators, args.preload)
        for prover in provers:
            prover.size(args.size)
        if args.proofs is not None and args.proofs < 2:
            raise ValueError("--proofs needs 2 or more: the first proof is cold")
        if args.rounds < 1 or args.threads < 1:
            raise ValueError("--rounds and --threads need 1 or more")
    except ValueError as error:
        made.error(str(error))  # exits with 2
    session = Session(console)
    settings = {} if args.record else available(session, wanted)
    for prover in provers if settings or args.record else []:
        measure(session, prover, settings, args)
    if len(session.predictions) > 1:
        console.print(profile.table(session.predictions), markup=False)
    command = shlex.join(["python", "-m", "benches.provers", *(argv or sys.argv[1:])])
    write(session, command, settings, args)
    if session.failed:
        return FAILED
    return MISSING if session.missing and not args.allow_missing else OK


if __name__ == "__main__":
    sys.exit(main())
