# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof run --ab ENV -- CMD`: predict what a change saves, then measure it.

The command is run again and again, as it is (A) and with other environment
variables (B), in the order A B, B A, A B, ..., so that whatever else the
machine does meets both alike.  The runs of A are measured from their first
instruction on; the prediction is made from those very runs, because what a
fault costs depends on the machine's load at the time.  What was saved is the
median over the pairs, with the 95 % interval that resampling the pairs gives.

CPU time is that of the command and all its children, as the kernel counted
it.  What the command prints is discarded, unless it fails.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shlex
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from statistics import median
from threading import Thread
from typing import IO, TYPE_CHECKING, Any

from rich.table import Table

from .demo import library_to_preload
from .errors import Exit, ZkprofError
from .estimate import Range, percent
from .render import console, show
from .report import Report, to_json
from .runner import Child, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import TextIO

    from rich.console import Console

    from .estimate import Estimate

SCHEMA = "zkprof-ab/1"
OURS = "libzknalloc"
"""The word that stands for preloading our library."""
MIN_PAIRS = 3

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_DRAWS = 2000


class FailedRunError(ZkprofError):
    """The command failed, so its times mean nothing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run used."""

    cpu_s: float
    wall_s: float
    minor_faults: int


@dataclass(slots=True)
class Trial:
    """The pairs of runs so far."""

    a: list[Cost] = field(default_factory=list)
    b: list[Cost] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def saved(self, of: Callable[[Cost], float]) -> Range:
        """Return the share that B saved: the median of the pairs and its interval."""
        shares = [
            1 - of(b) / of(a) if of(a) > 0 else 0.0 for a, b in zip(self.a, self.b, strict=True)
        ]
        draws = random.Random(1)  # noqa: S311  (the same result for the same runs)
        medians = sorted(median(draws.choices(shares, k=len(shares))) for _ in range(_DRAWS))
        at = round(_DRAWS * 0.025)
        return Range(medians[at], median(shares), medians[-1 - at])

    def predicted(self) -> tuple[Range, Range] | None:
        """Return the saving of CPU and wall time that A's runs predict, None where none does."""
        known = [report.estimate for report in self.reports if report.measurement.cpu_s > 0]
        if not known:
            return None
        return (
            _together(known, lambda e: e.saving_cpu),
            _together(known, lambda e: e.saving_wall),
        )


def _together(estimates: Sequence[Estimate], of: Callable[[Estimate], Range]) -> Range:
    ranges = [of(e) for e in estimates]
    return Range(
        median(r.low for r in ranges), median(r.mid for r in ranges), median(r.high for r in ranges)
    )


def variables(text: str) -> dict[str, str]:
    """Read the variables of ``--ab``.

    Parameters
    ----------
    text
        ``NAME=VALUE ...`` as a shell reads it; the word `libzknalloc` stands
        for preloading our library.

    Raises
    ------
    ValueError
        It holds something else.
    """
    found: dict[str, str] = {}
    for word in shlex.split(text):
        if word == OURS:
            found["LD_PRELOAD"] = str(library_to_preload(None))
        elif _VARIABLE.fullmatch(word):
            name, _, value = word.partition("=")
            found[name] = value
        else:
            message = f"{word!r} is no NAME=VALUE, and not {OURS}"
            raise ValueError(message)
    if not found:
        message = f"name what to change: {OURS}, or NAME=VALUE"
        raise ValueError(message)
    return found


def compare(
    command: Sequence[str],
    change: Mapping[str, str],
    out: Console,
    *,
    pairs: int,
    rate_hz: float = 199.0,
    json_file: TextIO | None = None,
) -> int:
    """Run a command with and without a change in turns, and show what it saved.

    Parameters
    ----------
    command
        The command and its arguments.
    change
        The variables of B.
    out
        Where it is shown.
    pairs
        How many runs of each.
    rate_hz
        Samples per second of CPU time, for A.
    json_file
        Where the results are written, too.

    Returns
    -------
    int
        0, whatever was found.

    Raises
    ------
    FailedRunError
        The command failed.
    """
    as_is = dict(os.environ)
    changed = as_is | dict(change)
    trial = Trial()
    for number in range(pairs):
        for which in ("AB", "BA")[number % 2]:
            with _progress(out, f"pair {number + 1} of {pairs}, {which}"):
                if which == "A":
                    cost, report = _measured(command, as_is, rate_hz)
                    trial.a.append(cost)
                    trial.reports += [report] if report else []
                else:
                    trial.b.append(_plain(command, changed))
    show(out, _table(trial, change))
    show(out, _verdict(trial))
    if json_file:
        json.dump(_results(trial, change), json_file, indent=1)
        json_file.write("\n")
    return Exit.OK


# ----------------------------------------------------------------------- runs


