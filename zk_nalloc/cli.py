# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command `zk-nalloc`: run or record a program, or build against the library.

Exit codes of `zk-nalloc run` and `zk-nalloc record` are those of `env` and
`nohup`: the command's own once it has started, else 125 (zk-nalloc failed), 126
(the command was found but cannot be executed) or 127 (not found).  `record`
exits with 125 too where the command succeeded but left nothing to record, and,
as a shell does, with 128 + N where signal N ended it.  Bad usage is 2.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from zk_nalloc import _config, _preload, _record, version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_FAILED: Final = 125
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127

# The same as the library accepts; see ZK_NALLOC_CACHE_BYTES.
_SIZE: Final = re.compile(r"(?:[0-9]+(?:[KMGT](?:i?B)?)?|auto)", re.IGNORECASE)


class _CommandError(Exception):
    """A failure that the user can mend: its text and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _size(text: str) -> str:
    if not _SIZE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write bytes, or a number with K, M, G or T, or 'auto'"
        )
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _command(args: argparse.Namespace, verb: str) -> tuple[Path, list[str]]:
    """Return the program to start and its arguments, having warned of what is odd."""
    command: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise _CommandError(f"no command given; write zk-nalloc {verb} -- CMD [ARG ...]", 2)
    try:
        program = _preload.find_command(command[0])
    except FileNotFoundError as error:
        raise _CommandError(str(error), _NOT_FOUND) from error
    except PermissionError as error:
        raise _CommandError(str(error), _NOT_EXECUTABLE) from error
    for warning in _preload.warnings_about(program):
        print(f"zk-nalloc: warning: {warning}", file=sys.stderr)
    sys.stderr.flush()
    return program, command


def _environment(library: Path, *, cache: str | None = None, stats: bool = False) -> dict[str, str]:
    """Return the environment that preloads `library`."""
    if not library.is_file():
        raise _CommandError(f"{library} is missing; install zk-nalloc again", _FAILED)
    try:
        return _preload.environment(library, os.environ, cache=cache, stats=stats)
    except ValueError as error:
        raise _CommandError(str(error), _FAILED) from error


def _cannot_execute(program: Path, error: OSError) -> _CommandError:
    hint = _HINTS.get(error.errno or 0, "")
    return _CommandError(f"cannot execute {program}: {error.strerror}{hint}", _NOT_EXECUTABLE)


def _run(args: argparse.Namespace) -> NoReturn:
    program, command = _command(args, "run")
    environ = _environment(_config.preload_path(), cache=args.cache, stats=args.stats)
    if args.stats:
        _append_to_stderr()
    try:
        os.execve(program, command, environ)  # noqa: S606  (what the user asked for)
    except OSError as error:
        raise _cannot_execute(program, error) from error


def _record_command(args: argparse.Namespace) -> int:
    program, command = _command(args, "record")
    environ = _environment(_config.record_path())
    output: Path = args.output
    try:
        output.touch()  # before hours of proving, not after
    except OSError as error:
        raise _CommandError(f"cannot write {output}: {error.strerror}", _FAILED) from error
    with tempfile.TemporaryDirectory(prefix="zk-nalloc-record-") as folder:
        code = _wait_for(program, command, environ | {_record.DIRECTORY: folder})
        journals = _record.journals(Path(folder))
    if args.after:
        journals = [journal.after(args.after) for journal in journals]
    if not journals or not journals[0].rows:
        output.unlink()
        print("zk-nalloc: nothing recorded: no request of 64 KiB or more", file=sys.stderr)
        return code or _FAILED
    prover, *others = journals
    summary = _record.write_trace(prover, output)
    print(
        f"zk-nalloc: {output}: {summary.requests:,} requests of {Path(prover.program).name} "
        f"(process {prover.pid}), threads: {summary.threads}, "
        f"in use at most: {summary.live_peak / (1 << 20):,.1f} MiB, "
        f"size: {output.stat().st_size / 1024:,.1f} KiB",
        file=sys.stderr,
    )
    if others:
        most = len(others[0].rows)
        print(
            f"zk-nalloc: other processes left out: {len(others)}, of {most:,} calls at most",
            file=sys.stderr,
        )
    return code


def _wait_for(program: Path, command: list[str], environ: dict[str, str]) -> int:
    """Run a command to its end and return the exit code that a shell would."""
    try:
        child = subprocess.Popen(  # noqa: S603  (what the user asked for)
            command, executable=program, env=environ
        )
    except OSError as error:
        raise _cannot_execute(program, error) from error
    # Ctrl-C is for the command; what it recorded until then is kept.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, handler)
    return code if code >= 0 else 128 - code


def _append_to_stderr() -> None:
    """Let statistics and messages share a file that stderr was sent to.

    The library opens /dev/stderr anew, and would otherwise be overwritten by
    what is said on the older descriptor.
    """
    with contextlib.suppress(OSError):
        flags = fcntl.fcntl(sys.stderr, fcntl.F_GETFL)
        fcntl.fcntl(sys.stderr, fcntl.F_SETFL, flags | os.O_APPEND)


_HINTS: Final = {
    errno.ENOEXEC: "; a script needs a first line such as #!/bin/sh",
    errno.ENOENT: "; the interpreter that it names is missing",
}

_CONFIG: Final[dict[str, tuple[Callable[[], object], str]]] = {
    "cflags": (_config.cflags, "flags for the C or C++ compiler"),
    "libs": (_config.libs, "flags for the linker"),
    "preload": (_config.preload_path, "path of libzknalloc_preload.so"),
    "cmakedir": (_config.cmake_dir, "directory for CMake's zknalloc_DIR"),
    "pkgconfigdir": (_config.pkgconfig_dir, "directory for PKG_CONFIG_PATH"),
    "prefix": (_config.prefix, "prefix under which all of it is installed"),
    "version": (lambda: version, "version of the library"),
}


def _config_command(args: argparse.Namespace) -> int:
    if not args.wanted:
        raise _CommandError(f"say what to print: --{', --'.join(_CONFIG)}", 2)
    print(" ".join(str(_CONFIG[name][0]()) for name in args.wanted))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zk-nalloc",
        description="Run programs on libzknalloc, a cache of large memory regions for provers.",
    )
    parser.add_argument("--version", action="version", version=f"zk-nalloc {version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run a command on the cache",
        usage="%(prog)s [-h] [--cache SIZE] [--stats] -- CMD [ARG ...]",
        description="Run CMD with libzknalloc_preload.so in front of LD_PRELOAD: its malloc, "
        "and that of its child processes, is then served by the cache.",
        epilog="Exit code: that of CMD; 125 if zk-nalloc fails, 126 if CMD cannot be executed, "
        "127 if it is not found.",
    )
    run.add_argument(
        "--cache",
        metavar="SIZE",
        type=_size,
        help="free memory to keep resident at most, such as 512M or 4G (ZK_NALLOC_CACHE_BYTES)",
    )
    run.add_argument(
        "--stats",
        action="store_true",
        help="let each process print its statistics on stderr when it exits, a line of JSON",
    )
    run.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER, help="what to run")
    run.set_defaults(call=_run)

    record = commands.add_parser(
        "record",
        help="write down a command's large requests",
        usage="%(prog)s [-h] [-o FILE] [--after SECONDS] -- CMD [ARG ...]",
        description="Run CMD on its own allocator and write down every request of 64 KiB and "
        "more: size, zeroed or not, alignment, thread, and when the block was freed. Of "
        "several processes, the one with the most requests is kept. The benchmarks replay "
        "such a trace.",
        epilog="Exit code: that of CMD, 128 + N where signal N ended it; 125 if zk-nalloc fails "
        "or there was nothing to record, 126 if CMD cannot be executed, 127 if it is not found.",
    )
    record.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("trace.csv.gz"),
        help="the trace; compressed if its name ends in .gz (default: %(default)s)",
    )
    record.add_argument(
        "--after",
        metavar="SECONDS",
        type=_seconds,
        help="leave out the first seconds, such as a prover's set-up; blocks that live on "
        "from there come first",
    )
    record.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER, help="what to run")
    record.set_defaults(call=_record_command)

    config = commands.add_parser(
        "config",
        help="print how to build against the library",
        description="Print how to compile and link a C or C++ program with the libzknalloc of "
        "this installation: cc prover.c $(zk-nalloc config --cflags --libs)",
    )
    for name, (_, meaning) in _CONFIG.items():
        config.add_argument(
            f"--{name}", dest="wanted", action="append_const", const=name, help=meaning
        )
    config.set_defaults(call=_config_command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code, where `run` did not replace the process.
    """
    args = _parser().parse_args(argv)
    try:
        return int(args.call(args))
    except _CommandError as error:
        print(f"zk-nalloc: {error}", file=sys.stderr)
        return error.code


if __name__ == "__main__":
    sys.exit(main())
