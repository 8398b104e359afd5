# SPDX-License-Identifier: MIT OR Apache-2.0
"""Stacks for other people's tools: speedscope, and "collapsed" lines.

In both, the class of time is the innermost frame, in brackets, as kernel
functions are elsewhere: ``commit;memset;[page faults, anonymous]``.  So a
flame graph shows not only where time went but what for, and a search for
``[page faults`` adds up all of it.

Speedscope's format is described in its repository
(``src/lib/file-format-spec.ts``, schema at
https://www.speedscope.app/file-format-schema.json): one profile for each
thread, weights in seconds.  Collapsed lines are ``frame;frame;... weight``,
the weight in microseconds of CPU time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from .errors import ZkprofError
from .text import cleaned
from .version import version
from .words import KINDS

if TYPE_CHECKING:
    from .model import Measurement, StackTime
    from .report import Report


class NoStacksError(ZkprofError):
    """There are no stacks to export."""


def speedscope(report: Report) -> str:
    """Return the stacks as the text of a speedscope file."""
    m = _with_stacks(report)
    used = list(dict.fromkeys(stack.kind for stack in m.stacks))
    frames = [_speedscope_frame(m, i) for i in range(len(m.frames))]
    frames += [{"name": f"[{KINDS[kind]}]"} for kind in used]
    kind_frame = {kind: len(m.frames) + i for i, kind in enumerate(used)}
    by_thread: defaultdict[int, list[StackTime]] = defaultdict(list)
    for stack in m.stacks:
        by_thread[stack.tid].append(stack)
    names = {thread.tid: thread.comm for thread in m.threads}
    profiles = [
        {
            "type": "sampled",
            "name": f"{names.get(tid, '')} {tid}".strip(),
            "unit": "seconds",
            "startValue": 0,
            "endValue": sum(stack.seconds for stack in stacks),
            "samples": [[*stack.frames, kind_frame[stack.kind]] for stack in stacks],
            "weights": [stack.seconds for stack in stacks],
        }
        for tid, stacks in _busiest_first(by_thread)
    ]
    data = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": f"{m.target.comm} {m.target.pid}",
        "exporter": f"zkprof {version()}",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": profiles,
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"


def collapsed(report: Report) -> str:
    """Return the stacks as collapsed lines, the heaviest first."""
    m = _with_stacks(report)
    names = {thread.tid: thread.comm for thread in m.threads}
    weights: defaultdict[str, float] = defaultdict(float)
    for stack in m.stacks:
        frames = [m.frames[i].name for i in stack.frames]
        line = [names.get(stack.tid) or m.target.comm, *frames, f"[{KINDS[stack.kind]}]"]
        # A semicolon would be read as the end of the frame.
        weights[";".join(name.replace(";", ":") for name in line)] += stack.seconds
    rows = sorted(weights.items(), key=lambda row: -row[1])
    return "".join(f"{line} {round(seconds * 1e6)}\n" for line, seconds in rows)


def _with_stacks(report: Report) -> Measurement:
    m = cleaned(report.measurement)
    if not m.stacks:
        raise NoStacksError(
            "there are no stacks to export: they need permission to sample "
            f"(this measurement is of tier {m.method.tier})"
        )
    return m


def _speedscope_frame(m: Measurement, index: int) -> dict[str, Any]:
    frame = m.frames[index]
    result: dict[str, Any] = {"name": frame.name}
    if frame.file or frame.module:
        result["file"] = frame.file or frame.module
    if frame.line:
        result["line"] = frame.line
    return result


def _busiest_first(
    by_thread: dict[int, list[StackTime]],
) -> list[tuple[int, list[StackTime]]]:
    def seconds(item: tuple[int, list[StackTime]]) -> float:
        return sum(stack.seconds for stack in item[1])

    return sorted(by_thread.items(), key=seconds, reverse=True)
