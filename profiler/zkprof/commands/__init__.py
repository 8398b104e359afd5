# SPDX-License-Identifier: MIT OR Apache-2.0
"""The commands of `zkprof`, one module each.

A module's `register` adds the command's parser and says what to call with the
parsed arguments; what is called returns the exit code.
"""

from __future__ import annotations

from . import attach, compare, completion, demo, doctor, export, report, run, simulate, stats

MODULES = (attach, run, report, compare, simulate, stats, export, doctor, demo, completion)
"""In the order of the help text."""

__all__ = ["MODULES"]
