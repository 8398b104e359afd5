# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command ``python -m benches``."""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benches import allocators, build, cases, machine, runner, summary, tables, targets, traces

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

QUICK_ALLOCATORS = "zknalloc,glibc,glibc-tuned,jemalloc-tuned,mimalloc3,tcmalloc"

DESCRIPTION = """\
Measure allocators on the memory patterns of provers, beside the limit that no
allocator can beat.
"""

EPILOG = """\
examples:
  python -m benches --list
  python -m benches --quick --only fill,burst --allocators glibc,zknalloc
  python -m benches --preload build/libzknalloc_preload.so --out results
  python -m benches --quick --only msm --allocators \\
      zknalloc,zknalloc+ZK_NALLOC_THP=0

exit status: 0 all was measured; 1 a benchmark or a build failed; 2 bad usage;
130 interrupted (what was measured until then is written all the same).
"""


class _UsageError(ValueError):
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benches",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list cases and allocators, then stop")
    add(
        "--only",
        metavar="CASE,…",
        default="",
        help="cases: names, beginnings (msm, fill) or wildcards (msm-*-repeat)",
    )
    add(
        "--allocators",
        metavar="NAME,…",
        help="allocators; NAME+VARIABLE=value adds a setting (default: all)",
    )
    add("--preload", type=Path, metavar="PATH", help="the library to measure as zknalloc")
    add(
        "--trace",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="replay this recording too (.csv or .csv.gz; may be repeated)",
    )
    add("--quick", action="store_true", help="shorter runs, fewer repetitions and allocators")
    add("--repetitions", type=_positive, metavar="N", help="runs of each pair (5; quick: 2)")
    add("--budget-ms", type=_positive, metavar="N", help="measured time a run (500; quick: 60)")
    add(
        "--syscalls",
        action=argparse.BooleanOptionalAction,
        help="count system calls, in further runs under strace (default: unless --quick)",
    )
    add("--out", type=Path, metavar="FOLDER", help="write results.csv, results.json and plots")
    add("--build", type=Path, default=_default_build(), metavar="FOLDER", help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _default_build() -> Path:
    return Path(__file__).resolve().parent.parent / "build" / "benches"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _list(console: Console, known: Sequence[cases.Case], preload: Path | None) -> None:
    width = max(len(case.name) for case in known)
    console.print("cases:")
    for case in known:
        console.print(f"  {case.name:{width}}  {case.what}", soft_wrap=True)
    console.print("\nallocators:")
    for found in allocators.find(allocators.names(), preload):
        note = f"missing: {found.missing}" if found.missing else found.allocator.title
        console.print(f"  {found.allocator.name:{width}}  {note}", soft_wrap=True)


def _programs(
    found: Sequence[allocators.Found], program: Path, folder: Path, console: Console
) -> tuple[list[allocators.Found], dict[str, Path], dict[str, str]]:
    """Find a program for every allocator; return those that have one, and who is missing."""
    present, programs, missing = [], {runner.LIMIT: program}, {}
    for one in found:
        name = one.allocator.name
        if one.missing:
            missing[name] = one.missing
            continue
        if one.allocator.crate:
            console.print(f"building {name} …", style="dim")
            try:
                programs[name] = build.build_crate(one.allocator.crate, folder)
            except build.BuildError as error:
                missing[name] = str(error)
                continue
        else:
            programs[name] = program
        present.append(one)
    return present, programs, missing


class _Results:
    """What has been measured so far."""

    def __init__(self) -> None:
        self.runs: list[runner.Run] = []
        self.syscalls: list[runner.Syscalls] = []
        self.failures: list[runner.Failure] = []
        self.interrupted = False

    def add(self, result: runner.Run | runner.Syscalls | runner.Failure) -> None:
        if isinstance(result, runner.Run):
            self.runs.append(result)
        elif isinstance(result, runner.Syscalls):
            self.syscalls.append(result)
        else:
            self.failures.append(result)

    def summary(self, plan: runner.Plan) -> summary.Summary:
        threads = {case.name: case.threads for case in plan.cases}
        return summary.summarise(self.runs, self.syscalls, threads)


def _execute(plan: runner.Plan, console: Console) -> _Results:
    """Run the plan, showing each case's table when the case is complete."""
    results = _Results()
    what = {case.name: case.what for case in plan.cases}
    # No refreshing thread: it would take a CPU while something is measured.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    shown_on = console if console.is_terminal else Console(stderr=True)
    with Progress(
        *columns,
        console=shown_on,
        auto_refresh=False,
        transient=True,
        disable=not shown_on.is_terminal,
    ) as progress:
        task = progress.add_task("", total=plan.steps)
        current = plan.cases[0].name

        def show(name: str) -> None:
            rows = results.summary(plan).of(name)
            if rows:
                console.print(tables.case_title(rows, what[name]), style="bold", soft_wrap=True)
                console.print(tables.case_table(rows))
                console.print()

        try:
            for result in runner.run_plan(plan):
                if result.case != current:
                    show(current)
                    current = result.case
                results.add(result)
                progress.update(task, advance=1, description=f"{result.case} {result.subject}")
                progress.refresh()
        except KeyboardInterrupt:  # what there is may have taken an hour
            results.interrupted = True
        show(current)
    return results


def _version(found: allocators.Found) -> str:
    """Return what identifies the build that was measured, without this machine's paths."""
    allocator = found.allocator
    if allocator.crate:
        return build.crate_version(allocator.crate, allocator.package) if allocator.package else ""
    return found.library.resolve().name if found.library else " ".join(platform.libc_ver())


def _write(
    folder: Path, plan: runner.Plan, results: _Results, missing: dict[str, str], began: float
) -> None:
    """Write all that `--out` promises."""
    from benches import plots  # noqa: PLC0415 - matplotlib takes a second to load

    folder.mkdir(parents=True, exist_ok=True)
    session: dict[str, Any] = {
        "machine": machine.describe(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began),
        "repetitions": plan.repetitions,
        "budget_ms": plan.budget_ms,
        "min_rounds": plan.min_rounds,
        "allocators": {
            found.allocator.name: {
                "title": found.allocator.title,
                "version": _version(found),
                "environment": dict(found.allocator.env),
            }
            for found in plan.allocators
        },
        "missing": missing,
        "interrupted": results.interrupted,
    }
    figures = results.summary(plan)
    verdicts = _verdicts(figures)
    tables.write_csv(figures, folder / "results.csv")
    tables.write_json(
        figures, session, results.runs, results.failures, verdicts, folder / "results.json"
    )
    sections = [
        f"## {title}\n\n{tables.markdown(figures, value)}"
        for value, title in tables.MARKDOWN.items()
    ]
    (folder / "tables.md").write_text("\n".join(sections))
    plots.draw(figures, folder)


def _verdicts(figures: summary.Summary) -> list[targets.Verdict]:
    return targets.judge(figures) if summary.OWN in figures.subjects() else []


def _run(options: argparse.Namespace, console: Console) -> int:
    if options.preload and not options.preload.is_file():
        raise _UsageError(f"--preload: there is no file {options.preload}")
    count_syscalls = not options.quick if options.syscalls is None else options.syscalls
    if count_syscalls and not shutil.which("strace"):
        if options.syscalls:
            raise _UsageError("--syscalls needs strace; install it, or leave the option out")
        console.print("missing: strace: system calls are not counted", style="yellow")
        count_syscalls = False
    began = time.time()
    program = build.build_c(options.build)
    known = cases.all_cases(
        build.list_patterns(program),
        [*traces.recorded(), *options.trace],
        options.build / "traces",
        len(os.sched_getaffinity(0)),
    )
    if options.list:
        _list(console, known, options.preload)
        return 0
    if options.allocators:
        names = _split(options.allocators)
    else:
        names = _split(QUICK_ALLOCATORS) if options.quick else allocators.names()
    found = allocators.find(names, options.preload)
    chosen = cases.select(known, _split(options.only))
    present, programs, missing = _programs(found, program, options.build, console)
    plan = runner.Plan(
        cases=chosen,
        allocators=present,
        programs=programs,
        repetitions=options.repetitions or (2 if options.quick else 5),
        budget_ms=options.budget_ms or (60 if options.quick else 500),
        min_rounds=4 if options.quick else 7,
        count_syscalls=count_syscalls,
    )
    results = _execute(plan, console)
    console.print(tables.LEGEND, soft_wrap=True)
    verdicts = _verdicts(results.summary(plan))
    if options.only:  # then it is no news that the rest was not measured
        verdicts = [verdict for verdict in verdicts if verdict.case]
    if verdicts:
        console.print(tables.verdict_table(verdicts))
        console.print()
    for name, reason in missing.items():
        console.print(f"missing: {name}: {reason}", style="yellow", soft_wrap=True)
    for failure in results.failures:
        console.print(
            f"failed: {failure.case} on {failure.subject}: {failure.reason}",
            style="red",
            soft_wrap=True,
        )
    if options.out:
        _write(options.out, plan, results, missing, began)
        console.print(f"written to {options.out}", soft_wrap=True)
    if results.interrupted:
        console.print("interrupted: what is above was measured, the rest was not", style="red")
        return EXIT_INTERRUPTED
    return EXIT_FAILED if results.failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        What follows the command's name; the process's own by default.

    Returns
    -------
    int
        The exit status.
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a table is out when its case is done
    console = Console(highlight=False)
    try:
        return _run(options, console)
    except (
        _UsageError,
        allocators.UnknownAllocatorError,
        cases.UnknownCaseError,
        traces.TraceError,
    ) as error:
        print(f"benches: {error}", file=sys.stderr)
        return EXIT_USAGE
    except build.BuildError as error:
        print(f"benches: {error}", file=sys.stderr)
        return EXIT_FAILED
