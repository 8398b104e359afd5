# SPDX-License-Identifier: MIT OR Apache-2.0
"""The README's two commands, as a stranger types them: in a clone of this commit.

The first runs whole.  The second is this very test suite, so what it starts
is limited (through PYTEST_ADDOPTS) to tests that do not come back here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

INSTALL = re.compile(r"^python3 -m venv \.venv && .*$", re.MULTILINE)
EXAMPLE = re.MULTILINE | re.DOTALL
MINUTES = 60


def commands(root: Path) -> list[str]:
    """Return the README's commands that start with a new environment."""
    return INSTALL.findall((root / "README.md").read_text())


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """Return a clone of what is committed, in an otherwise empty directory."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("not a git checkout")
    target = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--no-local", root, target], check=True)
    return target


def run(command: str, clone: Path, **environ: str) -> CompletedProcess[str]:
    # Nothing of this environment may help: no virtualenv, no tools from it.
    path = [place for place in os.get_exec_path() if Path(place) != Path(sys.executable).parent]
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "ZK_NALLOC_", "PYTHON", "LD_", "VIRTUAL_ENV"))
    }
    return subprocess.run(
        ["sh", "-c", command],
        cwd=clone,
        env=clean | {"PATH": os.pathsep.join(path)} | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=15 * MINUTES,
    )


def test_readme_has_two_commands(root: Path) -> None:
    demo, test = commands(root)
    assert demo.endswith(".venv/bin/pip install -q . && .venv/bin/zkprof demo")
    assert test.endswith(".venv/bin/pip install -q '.[test]' && .venv/bin/pytest")


def test_python_examples(root: Path, python: Callable[..., CompletedProcess[str]]) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", (root / "README.md").read_text(), EXAMPLE)
    assert examples
    for example in examples:
        done = python("-W", "error", code=example)
        assert (done.returncode, done.stderr) == (0, ""), example


@pytest.mark.readme
def test_demo_command(root: Path, clone: Path) -> None:
    done = run(commands(root)[0], clone)
    assert done.returncode == 0, done.stdout
    assert "predicted" in done.stdout.lower(), done.stdout


@pytest.mark.readme
def test_test_command(root: Path, clone: Path) -> None:
    done = run(commands(root)[1], clone, PYTEST_ADDOPTS="-k 'not readme' tests/python")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout), done.stdout
