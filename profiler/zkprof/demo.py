# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof demo`: predict the gain for a prover, then measure it.

1. The demonstration prover runs on the system allocator and is measured from
   outside while it proves, as any prover would be: verdict and prediction.
2. It runs again on the system allocator, on libzknalloc, and on glibc told
   never to give memory back (the honest rival), in turns, twice.  These runs
   are not sampled.
3. Predicted and measured gain are put side by side.  Each figure is the median
   over the warm proofs of both runs: all but the first of a run, which meets
   fresh memory whatever the allocator.

The prover counts its own time and faults and checks every proof; libzknalloc's
counters are read from outside.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .advice import NEVER_TRIM
from .errors import Exit, ZkprofError
from .estimate import Verdict, percent
from .measure import measure
from .model import Tier
from .render import screen, show
from .report import Report, to_json
from .runner import Child, ignore, watch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from typing import TextIO

    from rich.console import Console

SCHEMA = "zkprof-demo/1"
ROUNDS = 2

SYSTEM, OURS, KEPT = "system allocator", "libzknalloc", "glibc, never trimming"


class DemoError(ZkprofError):
    """The demonstration cannot run, or a proof was wrong."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What one proof cost, as its prover counted."""

    seconds: float
    cpu_seconds: float
    minor_faults: int


@dataclass(slots=True)
class Series:
    """The runs on one allocator."""

    name: str
    env: dict[str, str]
    warm: list[Proof] = field(default_factory=list)
    cold: list[Proof] = field(default_factory=list)
    peak_rss_bytes: int = 0
    hit_rate: float | None = None

    @property
    def wall(self) -> float:
        """Median seconds of a warm proof."""
        return median(proof.seconds for proof in self.warm)

    @property
    def cpu(self) -> float:
        """Median CPU seconds of a warm proof."""
        return median(proof.cpu_seconds for proof in self.warm)

    @property
    def faults(self) -> float:
        """Median page faults of a warm proof."""
        return median(proof.minor_faults for proof in self.warm)


