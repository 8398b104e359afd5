# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command `zk-nalloc`: run a program on the cache, or build against it.

Exit codes of `zk-nalloc run` are those of `env` and `nohup`: the command's own
once it has started, else 125 (zk-nalloc failed), 126 (the command was found
but cannot be executed) or 127 (not found).  Bad usage is 2.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import re
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from zk_nalloc import _config, _preload, version

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


def _run(args: argparse.Namespace) -> NoReturn:
    command: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise _CommandError("no command given; write zk-nalloc run -- CMD [ARG ...]", 2)
    preload = _config.preload_path()
    if not preload.is_file():
        raise _CommandError(f"{preload} is missing; install zk-nalloc again", _FAILED)
    try:
        environ = _preload.environment(preload, os.environ, cache=args.cache, stats=args.stats)
    except ValueError as error:
        raise _CommandError(str(error), _FAILED) from error
    try:
        program = _preload.find_command(command[0])
    except FileNotFoundError as error:
        raise _CommandError(str(error), _NOT_FOUND) from error
    except PermissionError as error:
        raise _CommandError(str(error), _NOT_EXECUTABLE) from error
    for warning in _preload.warnings_about(program):
        print(f"zk-nalloc: warning: {warning}", file=sys.stderr)
    sys.stderr.flush()
    if args.stats:
        _append_to_stderr()
    try:
        os.execve(program, command, environ)  # noqa: S606
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise _CommandError(
            f"cannot execute {program}: {error.strerror}{hint}", _NOT_EXECUTABLE
        ) from error


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
