# SPDX-License-Identifier: MIT OR Apache-2.0
"""The `zkprof` command: its parser, and how everything ends.

The commands are in `commands`; each returns an exit code or raises a
`ZkprofError`, whose text is then the only line on stderr.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .arguments import Parser, is_pid
from .commands import MODULES
from .errors import Exit, ZkprofError
from .runner import CommandError
from .text import clean
from .version import version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .arguments import Commands

_USAGE = """\
zkprof PID [options]
       zkprof run [options] -- CMD [ARG ...]
       zkprof COMMAND --help"""

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
  10  a condition of --fail-on is met
`zkprof run` exits with its command's code, unless --fail-on is met; where that
is 0 but --fail-on could not be decided, with 2, 3 or 4; with 126 and 127 if the
command cannot start.
"""


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
    try:
        args = _parsed(sys.argv[1:] if argv is None else list(argv))
        return int(args.call(args))
    except CommandError as error:
        sys.stderr.write(f"zkprof: {clean(str(error))}\n")
        return error.shell_code
    except ZkprofError as error:
        sys.stderr.write(f"zkprof: {clean(str(error))}\n")
        return int(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has had enough of it: nothing to say.
        sys.stderr.close()
        return Exit.OK
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    return _built()[0]


def _built() -> tuple[Parser, Commands]:
    whole = Parser(
        prog="zkprof",
        usage=_USAGE,
        description="Say whether a running prover is bound by memory allocation, and how\n"
        "much an allocator that keeps its pages would save.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"zkprof {version()}")
    commands = whole.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="zkprof"
    )
    for module in MODULES:
        module.register(commands)
    return whole, commands


def _parsed(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments; `zkprof PID` is short for `zkprof attach PID`."""
    whole, commands = _built()
    if not argv:
        whole.error("give a process (zkprof PID) or a command (zkprof run -- ./prove)")
    if argv and argv[0] not in (*commands.choices, "-h", "--help", "--version"):
        if not argv[0].startswith("-") and not is_pid(argv[0]):
            names = ", ".join(commands.choices)
            whole.error(f"{argv[0]!r} is neither a process number nor a command ({names})")
        argv = ["attach", *argv]
    return whole.parse_args(argv)
