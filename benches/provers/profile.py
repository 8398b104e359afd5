# SPDX-License-Identifier: MIT OR Apache-2.0
"""Ask `zkprof PID` about a prover while it proves on the system allocator.

The profiled run is one of its own: sampling costs something, so its proofs
never count in the table.  zkprof starts once the first proof is there, because
a cold proof is the price of the memory and not of the allocator.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .runner import RunFailed, Workload
from .tools import Missing


def command() -> str:
    """Return the zkprof to call: beside this Python, else on PATH."""
    beside = Path(sys.executable).with_name("zkprof")
    found = str(beside) if beside.exists() else shutil.which("zkprof")
    if found is None:
        raise Missing("zkprof is not installed: pip install .")
    return found


def profile(
    workload: Workload, variables: Mapping[str, str], seconds: float, proof_s: float
) -> dict[str, Any]:
    """Profile warm proofs for so many seconds and return zkprof's own JSON."""
    zkprof = command()
    proofs = 3 + math.ceil(seconds / proof_s)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "zkprof.json"
        started: list[subprocess.Popen[str]] = []

        def attach(pid: int) -> None:
            started.append(
                subprocess.Popen(
                    [zkprof, str(pid), "-d", str(seconds), "--json", str(report)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

        workload.run("glibc under zkprof", proofs, variables, on_first_proof=attach)
        screen, _ = started[0].communicate()
        if not report.exists():
            raise RunFailed(f"zkprof left no report ({started[0].returncode}):\n{screen}")
        result: dict[str, Any] = json.loads(report.read_text())
    return {"exit_code": started[0].returncode, "screen": screen, "report": result}
