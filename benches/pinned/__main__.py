# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.pinned`: filling host buffers and copying them to a GPU, in each proof.

Exit codes: 0 all was measured; 1 a way or a build failed; 2 bad usage, or there is no GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from benches.build import BuildError, build_c
from benches.pinned import report
from benches.pinned.runner import Failed, NoGpu, Run, list_ways, probe, run_all

OK, FAILED, USAGE = 0, 1, 2

HERE = Path(__file__).resolve().parent
MIB = 1 << 20

#: Besides the large buffers: some that are no multiple of anything.
ODD = (3 * MIB + 4097, 17 * MIB + 64, 5 * MIB - 8, 100_001)

#: Where drivers are that the dynamic linker does not know: containers mount them there.
ELSEWHERE = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/wsl/lib")


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    made = argparse.ArgumentParser(prog="python -m benches.pinned", description=__doc__)
    add = made.add_argument
    add("ways", nargs="*", metavar="WAY", help="ways to come by memory (default: all)")
    add("--list", action="store_true", help="name the ways, then stop")
    add("--cuda", metavar="PATH", help="libcuda (default: the system's libcuda.so.1)")
    add("--buffers", type=int, default=8, metavar="N", help="large buffers a round (8)")
    add("--mib", type=int, default=64, metavar="N", help="MiB of each (64)")
    add("--rounds", type=int, default=7, metavar="N", help="of a process, the first cold (7)")
    add("--repetitions", type=int, default=3, metavar="N", help="processes of each way (3)")
    add("--seconds", type=float, default=50.0, help="begin no repetition that ends later (50)")
    add("--json", type=Path, metavar="FILE", help="write everything as JSON")
    folder = HERE.parents[1] / "build" / "pinned"
    add("--build", type=Path, default=folder, metavar="FOLDER", help=argparse.SUPPRESS)
    return made


def find_cuda() -> str:
    """Return the path of the driver's library, or the name that the linker knows it by."""
    name = "libcuda.so.1"
    with suppress(OSError):
        ctypes.CDLL(name)
        return name
    found = (Path(folder, name) for folder in ELSEWHERE if Path(folder, name).is_file())
    return str(next(found, name))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    made = parser()
    args = made.parse_args(argv)
    console = Console(highlight=False)
    if min(args.buffers, args.mib, args.repetitions) < 1 or args.rounds < 2:
        made.error("--rounds needs 2 or more, the others 1: the first round is cold")
    try:
        program = build_c(args.build, HERE / "c", "pinned")
    except BuildError as error:
        print(f"benches.pinned: {error}", file=sys.stderr)
        return FAILED
    known = list_ways(program)
    if args.list:
        print("\n".join(known))
        return OK
    if unknown := [way for way in args.ways if way not in known]:
        made.error(f"unknown way {', '.join(unknown)}: choose from {', '.join(known)}")
    ways = args.ways or known
    sizes = [args.mib * MIB] * args.buffers + list(ODD)
    cuda = args.cuda or find_cuda()
    answers: list[dict[str, str]] = []
    failures: list[Failed] = []
    runs: list[Run] = []
    try:
        answers, failure = probe(program, cuda)
        if failure:
            failures.append(failure)
        for result in run_all(
            program,
            cuda,
            ways,
            sizes,
            rounds=args.rounds,
            repetitions=args.repetitions,
            seconds=args.seconds,
        ):
            if isinstance(result, Run):
                runs.append(result)
                print(f"{result.way}: {result.warm('wall_ns') / 1e6:.1f} ms", file=sys.stderr)
            else:
                failures.append(result)
    except NoGpu as error:
        print(f"benches.pinned: {error}", file=sys.stderr)
        return USAGE
    _show(console, runs, failures, answers, sizes)
    if args.json:
        document = report.document(runs, failures, answers, sizes)
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    return FAILED if failures else OK


def _show(
    console: Console,
    runs: Sequence[Run],
    failures: Sequence[Failed],
    answers: Sequence[dict[str, str]],
    sizes: Sequence[int],
) -> None:
    if runs:
        process = runs[0].process
        console.print(
            f"{process['device']}, driver {process['driver']}; {len(sizes)} buffers a round, "
            f"{sum(sizes) / MIB:.0f} MiB",
            style="bold",
            soft_wrap=True,
        )
        console.print(report.table(report.summarise(runs)))
        console.print(report.LEGEND, soft_wrap=True)
        console.print()
    if answers:
        console.print(report.probe_table(answers))
    for failure in failures:
        console.print(
            f"failed: {failure.way}: {failure.reason}", style="red", markup=False, soft_wrap=True
        )


if __name__ == "__main__":
    sys.exit(main())