def _progress(out: Console, text: str) -> AbstractContextManager[object]:
    errors = out if out.is_terminal else console(sys.stderr)
    return errors.status(text) if errors.is_terminal else nullcontext()


class _Run:
    """One run of the command: held until `start`, timed to its very end."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], output: IO[str]) -> None:
        self._command = command
        self._output = output
        self.child = Child(command, env, held=True, output=output)
        self._began = self._ended = 0.0
        self._end = Thread(target=self._wait, daemon=True)
        self._end.start()

    def _wait(self) -> None:
        # Leaves it to be collected: measuring goes on until its end is seen.
        os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)
        self._ended = time.monotonic()

    def start(self) -> None:
        if not self._began:
            self._began = time.monotonic()
            self.child.release()

    def cost(self) -> Cost:
        """Wait for its end and return what it used."""
        self.start()
        self._end.join()
        code, used = self.child.collect()
        if code:
            self._output.seek(0)
            tail = self._output.read()[-2000:].rstrip()
            message = f"{shlex.join(self._command)} failed with exit code {code}"
            raise FailedRunError(f"{message}; it said:\n{tail}" if tail else message)
        return Cost(used.ru_utime + used.ru_stime, self._ended - self._began, used.ru_minflt)


@contextmanager
def _started(command: Sequence[str], env: Mapping[str, str]) -> Iterator[_Run]:
    try:
        file = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed below)
    except OSError as error:
        message = f"no folder for what the command prints: {error.strerror}; set TMPDIR to one"
        raise ZkprofError(message) from error
    with file as output:
        run = _Run(command, env, output)
        with run.child:
            yield run


def _measured(
    command: Sequence[str], env: Mapping[str, str], rate_hz: float
) -> tuple[Cost, Report | None]:
    with _started(command, env) as run:
        try:
            m = watch(run.child.pid, math.inf, rate_hz, out=None, title="", on_open=run.start)
        except ZkprofError:
            return run.cost(), None  # without a prediction, but it still counts
        return run.cost(), Report.of(m, command)


def _plain(command: Sequence[str], env: Mapping[str, str]) -> Cost:
    with _started(command, env) as run:
        return run.cost()


# -------------------------------------------------------------------- results


def _cpu(cost: Cost) -> float:
    return cost.cpu_s


def _wall(cost: Cost) -> float:
    return cost.wall_s


def _table(trial: Trial, change: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column(f"median of {len(trial.a)}")
    for head in ("A: as it is", "B: changed", "saved", "95 % interval"):
        table.add_column(head, justify="right")
    for name, of in (("CPU seconds", _cpu), ("wall seconds", _wall)):
        saved = trial.saved(of)
        table.add_row(
            name,
            f"{median(map(of, trial.a)):.2f}",
            f"{median(map(of, trial.b)):.2f}",
            percent(saved.mid),
            f"{percent(saved.low)} to {percent(saved.high)}",
        )
    faults = [f"{median(cost.minor_faults for cost in costs):,.0f}" for costs in (trial.a, trial.b)]
    table.add_row("page faults", *faults)
    table.caption = "B: " + ", ".join(change)
    table.caption_justify = "left"
    return table


def _verdict(trial: Trial) -> str:
    """Say whether there is a difference, and whether it was predicted."""
    cpu, wall = trial.saved(_cpu), trial.saved(_wall)
    lines = [_difference("CPU time", cpu), _difference("wall time", wall)]
    predicted = trial.predicted()
    if predicted is None:
        return "\n".join([*lines, "No prediction: A could not be measured."])
    for name, said, measured in zip(("CPU", "wall"), predicted, (cpu, wall), strict=True):
        held = measured.high >= said.low and measured.low <= said.high
        lines.append(
            f"Predicted for a cache, {name}: {percent(said.mid)} [{percent(said.low)} to "
            f"{percent(said.high)}]: {'holds' if held else 'does not hold for B'}"
        )
    return "\n".join(lines)


def _difference(name: str, saved: Range) -> str:
    if saved.low > 0:
        return f"B saves {name}."
    if saved.high < 0:
        return f"B costs {name}."
    return f"No difference in {name} that these runs could show (more pairs may: --pairs)."


def _results(trial: Trial, change: Mapping[str, str]) -> dict[str, Any]:
    predicted = trial.predicted()
    return {
        "schema": SCHEMA,
        # Values may hold secrets.
        "changed": sorted(change),
        "pairs": [{"a": asdict(a), "b": asdict(b)} for a, b in zip(trial.a, trial.b, strict=True)],
        "saved_cpu": asdict(trial.saved(_cpu)),
        "saved_wall": asdict(trial.saved(_wall)),
        "predicted_cpu": asdict(predicted[0]) if predicted else None,
        "predicted_wall": asdict(predicted[1]) if predicted else None,
        "reports": [to_json(report) for report in trial.reports],
    }