def demo(
    out: Console,
    *,
    json_file: TextIO | None = None,
    log_rows: int = 16,
    threads: int = 1,
    proofs: int = 5,
    prover: Path | None = None,
    preload: Path | None = None,
) -> int:
    """Run the demonstration.

    Parameters
    ----------
    out
        Where it is shown.
    json_file
        Where the results are written, too.
    log_rows, threads, proofs
        The size of a proof, the prover's threads, the proofs of each run.
    prover, preload
        Files to use instead of the installed ones.

    Returns
    -------
    int
        0, or 4 where the profile was inconclusive.
    """
    command = [str(prover or _installed_prover()), "--json"]
    command += ["--log-rows", str(log_rows), "--threads", str(threads)]
    base = clean_environment(os.environ)
    series = [
        Series(SYSTEM, base),
        Series(OURS, base | {"LD_PRELOAD": str(_preload(preload))}),
        Series(KEPT, base | NEVER_TRIM),
    ]

    show(out, "1  A STARK prover on the system allocator, measured from outside\n")
    report = _profile(command, base, proofs, out)
    show(out, screen(report))

    show(out, f"\n2  The same prover on each allocator, {proofs} proofs a run, {ROUNDS} rounds\n")
    for number in range(1, ROUNDS + 1):
        for one in series:
            with _progress(out, f"round {number} of {ROUNDS}: {one.name}"):
                _run(command, proofs, one, first=number == 1)
    show(out, _table(series))

    show(out, "\n3  Predicted and measured\n")
    show(out, _comparison(report, series))
    if json_file:
        json.dump(_results(report, series, log_rows, threads), json_file, indent=1)
        json_file.write("\n")
    inconclusive = report.estimate.verdict is Verdict.INCONCLUSIVE
    return Exit.INCONCLUSIVE if inconclusive else Exit.OK


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without what would change an allocator."""
    return {
        name: value
        for name, value in environ.items()
        if name not in ("LD_PRELOAD", "GLIBC_TUNABLES")
        and not name.startswith(("MALLOC_", "ZK_NALLOC_"))
    }


# ------------------------------------------------------------------ the files


def _installed_prover() -> Path:
    path = Path(str(importlib.resources.files("zkprof").joinpath("bin", "zkprof-demo-prover")))
    if not path.is_file():
        message = (
            "the demonstration prover is not installed: reinstall zk-nalloc, or build "
            "profiler/demo and name it with --prover"
        )
        raise DemoError(message)
    return path


def _preload(path: Path | None) -> Path:
    if path is None:
        try:
            from zk_nalloc._config import preload_path  # noqa: PLC0415
        except ImportError as error:
            message = (
                "libzknalloc is not installed: `pip install zk-nalloc`, or name "
                "libzknalloc_preload.so with --preload"
            )
            raise DemoError(message) from error
        path = preload_path()
    if not path.is_file():
        message = f"there is no {path}: name libzknalloc_preload.so with --preload"
        raise DemoError(message)
    # The loader would only warn, and run on without it.
    if any(c in str(path.resolve()) for c in " :\t\n"):
        message = f"{path} cannot be preloaded: LD_PRELOAD allows no space or colon in a path"
        raise DemoError(message)
    return path.resolve()


# ------------------------------------------------------------------- the runs


def _progress(out: Console, text: str) -> AbstractContextManager[object]:
    """Show `text` while something runs, as one line where there is no terminal."""
    if out.is_terminal:
        return out.status(text)
    show(out, f"   {text}")
    return nullcontext()


def _profile(command: list[str], env: dict[str, str], proofs: int, out: Console) -> Report:
    """Measure the prover from its second proof on, for the length of a run."""
    with Child([*command, "--proofs", "1000000"], env, pipe=True) as child:
        with _progress(out, "the first proof, which meets fresh memory"):
            first = _proof(_line(child))
        duration = max(first.seconds * proofs, 0.5)
        m = watch(child.pid, duration, 199.0, out=out, title="measuring")
    return Report.of(m)


def _run(command: list[str], proofs: int, series: Series, *, first: bool) -> None:
    with Child([*command, "--proofs", str(proofs)], series.env, pipe=True) as child:
        series.cold.append(_proof(_line(child)))
        if first and series.name == OURS:
            # Counters only: reading them costs the prover nothing.
            m = measure(child.pid, math.inf, on_tick=ignore, tier=Tier.PROC)
            series.hit_rate = m.library.hit_rate if m.library else None
        series.warm += [_proof(_line(child)) for _ in range(proofs - 1)]
        summary = _line(child)
        series.peak_rss_bytes = max(series.peak_rss_bytes, int(summary["peak_rss_bytes"]))
        if child.wait() != 0:
            message = f"the prover failed on the {series.name}"
            raise DemoError(message)


def _line(child: Child) -> dict[str, Any]:
    assert child.process.stdout  # noqa: S101  (asked for)
    line = child.process.stdout.readline()
    try:
        data = json.loads(line)
    except ValueError:
        code = child.wait()
        message = f"the prover ended early, with exit code {code}"
        raise DemoError(message) from None
    return dict(data)


def _proof(line: dict[str, Any]) -> Proof:
    if line["verified"] is not True:
        message = "the verifier rejected a proof: the allocator in use corrupted memory"
        raise DemoError(message)
    return Proof(
        seconds=line["seconds"],
        cpu_seconds=line["user_seconds"] + line["system_seconds"],
        minor_faults=line["minor_faults"],
    )


# ---------------------------------------------------------------- the results


def saving(before: float, after: float) -> float:
    """Return the share of `before` that `after` saves."""
    return 1 - after / before


def _table(series: list[Series]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("a warm proof")
    for one in series:
        table.add_column(one.name, justify="right")
    base = series[0]

    def seconds(value: float, reference: float) -> str:
        change = f"{value / reference - 1:+.0%}" if value != reference else ""
        return f"{value:.3f} {change:>4}"

    table.add_row("CPU seconds", *(seconds(s.cpu, base.cpu) for s in series))
    table.add_row("wall seconds", *(seconds(s.wall, base.wall) for s in series))
    rows = {
        "page faults": [f"{s.faults:,.0f}" for s in series],
        "hit rate": [percent(s.hit_rate) if s.hit_rate is not None else "" for s in series],
        "peak memory, MB": [f"{s.peak_rss_bytes / 1e6:.0f}" for s in series],
        "first proof, CPU s": [f"{median(p.cpu_seconds for p in s.cold):.3f}" for s in series],
    }
    for name, cells in rows.items():
        table.add_row(name, *(f"{cell}     " for cell in cells))
    return table


def _comparison(report: Report, series: list[Series]) -> Text:
    base, ours = series[0], series[1]
    e = report.estimate
    text = Text()
    for name, predicted, measured in (
        ("CPU time saved ", e.saving_cpu, saving(base.cpu, ours.cpu)),
        ("wall time saved", e.saving_wall, saving(base.wall, ours.wall)),
    ):
        text.append(
            f"{name}   predicted {percent(predicted.mid)} [{percent(predicted.low)} to "
            f"{percent(predicted.high)}]   measured "
        )
        text.append(f"{percent(measured)}\n", style="bold")
    text.append("All proofs were verified. Wall time is the noisier one where other programs run.")
    return text


def _results(report: Report, series: list[Series], log_rows: int, threads: int) -> dict[str, Any]:
    base = series[0]
    return {
        "schema": SCHEMA,
        "log_rows": log_rows,
        "threads": threads,
        "prediction": to_json(report),
        "series": [
            {
                "name": one.name,
                "cpu_seconds": one.cpu,
                "wall_seconds": one.wall,
                "minor_faults": one.faults,
                "peak_rss_bytes": one.peak_rss_bytes,
                "hit_rate": one.hit_rate,
                "cpu_saving": saving(base.cpu, one.cpu),
                "wall_saving": saving(base.wall, one.wall),
                "cold": [asdict(proof) for proof in one.cold],
                "warm": [asdict(proof) for proof in one.warm],
            }
            for one in series
        ],
    }
