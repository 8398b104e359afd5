# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run one prover under one allocator and read what its workload prints.

A run is one process that makes its proofs in a loop; the first of them is cold
and is kept apart.  Runs of different allocators are interleaved by the caller,
so that a slow spell of the machine hits all of them.  A proof that is refused,
a line that is missing or a process that dies is an error: no number of a
failed run is ever used.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benches.allocators import without_settings

from .registry import Prover
from .tools import Installed, Missing, zkprof

Progress = Callable[[str], None]


class RunFailed(Exception):
    """A workload did not give verified proofs; the message ends with its output."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What one proof cost."""

    number: int
    wall_s: float
    user_s: float
    sys_s: float
    minor_faults: int
    verified: bool
    peak_rss_kib: int
    hits: int | None = None
    misses: int | None = None

    @property
    def cpu_s(self) -> float:
        """CPU time of user and system."""
        return self.user_s + self.sys_s

    @classmethod
    def parse(cls, line: dict[str, Any]) -> Proof:
        """Read one line of the protocol."""
        fields: dict[str, Any] = {name: line.get(name) for name in cls.__slots__}
        return cls(**{**fields, "number": line["proof"]})


@dataclass(frozen=True, slots=True)
class Run:
    """One process: its proofs and, where the library was loaded, its counters."""

    prover: str
    size: int
    threads: int
    allocator: str
    what: str
    setup_s: float
    proofs: tuple[Proof, ...]
    library: dict[str, Any] | None
    elapsed_s: float = 0.0
    """The whole process: start, set-up, proofs and their verification."""
    slice: int = 0
    """Which invocation of the command measured it, see :mod:`.store`."""

    @property
    def warm(self) -> tuple[Proof, ...]:
        """All proofs but the first."""
        return self.proofs[1:]

    @classmethod
    def parse(cls, saved: dict[str, Any]) -> Run:
        """Read what `dataclasses.asdict` made of a run."""
        return cls(**{**saved, "proofs": tuple(Proof(**proof) for proof in saved["proofs"])})


@dataclass(frozen=True, slots=True)
class Workload:
    """A prover that is installed, at one size, ready to be run."""

    prover: Prover
    installed: Installed
    size: int
    threads: int
    data: Path

    def command(self, proofs: int) -> list[str]:
        """Return the command line for so many proofs; 0 only prepares."""
        return [
            *self.installed.command,
            *self.prover.script_path(),
            *self.installed.arguments,
            *("--size", str(self.size)),
            *("--proofs", str(proofs)),
            *("--threads", str(self.threads)),
            *("--data", str(self.data)),
        ]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment that puts `variables` on the proving process."""
        base = without_settings(os.environ) | {"RAYON_NUM_THREADS": str(self.threads)}
        if not self.prover.in_child:
            return base | dict(variables)
        # The workload cannot ask the library in another process: zkprof can.
        with suppress(Missing):
            base["ZKN_BENCH_ZKPROF"] = zkprof()
        return base | {"ZKN_BENCH_CHILD_ENV": json.dumps(dict(variables))}

    def prepare(self) -> None:
        """Make keys, circuits and reference strings, under the system allocator."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._execute("prepare", 0, {}, lambda _: None)

    def run(
        self,
        allocator: str,
        proofs: int,
        variables: Mapping[str, str],
        progress: Progress = lambda _: None,
        on_first_proof: Callable[[int], None] = lambda _pid: None,
        on_ready: Callable[[int], None] = lambda _pid: None,
    ) -> Run:
        """Prove `proofs` times; call back with the PID when set up and when warm."""
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder) / "stats.jsonl"
            run = self._execute(
                allocator,
                proofs,
                {**variables, "ZK_NALLOC_STATS_FILE": str(dump)},
                progress,
                on_first_proof,
                on_ready,
            )
            return replace(run, library=read_dump(dump))

    def _execute(
        self,
        allocator: str,
        proofs: int,
        variables: Mapping[str, str],
        progress: Progress,
        on_first_proof: Callable[[int], None] = lambda _pid: None,
        on_ready: Callable[[int], None] = lambda _pid: None,
    ) -> Run:
        label = f"{self.prover.name} on {allocator}"
        chatter: list[str] = []
        ready: dict[str, Any] = {}
        seen: list[Proof] = []
        started = time.monotonic()
        with subprocess.Popen(
            self.command(proofs),
            env=self.environment(variables),
            cwd=self.data,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            errors = threading.Thread(target=chatter.extend, args=(process.stderr,))
            errors.start()
            for text in process.stdout:
                line = parse_line(text)
                if line is None:
                    chatter.append(text)
                elif "ready" in line:
                    ready = line
                    on_ready(int(line["ready"]))
                    progress(f"{label}: ready after {line['setup_s']:.1f} s")
                else:
                    seen.append(Proof.parse(line))
                    progress(f"{label}: proof {len(seen)}/{proofs}, {seen[-1].wall_s:.2f} s")
                    if len(seen) == 1:
                        on_first_proof(int(ready["ready"]))
            errors.join()
        tail = "".join(chatter[-15:])
        if process.returncode != 0:
            raise RunFailed(f"{label}: exit code {process.returncode}\n{tail}")
        if not ready or len(seen) != proofs:
            raise RunFailed(f"{label}: {len(seen)} proofs of {proofs}\n{tail}")
        if refused := [proof.number for proof in seen if not proof.verified]:
            raise RunFailed(f"{label}: proofs {refused} were refused\n{tail}")
        return Run(
            self.prover.name,
            self.size,
            self.threads,
            allocator,
            ready["what"],
            ready["setup_s"],
            tuple(seen),
            None,
            time.monotonic() - started,
        )


def parse_line(text: str) -> dict[str, Any] | None:
    """Return a line of the protocol, None for whatever else a prover prints."""
    if not text.startswith("{"):
        return None
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and ("ready" in line or "proof" in line) else None


def read_dump(path: Path) -> dict[str, Any] | None:
    """Return the counters that the library wrote when its process ended.

    Every process that inherited the variables appends a line (an interpreter
    may start helpers); the prover is the one that made the most requests.
    """
    if not path.exists():
        return None
    dumps = [json.loads(line) for line in path.read_text().splitlines() if line]
    return max(dumps, key=lambda dump: int(dump["hits"]) + int(dump["misses"]), default=None)


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
