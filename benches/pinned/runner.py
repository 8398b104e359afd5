# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs each way in a process of its own; repetitions are interleaved, their order rotated."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benches.allocators import without_settings

__all__ = ["PARTS", "Failed", "NoGpu", "Run", "list_ways", "probe", "run_all"]

#: What a round is made of, in its order.
PARTS = ("take", "fill", "copy", "give")

_NO_GPU = 2
_TIMEOUT_S = 120


class NoGpu(Exception):
    """There is no driver, or no device; the message is the program's."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A process that ended badly: nothing it measured counts."""

    way: str
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one process measured.

    Attributes
    ----------
    way, repetition
        What ran, and which time.
    rounds
        One dictionary for each: wall_ns, take_ns, fill_ns, copy_ns, give_ns, faults.
    process
        What is of the whole process: registrations, resident memory, hits.
    """

    way: str
    repetition: int
    rounds: tuple[dict[str, int], ...]
    process: dict[str, Any]

    def warm(self, key: str) -> float:
        """Return the median over the warm rounds, those after the first."""
        return median(one[key] for one in self.rounds[1:])


def _call(command: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """Run the program; return the lines it printed, and why it failed if it did."""
    try:
        done = subprocess.run(
            command,
            env=without_settings(os.environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return [], f"did not end in {_TIMEOUT_S} s"
    if done.returncode == _NO_GPU:
        raise NoGpu(done.stderr.strip())
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode == 0:
        return lines, ""
    errors = done.stderr.strip().splitlines() or ["no message"]
    return lines, f"exit status {done.returncode}: {errors[-1]}"


def list_ways(program: Path) -> list[str]:
    """Return the names of the ways that `program` knows."""
    done = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def probe(program: Path, cuda: str) -> tuple[list[dict[str, str]], Failed | None]:
    """Return what the driver answered to each question, and what ended them early."""
    lines, reason = _call([str(program), cuda, "--probe"])
    return lines, Failed("probe", reason) if reason else None


def _measure(command: list[str], way: str, repetition: int) -> Run | Failed:
    lines, reason = _call(command)
    if reason:
        return Failed(way, reason)
    return Run(way, repetition, tuple(lines[:-1]), lines[-1])


def run_all(
    program: Path,
    cuda: str,
    ways: Sequence[str],
    sizes: Sequence[int],
    *,
    rounds: int,
    repetitions: int,
    seconds: float,
) -> Iterator[Run | Failed]:
    """Run every way `repetitions` times; a repetition that would end late is not begun.

    Parameters
    ----------
    program
        The benchmark program.
    cuda
        The path of libcuda.
    ways, sizes, rounds, repetitions
        What to run: ways, the buffers' sizes in bytes, how many rounds a process, and how often.
    seconds
        How long all may take, going by the repetitions so far. The first is always made.
    """
    began = time.monotonic()
    failed: set[str] = set()
    for repetition in range(repetitions):
        spent = time.monotonic() - began
        if repetition > 0 and spent + spent / repetition > seconds:
            return
        turn = repetition % len(ways)
        for way in [*ways[turn:], *ways[:turn]]:
            if way in failed:
                continue
            command = [str(program), cuda, way, str(rounds), *map(str, sizes)]
            result = _measure(command, way, repetition)
            if isinstance(result, Failed):
                failed.add(way)
            yield result
