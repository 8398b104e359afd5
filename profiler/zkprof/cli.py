# SPDX-License-Identifier: MIT OR Apache-2.0
"""The `zkprof` command."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .demo import demo
from .errors import Exit, ZkprofError
from .estimate import Verdict
from .render import console, screen, show
from .report import Report, ReportError, dump, load
from .runner import Child, CommandError, watch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self, TextIO

_EPILOG = """\
verdicts, by the wall time that an allocator which keeps its pages would save:
  allocation-bound       15 % or more
  allocation-heavy       5 % to 15 %
  not allocation-bound   less than 5 %
  growth-bound           memory management takes 10 % or more, but 70 % or more
                         of the memory was new: no allocator saves that
  inconclusive           too few samples, too many lost, or too wide a range

exit codes:
  0  a verdict was reached, whatever it is
  1  wrong usage, or a file that cannot be read or written
  2  no such process, or it ended before anything was measured
  3  the process may not be observed by this user
  4  measured, but inconclusive
`zkprof run` exits with its command's code; 126 and 127 if it cannot start.
"""

_RATE_LIMITS = (1.0, 10_000.0)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 1."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}; see {self.prog} --help\n")
        raise SystemExit(Exit.ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv
        The arguments; None takes those of the process.

    Returns
    -------
    int
        The exit code, see `errors.Exit`.
    """
    args = _parser().parse_args(_with_command(sys.argv[1:] if argv is None else list(argv)))
    try:
        return int(args.call(args))
    except CommandError as error:
        sys.stderr.write(f"zkprof: {error}\n")
        return error.shell_code
    except ZkprofError as error:
        sys.stderr.write(f"zkprof: {error}\n")
        return int(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has had enough of it: nothing to say.
        sys.stderr.close()
        return Exit.OK
    except KeyboardInterrupt:
        return 130


# ------------------------------------------------------------------- commands


def _attach(args: argparse.Namespace) -> int:
    with _Output(args.json) as output:
        title = f"measuring process {args.pid} for {args.duration:g} s (Ctrl-C ends it earlier)"
        m = watch(args.pid, args.duration, args.rate, out=output.screen, title=title)
        return output.write(Report.of(m))


def _run(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        message = "what is to be run? zkprof run [-d SECONDS] -- CMD [ARG ...]"
        raise ZkprofError(message)
    # Standard output is the command's; the report goes to stderr.
    with _Output(args.json, to=sys.stderr) as output, Child(command) as child:
        try:
            m = watch(child.pid, args.duration or math.inf, args.rate, out=None, title="")
            output.write(Report.of(m, command))
        except ZkprofError as error:
            sys.stderr.write(f"zkprof: {error}\n")
        return child.wait()


def _demo(args: argparse.Namespace) -> int:
    with _Output(args.json) as output:
        return demo(
            output.screen or console(sys.stderr),
            json_file=output.file,
            log_rows=args.log_rows,
            threads=args.threads,
            proofs=args.proofs,
            prover=args.prover,
            preload=args.preload,
        )


def _report(args: argparse.Namespace) -> int:
    report = load(args.file)
    show(console(sys.stdout), screen(report))
    return _code(report)


def _code(report: Report) -> Exit:
    inconclusive = report.estimate.verdict is Verdict.INCONCLUSIVE
    return Exit.INCONCLUSIVE if inconclusive else Exit.OK


class _Output:
    """Where a report goes: a screen, a JSON file, or JSON on standard output.

    The file is opened at once, so that a path that cannot be written is known
    before anything is measured, and removed again when nothing came of it.
    """

    def __init__(self, json: str | None, to: TextIO = sys.stdout) -> None:
        self.screen = None if json == "-" else console(to)
        self.file: TextIO | None = None
        self._path = Path(json) if json not in (None, "-") else None
        self._json = json

    def __enter__(self) -> Self:
        if self._json == "-":
            self.file = sys.stdout
        elif self._path:
            self._existed = self._path.exists()
            try:
                self.file = self._path.open("a", encoding="utf-8")
            except OSError as error:
                message = f"cannot write {self._path}: {error.strerror}"
                raise ReportError(message) from error
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if self._path and self.file:
            self.file.close()
            if failed and not self._existed:
                self._path.unlink(missing_ok=True)

    def write(self, report: Report) -> Exit:
        """Show the report, write it, and return the exit code."""
        if self.screen:
            show(self.screen, screen(report))
        if self.file:
            if self._path:
                self.file.truncate(0)
            self.file.write(dump(report))
        return _code(report)


# ------------------------------------------------------------------ arguments


def _with_command(argv: list[str]) -> list[str]:
    """Spell `zkprof PID` as `zkprof attach PID`."""
    if not argv or argv[0] in (*_COMMANDS, "-h", "--help", "--version"):
        return argv
    return ["attach", *argv]


def _pid(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        names = ", ".join(_COMMANDS)
        message = f"{text!r} is neither a process number nor a command ({names})"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _duration(text: str) -> float:
    seconds = _number(text)
    if not 0.1 <= seconds <= 86_400:
        message = f"{text!r} is no duration: give seconds, from 0.1 to 86400"
        raise argparse.ArgumentTypeError(message)
    return seconds


def _rate(text: str) -> float:
    rate = _number(text)
    low, high = _RATE_LIMITS
    if not low <= rate <= high:
        message = f"{text!r} is no rate: give samples a second, from {low:g} to {high:g}"
        raise argparse.ArgumentTypeError(message)
    return rate


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # fails every comparison


def _whole(low: int, high: int) -> type[int]:
    """Return an argument type: whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            message = f"{text!r} is no whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse  # type: ignore[return-value]


def _version() -> str:
    try:
        return importlib.metadata.version("zk-nalloc")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


_COMMANDS = ("attach", "run", "demo", "report")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="zkprof",
        usage="zkprof PID [-d SECONDS] [--json FILE] [--rate HZ]\n"
        "       zkprof run [-d SECONDS] [--json FILE] [--rate HZ] -- CMD [ARG ...]\n"
        "       zkprof demo [--json FILE]\n"
        "       zkprof report FILE",
        description="Say whether a running prover is bound by memory allocation, and how\n"
        "much an allocator that keeps its pages would save.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"zkprof {_version()}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="zkprof"
    )

    attach = commands.add_parser(
        "attach", help="measure a running process; the word may be left out"
    )
    attach.add_argument("pid", metavar="PID", type=_pid, help="the process")
    _measuring(attach, "seconds to measure (default 10)", default=10.0)
    attach.set_defaults(call=_attach)

    run = commands.add_parser(
        "run",
        help="start a command and measure it",
        usage="%(prog)s [-d SECONDS] [--json FILE] [--rate HZ] -- CMD [ARG ...]",
        description="Start CMD and measure it from its first instruction on; the report "
        "goes to standard error, and CMD's exit code is passed on.",
    )
    _measuring(run, "seconds to measure (default: until CMD ends)", default=None)
    run.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER, help="what to run")
    run.set_defaults(call=_run)

    show = commands.add_parser("demo", help="predict the gain for a small prover, then measure it")
    show.add_argument("--json", metavar="FILE", help="write the results as JSON; - is stdout")
    show.add_argument(
        "--log-rows", type=_whole(6, 22), default=16, metavar="N", help="2^N rows (default 16)"
    )
    show.add_argument(
        "--threads", type=_whole(1, 64), default=1, metavar="T", help="of the prover (default 1)"
    )
    show.add_argument(
        "--proofs", type=_whole(2, 1000), default=7, metavar="K", help="on each (default 7)"
    )
    show.add_argument("--prover", type=Path, metavar="FILE", help="another demonstration prover")
    show.add_argument("--preload", type=Path, metavar="FILE", help="another libzknalloc_preload.so")
    show.set_defaults(call=_demo)

    report = commands.add_parser("report", help="show a report that --json has written")
    report.add_argument("file", metavar="FILE", type=Path)
    report.set_defaults(call=_report)
    return parser


def _measuring(parser: argparse.ArgumentParser, help_text: str, default: float | None) -> None:
    parser.add_argument(
        "-d", "--duration", metavar="SECONDS", type=_duration, default=default, help=help_text
    )
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - is stdout")
    parser.add_argument(
        "--rate",
        metavar="HZ",
        type=_rate,
        default=199.0,
        help="samples per second of CPU time (default 199)",
    )
