# SPDX-License-Identifier: MIT OR Apache-2.0
"""Names of code that a process made while it ran: /tmp/perf-PID.map.

Runtimes write this file for profilers: CPython with ``-X perf`` (or
``PYTHONPERFSUPPORT=1``), where a small piece of code calls each Python function,
node with ``--perf-basic-prof``, and others.  CPython's functions then stand on
the native stack, exactly.

zkprof may run as root, and anybody may put a file there: it is believed only if
it is a regular file that belongs to the target's user and has no other name.
Even then it is no more than text to be shown.
"""

from __future__ import annotations

import bisect
import os
from contextlib import suppress
from itertools import islice
from stat import S_ISREG
from typing import TYPE_CHECKING

from .errors import ZkprofError
from .model import Frame
from .procfs import printable

if TYPE_CHECKING:
    from .procfs import Process

PYTHON = "python"
"""The module of Python functions."""

# Interpreters that have run for days announce a tenth of it.
_MAX_BYTES = 64 << 20
_MAX_FUNCTIONS = 500_000
_MAX_NAME = 4096
_PREFIX = "py::"


class PerfMap:
    """The functions that a process has announced, by address.

    Parameters
    ----------
    process
        The process.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._size = 0
        self._starts: list[int] = []
        self._found: list[tuple[int, int, str]] = []

    def read(self) -> None:
        """Read what has been announced since the last time."""
        with suppress(ZkprofError, OSError, ValueError, IndexError):
            status = self._process.status()
            # Files are named by the number that the process itself knows.
            name = f"perf-{int(status.get('NSpid', str(self._process.pid)).split()[-1])}.map"
            owner = int(status["Uid"].split()[1])
            text = self._text(name, owner)
            if text is not None:
                self._found = sorted(_parse(text))
                self._starts = [start for start, _, _ in self._found]

    def _text(self, name: str, owner: int) -> str | None:
        folder = self._process.open_folder("root/tmp")
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(fd, "rb") as file:
            facts = os.fstat(fd)
            if not S_ISREG(facts.st_mode) or facts.st_uid != owner or facts.st_nlink != 1:
                return None
            if facts.st_size == self._size:
                return None
            self._size = facts.st_size
            return file.read(_MAX_BYTES).decode("utf-8", "replace")

    def exists(self) -> bool:
        """Whether the process has announced any functions."""
        self.read()
        return bool(self._found)

    def frame(self, address: int) -> Frame | None:
        """Return the function that an address is in."""
        i = bisect.bisect_right(self._starts, address) - 1
        if i < 0 or address >= self._found[i][0] + self._found[i][1]:
            return None
        name = self._found[i][2]
        if name.startswith(_PREFIX):
            function, _, file = name[len(_PREFIX) :].partition(":")
            return Frame(function, PYTHON, file)
        return Frame(name, "jit")


def _parse(text: str) -> list[tuple[int, int, str]]:
    """Read lines of "START SIZE name", numbers in hexadecimal."""
    found = []
    for line in islice(text.splitlines(), _MAX_FUNCTIONS):
        with suppress(ValueError):
            start, size, name = line.split(" ", 2)
            found.append((int(start, 16), int(size, 16), printable(name[:_MAX_NAME])))
    return found
