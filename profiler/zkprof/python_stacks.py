# SPDX-License-Identifier: MIT OR Apache-2.0
"""Python functions on native stacks.

Where the target announces its functions (`perf_map`) they are on the stack
already.  Elsewhere py-spy samples the Python stacks of the same threads at the
same time, without stopping them, and each native sample is given the Python
stack that its thread had at that moment.

The two clocks are one (CLOCK_MONOTONIC), but py-spy's file counts from a moment
just after its start that it does not tell.  So several offsets are tried, and
the one under which Python functions tell most about native ones wins; where
none tells clearly more, it is the start itself.

Of the native stack, the interpreter's own frames are left out: the Python
functions stand in their place.
"""

from __future__ import annotations

import bisect
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from .model import Frame, PythonJoin
from .perf_map import PYTHON
from .procfs import Mapping, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .sampler import Moment
    from .stacks import Names, Paths

RATE_HZ = 200.0
# A sample takes the stack that was seen at most this long before or after.
_TOLERANCE_S = 3 / RATE_HZ
_OFFSETS_S = tuple(step / 100 for step in range(-5, 16))
_CLEARLY = 1.05
_MAX_SCANNED = 4000
_END_TIMEOUT_S = 10.0
_MAX_BYTES = 512 << 20

_PYTHON_FILE = re.compile(r"/(?:lib)?python\d*(?:\.\d+)*[a-z]*(?:\.so[.\d]*)?$")
# The interpreter's functions that run Python code, and what calls them.
_INTERPRETER = re.compile(r"_?PyEval_|_PyFunction_Vectorcall$|py_trampoline_evaluator$")

PyStack = tuple[Frame, ...]


def is_python(mappings: Iterable[Mapping]) -> bool:
    """Whether the process runs an interpreter of Python, by the files it has mapped."""
    return any("x" in m.perms and _PYTHON_FILE.search(m.path) for m in mappings)


def py_spy() -> str | None:
    """Return where py-spy is: with zkprof's own packages, or on the PATH.

    Not where the PATH leads into the current folder: that may be the target's, and
    zkprof may be root.
    """
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        path = Path(folder) / "py-spy"
        if path.is_file():
            return str(path)
    found = shutil.which("py-spy")
    return found if found and Path(found).is_absolute() else None


class Timeline:
    """The Python stacks of threads over time.

    Parameters
    ----------
    events
        py-spy's, in the format "chrometrace": at each moment that a stack
        differs from the one before, the frames that ended and those that began.
    """

    def __init__(self, events: Sequence[dict[str, Any]]) -> None:
        # tid -> when each stack began, in seconds; and the stacks.
        self._starts: defaultdict[int, list[float]] = defaultdict(list)
        self._stacks: defaultdict[int, list[PyStack]] = defaultdict(list)
        open_: defaultdict[tuple[int, int], list[Frame]] = defaultdict(list)
        tids: dict[tuple[int, int], int] = {}
        i = 0
        while i < len(events):
            ts, thread = events[i]["ts"], (events[i]["pid"], events[i]["tid"])
            while i < len(events) and (
                events[i]["ts"] == ts and (events[i]["pid"], events[i]["tid"]) == thread
            ):
                event = events[i]
                i += 1
                # The outermost "function" is the thread, by its real number.
                if match := re.match(r"thread \((\d+)\)", event["name"]):
                    tids[thread] = int(match[1])
                elif not event["name"].startswith("process ") and event["ph"] == "B":
                    open_[thread].append(_frame(event))
                elif not event["name"].startswith("process ") and open_[thread]:
                    open_[thread].pop()
            if thread in tids:
                starts = self._starts[tids[thread]]
                stacks = self._stacks[tids[thread]]
                if starts and starts[-1] == ts / 1e6:
                    stacks[-1] = tuple(open_[thread])
                else:
                    starts.append(ts / 1e6)
                    stacks.append(tuple(open_[thread]))

    @property
    def tids(self) -> set[int]:
        """The threads that ran Python code."""
        return {tid for tid, stacks in self._stacks.items() if any(stacks)}

    def at(self, tid: int, t: float) -> tuple[PyStack, float]:
        """Return the stack at a moment, and how far away it was; () if too far."""
        starts, stacks = self._starts.get(tid, []), self._stacks.get(tid, [])
        i = bisect.bisect_right(starts, t) - 1
        if i >= 0 and stacks[i]:
            return stacks[i], 0.0
        best: tuple[PyStack, float] = ((), math.inf)
        if i >= 1 and stacks[i - 1] and t - starts[i] < best[1]:
            best = stacks[i - 1], t - starts[i]
        if i + 1 < len(starts) and stacks[i + 1] and starts[i + 1] - t < best[1]:
            best = stacks[i + 1], starts[i + 1] - t
        return best if best[1] <= _TOLERANCE_S else ((), math.inf)


def _frame(event: dict[str, Any]) -> Frame:
    """Make a frame; py-spy gives a function's first line where it is told to."""
    place = event["args"]
    return Frame(
        name=printable(str(event["name"])),
        module=PYTHON,
        file=printable(str(place["filename"])),
        line=max(0, int(place["line"])),
    )


