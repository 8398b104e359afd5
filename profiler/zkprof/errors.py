# SPDX-License-Identifier: MIT OR Apache-2.0
"""What can go wrong, and the exit code that says so.

Every error that a user can cause or meet is a `ZkprofError`; its text is one
clear sentence that ends with what to do, and `cli.main` prints it as the only
line on stderr.  Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of `zkprof`; part of its interface, never renumbered."""

    OK = 0
    """A verdict was reached, whatever it is."""
    ERROR = 1
    """Wrong usage, an unusable file, or a defect of zkprof."""
    GONE = 2
    """There is no such process, or it ended before anything was measured."""
    PERMISSION = 3
    """The process may not be observed by this user."""
    INCONCLUSIVE = 4
    """Measured, but too little to give a verdict."""
    GATE = 10
    """A condition of `--fail-on` was met."""


class ZkprofError(Exception):
    """A failure to report in one line; subclasses choose the exit code."""

    exit_code = Exit.ERROR


class TargetGoneError(ZkprofError):
    """The process does not exist, has ended, or has no memory of its own."""

    exit_code = Exit.GONE


class NotPermittedError(ZkprofError):
    """The kernel refuses to let this user observe the process."""

    exit_code = Exit.PERMISSION
