# SPDX-License-Identifier: MIT OR Apache-2.0
"""/proc/PID, read safely: the errors that a target can cause."""

from __future__ import annotations


class TargetError(Exception):
    """The target cannot be measured; the message says why and what to do."""


class NoSuchProcess(TargetError):
    """No process has this id, or it ended before measuring began."""


class ZombieProcess(NoSuchProcess):
    """The process has ended and waits to be collected by its parent."""


class KernelThread(TargetError):
    """The id belongs to a kernel thread, which has no memory of its own."""


class NotPermitted(TargetError):
    """This user may not look at that process, not even through /proc."""