class PySpy:
    """py-spy, watching a process until `finish`.

    Parameters
    ----------
    pid
        The process.
    follow
        Its children too.
    """

    def __init__(self, pid: int, *, follow: bool) -> None:
        self.problem = ""
        """Why there are no Python stacks; empty if there are."""
        self.started = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._output: int | None = None
        program = py_spy()
        if program is None:
            self.problem = "py-spy is not installed: pip install py-spy"
            return
        command = [program, "record", "--nonblocking", "--format", "chrometrace", "--threads"]
        command += ["--function", "--rate", f"{RATE_HZ:g}"]
        command += ["--subprocesses"] if follow else []
        try:
            # A file that needs no folder: there may be none that can be written.
            self._output = os.memfd_create("zkprof", os.MFD_CLOEXEC)
            self._process = subprocess.Popen(  # noqa: S603  (found by us, numbers and a path)
                [*command, "--output", f"/proc/self/fd/{self._output}", "--pid", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(self._output,),
                start_new_session=True,  # Ctrl-C is for zkprof
            )
        except OSError as error:
            self.problem = f"py-spy cannot be started: {error.strerror}"

    def close(self) -> None:
        """End it without asking for results; a second call does nothing."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._output is not None:
            os.close(self._output)
            self._output = None

    def finish(self) -> Timeline | None:
        """End it and read what it has seen; None, and `problem`, where that is nothing."""
        process, self._process = self._process, None
        if process is None or self._output is None:
            return None
        process.send_signal(signal.SIGINT)
        try:
            _, text = process.communicate(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.problem = "py-spy did not end"
            return None
        try:
            if os.fstat(self._output).st_size > _MAX_BYTES:
                self.problem = "py-spy has written too much"
                return None
            with open(self._output, "rb", closefd=False) as stream:
                return Timeline(json.load(stream))
        except (OSError, ValueError, KeyError, TypeError):
            lines = text.decode("utf-8", "replace").strip().splitlines()
            why = next((line for line in lines if "rror" in line or "ermission" in line), "")
            self.problem = f"py-spy shows none: {printable(why) or 'no Python code ran'}"
            return None


@lru_cache(maxsize=65536)
def _interprets(frame: Frame) -> bool:
    """Whether Python functions stand for this frame and all that called it."""
    if frame.module == PYTHON:
        return True
    return bool(_INTERPRETER.match(frame.name) and _PYTHON_FILE.search(f"/{frame.module}"))


def fold(path: tuple[int, ...], python: tuple[int, ...], names: Names) -> tuple[int, ...]:
    """Put Python functions in the place of the interpreter's.

    Parameters
    ----------
    path
        Native frames from the outermost, perhaps with Python functions among
        them that the target has announced.
    python
        The Python functions from py-spy, else none.
    names
        What the frames are.
    """
    if not python:
        python = tuple(i for i in path if names.frames[i].module == PYTHON)
        if not python:
            return path
    last = -1
    for at, i in enumerate(path):
        if _interprets(names.frames[i]):
            last = at
    return (*python, *path[last + 1 :])


class Joined:
    """Native samples with the Python stacks of their moments."""

    def __init__(
        self,
        timeline: Timeline,
        started: float,
        moments: Sequence[Moment],
        paths: Paths | Sequence[tuple[int, ...]],
        names: Names,
    ) -> None:
        self._timeline, self._started = timeline, started
        tids = timeline.tids
        step = max(1, len(moments) // _MAX_SCANNED)
        some = [m for m in moments[::step] if m.tid in tids]
        self.offset_s = self._best_offset(some, paths)
        folded: dict[tuple[int, PyStack], tuple[int, ...]] = {}
        self.samples: Counter[tuple[int, Any, tuple[int, ...]]] = Counter()
        """How many samples are of each thread, kind and path."""
        matched, of_python, gaps = 0, 0, []
        for m in moments:
            stack, gap = self._at(m, self.offset_s) if m.tid in tids else ((), math.inf)
            if m.tid in tids:
                of_python += 1
                matched += bool(stack)
                if stack:
                    gaps.append(gap)
            key = (m.node, stack)
            if key not in folded:
                python = tuple(names.number(frame) for frame in stack)
                folded[key] = fold(paths[m.node], python, names)
            self.samples[m.tid, m.kind, folded[key]] += 1
        self.join = PythonJoin(
            source="py-spy",
            matched=matched / of_python if of_python else 0.0,
            # py-spy looks once a period, at a moment that it does not tell.
            gap_s=(median(gaps) if gaps else 0.0) + 0.5 / RATE_HZ,
        )

    def _at(self, m: Moment, offset_s: float) -> tuple[PyStack, float]:
        return self._timeline.at(m.tid, m.time_ns / 1e9 - self._started - offset_s)

    def _best_offset(
        self, moments: Sequence[Moment], paths: Paths | Sequence[tuple[int, ...]]
    ) -> float:
        told = {
            offset: _information(
                (stack[-1] if stack else None, (m.kind, paths[m.node][-1:]))
                for m in moments
                for stack in (self._at(m, offset)[0],)
            )
            for offset in _OFFSETS_S
        }
        best = max(told, key=lambda offset: told[offset])
        return best if told[best] > _CLEARLY * told[0.0] else 0.0


def _information(pairs: Iterable[tuple[object, object]]) -> float:
    """Return how many bits one half of the pairs tells about the other."""
    both = Counter(pairs)
    n = both.total()
    left: Counter[object] = Counter()
    right: Counter[object] = Counter()
    for (a, b), count in both.items():
        left[a] += count
        right[b] += count
    return sum(
        count / n * math.log2(count * n / (left[a] * right[b])) for (a, b), count in both.items()
    )
