# SPDX-License-Identifier: MIT OR Apache-2.0
"""The types that the installed package promises, as its users' mypy sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess


def test_mypy_agrees(python: Callable[..., CompletedProcess[str]], root: Path) -> None:
    sample = root / "tests/python/typing_sample.py"
    # 3.12 is the first to have collections.abc.Buffer.
    done = python("-m", "mypy", "--strict", "--python-version=3.12", "--config-file=", str(sample))
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr
