# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof demo`: predict the gain for a prover, then measure it.

1. The demonstration prover runs on the system allocator and is measured from
   outside while it proves, as any prover would be: verdict and prediction.
2. Three provers are started: on the system allocator, on libzknalloc, and on
   glibc told never to give memory back (the honest rival).  They prove in
   turns, one proof each a round, so that whatever else the machine does meets
   all three alike.  They are not sampled.
3. Predicted and measured gain are put side by side.  A gain is the median over
   the rounds of what was saved within the round.  The first proof of each
   prover does not count: it meets fresh memory whatever the allocator.

The prover counts its own time and faults and checks every proof; libzknalloc's
counters are read from outside.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .advice import NEVER_TRIM
from .errors import Exit, ZkprofError
from .estimate import Verdict, percent
from .library import Library
from .procfs import Process
from .render import screen, show
from .report import Report, to_json
from .runner import Child, watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import TextIO

    from rich.console import Console

SCHEMA = "zkprof-demo/1"

SYSTEM, OURS, KEPT = "system allocator", "libzknalloc", "glibc, never trimming"


ENDLESS = ("--proofs", "1000000")
# On a machine that is busy otherwise: fewer rounds, rather than minutes.
MAX_PROFILE_S = 12.0
MAX_RACE_S = 40.0
MIN_ROUNDS = 3


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
    """The proofs on one allocator, the first of them cold."""

    name: str
    env: dict[str, str]
    cold: Proof | None = None
    warm: list[Proof] = field(default_factory=list)
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

    def cpu_saving(self, base: Series) -> float:
        """Return the share of `base`'s CPU time that this saves, round by round."""
        pairs = zip(base.warm, self.warm, strict=True)
        return median(1 - mine.cpu_seconds / other.cpu_seconds for other, mine in pairs)

    def wall_saving(self, base: Series) -> float:
        """Return the share of `base`'s wall time that this saves, round by round."""
        pairs = zip(base.warm, self.warm, strict=True)
        return median(1 - mine.seconds / other.seconds for other, mine in pairs)


def demo(
    out: Console,
    *,
    json_file: TextIO | None = None,
    log_rows: int = 16,
    threads: int = 1,
    proofs: int = 7,
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
        The size of a proof, the prover's threads, the warm proofs on each allocator.
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
        Series(OURS, base | {"LD_PRELOAD": str(library_to_preload(preload))}),
        Series(KEPT, base | NEVER_TRIM),
    ]

    show(out, "1  A STARK prover on the system allocator, measured from outside\n")
    report = _profile(command, base, proofs, out)
    show(out, screen(report))

    show(out, f"\n2  The same prover on each allocator, {proofs} warm proofs, in turns\n")
    _race(command, series, proofs, out)
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


def library_to_preload(path: Path | None) -> Path:
    """Return the library to preload: `path`, or the installed one.

    Raises
    ------
    DemoError
        There is none, or the loader cannot take it.
    """
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
    with Child([*command, *ENDLESS], env, pipe=True) as child:
        with _progress(out, "the first proof, which meets fresh memory"):
            first = _proof(_line(child))
        duration = min(max(first.seconds * proofs, 0.5), MAX_PROFILE_S)
        m = watch(child.pid, duration, 199.0, out=out, title="measuring")
    return Report.of(m, [command[0], "--proofs", str(proofs)])


def _race(command: list[str], series: list[Series], proofs: int, out: Console) -> None:
    paced = [*command, "--paced", *ENDLESS]
    with ExitStack() as stack:
        provers = [stack.enter_context(Child(paced, one.env, pipe=True)) for one in series]
        with _progress(out, "a first proof on each"):
            for one, prover in zip(series, provers, strict=True):
                one.cold = _proof(_ask(prover))
        counters = [stack.enter_context(_counters(prover.pid)) for prover in provers]
        began = time.monotonic()
        for number in range(1, proofs + 1):
            if number > MIN_ROUNDS and time.monotonic() - began > MAX_RACE_S:
                break
            with _progress(out, f"round {number} of {proofs}"):
                for one, prover in zip(series, provers, strict=True):
                    one.warm.append(_proof(_ask(prover)))
        for one, prover, library in zip(series, provers, counters, strict=True):
            counted = library.read()
            one.hit_rate = counted.hit_rate if counted else None
            prover.end_input()
            one.peak_rss_bytes = int(_line(prover)["peak_rss_bytes"])
            if prover.wait() != 0:
                message = f"the prover failed on the {one.name}"
                raise DemoError(message)


@contextmanager
def _counters(pid: int) -> Iterator[Library]:
    """Read libzknalloc's counters in a process, from now on."""
    with Process(pid) as process:
        yield Library(pid, process.maps())


def _ask(prover: Child) -> dict[str, Any]:
    """Let a paced prover make one proof."""
    prover.write_line()
    return _line(prover)


def _line(child: Child) -> dict[str, Any]:
    line = child.read_line()
    try:
        data = json.loads(line)
    except ValueError:
        code = child.wait()
        message = f"the prover ended early, with exit code {code}"
        raise DemoError(message) from None
    return dict(data)


def _proof(line: dict[str, Any]) -> Proof:
    if line.get("verified") is not True:
        message = "the verifier rejected a proof: the allocator in use corrupted memory"
        raise DemoError(message)
    return Proof(
        seconds=line["seconds"],
        cpu_seconds=line["user_seconds"] + line["system_seconds"],
        minor_faults=line["minor_faults"],
    )


# ---------------------------------------------------------------- the results


def _table(series: list[Series]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("a warm proof, median")
    for one in series:
        table.add_column(one.name, justify="right")
    base = series[0]

    def change(saving: float) -> str:
        return f"{-saving:+.0%}"

    rows = {
        "CPU seconds": [f"{s.cpu:.3f}" for s in series],
        "  change": ["", *(change(s.cpu_saving(base)) for s in series[1:])],
        "wall seconds": [f"{s.wall:.3f}" for s in series],
        "  change ": ["", *(change(s.wall_saving(base)) for s in series[1:])],
        "page faults": [f"{s.faults:,.0f}" for s in series],
        "hit rate": [percent(s.hit_rate) if s.hit_rate is not None else "" for s in series],
        "peak memory, MB": [f"{s.peak_rss_bytes / 1e6:.0f}" for s in series],
        "first proof, CPU s": [f"{s.cold.cpu_seconds:.3f}" if s.cold else "" for s in series],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _comparison(report: Report, series: list[Series]) -> Text:
    base, ours = series[0], series[1]
    e = report.estimate
    text = Text()
    for name, predicted, measured in (
        ("CPU time saved ", e.saving_cpu, ours.cpu_saving(base)),
        ("wall time saved", e.saving_wall, ours.wall_saving(base)),
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
                "cpu_saving": one.cpu_saving(base),
                "wall_saving": one.wall_saving(base),
                "cold": asdict(one.cold) if one.cold else None,
                "warm": [asdict(proof) for proof in one.warm],
            }
            for one in series
        ],
    }
