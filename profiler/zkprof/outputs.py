# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where a report goes: the screen, files of several formats, an exit code.

`attach`, `run` and `report` share these options, so that whatever can be had
of a running process can be had of a saved report as well.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .arguments import file_option
from .errors import Exit, ZkprofError
from .estimate import Verdict
from .exports import collapsed, speedscope
from .files import STANDARD_OUTPUT, replacing
from .gates import condition, tripped
from .render import console, screen, show
from .report import dump

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from io import StringIO
    from typing import Self, TextIO

    from .report import Report


def _html(report: Report) -> str:
    from .html import page  # noqa: PLC0415  (loads a template engine)

    return page(report)


FORMATS: dict[str, tuple[Callable[[Report], str], str]] = {
    "json": (dump, "write the report as JSON"),
    "html": (_html, "write it as one HTML file that needs no network"),
    "speedscope": (speedscope, "write its stacks for speedscope"),
    "collapsed": (collapsed, "write its stacks as lines for flame graph tools"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a report goes."""
    group = parser.add_argument_group("results")
    for name, (_, help_text) in FORMATS.items():
        file_option(group, f"--{name}", help_text)
    group.add_argument(
        "--fail-on",
        metavar="CONDITION",
        type=condition,
        action="append",
        default=[],
        help="exit with 10 for this verdict, or beyond this limit in per cent, "
        "like 'saving>5'; may be repeated",
    )


class Outputs:
    """The destinations of one report, opened before anything is measured.

    Parameters
    ----------
    args
        What `add_options` has parsed.
    to
        Where the screen goes; None is standard output.
    """

    def __init__(self, args: argparse.Namespace, to: TextIO | None = None) -> None:
        self._paths = {name: path for name in FORMATS if (path := getattr(args, name)) is not None}
        self._conditions = args.fail_on
        self._stack = ExitStack()
        self._buffers: dict[str, StringIO] = {}
        on_stdout = list(self._paths.values()).count(STANDARD_OUTPUT)
        if on_stdout > 1:
            raise ZkprofError("standard output takes one result: give the others a file")
        self.screen = None if on_stdout else console(to or sys.stdout)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name, path in self._paths.items():
                self._buffers[name] = stack.enter_context(replacing(path))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def write(self, report: Report) -> Exit:
        """Show the report, write it, and return the exit code."""
        if self.screen:
            show(self.screen, screen(report))
        for name, buffer in self._buffers.items():
            buffer.write(FORMATS[name][0](report))
        if reason := tripped(report, self._conditions):
            sys.stderr.write(f"zkprof: --fail-on {reason}\n")
            return Exit.GATE
        inconclusive = report.estimate.verdict is Verdict.INCONCLUSIVE
        return Exit.INCONCLUSIVE if inconclusive else Exit.OK
