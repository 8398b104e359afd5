# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof simulate`: which size of the cache would serve a program best.

A trace of requests (`zk-nalloc record`) is replayed by the library itself, in
one process for each size of its cache, so that its own rules decide what is a
hit: nothing of it is imitated here.  A report (`zkprof --json`) holds no
requests; for it the curve is read off the rise and fall of the process's
memory, see `curve`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.progress import Progress
from rich.table import Table

from .curve import CachePoint, enough, sizes_up_to
from .demo import clean_environment
from .errors import Exit, ZkprofError
from .estimate import percent
from .render import show
from .report import Report, ReportError, from_json
from .trace import NO_COPIES, Trace, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import TextIO

    from rich.console import Console

SCHEMA = "zkprof-simulate/1"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,12})([KMGT]?)")
_AUTO = "auto"


class SimulationError(ZkprofError):
    """A replay that failed."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one size of the cache did with a trace."""

    setting: str
    """The value of ``ZK_NALLOC_CACHE_BYTES``; `auto` is the default."""
    cache_bytes: int
    hit_rate: float
    bytes_missed: int
    committed_peak: int
    """The most memory that the library held, live and free."""
    classes: tuple[dict[str, int], ...]

    @property
    def point(self) -> CachePoint:
        """Its point on the curve."""
        return CachePoint(self.cache_bytes, self.hit_rate, self.bytes_missed)


def parse_size(text: str) -> int:
    """Read a size as ``ZK_NALLOC_CACHE_BYTES`` takes it.

    Raises
    ------
    ValueError
        `text` is no size.
    """
    match = _SIZE.fullmatch(text.strip().upper())
    if not match:
        message = f"{text!r} is no size: write bytes, or 512M, or 4G"
        raise ValueError(message)
    return int(match[1]) * _UNITS[match[2]]


def write_size(size: int) -> str:
    """Write a size the same way, exactly."""
    for unit in ("G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def simulate(
    path: Path,
    out: Console,
    *,
    sizes: Sequence[int] = (),
    json_file: TextIO | None = None,
) -> int:
    """Show the cache-size curve of a trace or of a report.

    Parameters
    ----------
    path
        The file.
    out
        Where it is shown.
    sizes
        The sizes to try; none chooses them by what the trace needs.
    json_file
        Where the results are written, too.

    Returns
    -------
    int
        The exit code.
    """
    report = _report(path)
    if report:
        return _of_report(report, out, json_file)
    trace = load(path)
    runs = run_all(path, trace, sizes or sizes_up_to(trace.live_peak), out)
    requests = f"{trace.requests} requests, at most {trace.live_peak / 1e9:.2f} GB in use at once"
    show(out, f"{requests}; warm replay")
    show(out, _table(runs))
    show(out, _advice(runs))
    if json_file:
        _write(
            json_file,
            source="trace",
            requests=trace.requests,
            live_peak=trace.live_peak,
            runs=[asdict(run) for run in runs],
            curve=[asdict(run.point) for run in runs if run.setting != _AUTO],
        )
    return Exit.OK


def _report(path: Path) -> Report | None:
    """Return the report in a file, None where it is not JSON at all."""
    try:
        with path.open("rb") as file:
            if file.read(64).lstrip()[:1] != b"{":
                return None
            file.seek(0)
            return from_json(json.load(file))
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ReportError(message) from error
    except ValueError as error:
        message = f"{path} is neither a trace nor a report: {error}"
        raise ReportError(message) from error


def _of_report(report: Report, out: Console, json_file: TextIO | None) -> int:
    curve = report.estimate.cache_curve
    if not curve:
        message = (
            "the measured process gave back no memory that it took again, so there is nothing "
            "to cache; for exact figures record its requests: zk-nalloc record -- CMD"
        )
        raise ZkprofError(message)
    table = _columns("cache", "hit rate", "from the kernel")
    for point in curve:
        missed = f"{point.bytes_missed / 1e9:.2f} GB"
        table.add_row(write_size(point.bytes), percent(point.hit_rate), missed)
    show(out, table)
    best = enough(curve)
    if best:
        show(
            out,
            "Read off the process's memory 20 times a second; for exact figures record its "
            "requests: zk-nalloc record -- CMD\n"
            f"-> export ZK_NALLOC_CACHE_BYTES={write_size(best.bytes)}",
        )
    if json_file:
        _write(json_file, source="report", curve=[asdict(point) for point in curve])
    return Exit.OK


def _write(file: TextIO, **content: Any) -> None:  # noqa: ANN401
    json.dump({"schema": SCHEMA} | content, file, indent=1)
    file.write("\n")


# --------------------------------------------------------------------- replay


def run_all(path: Path, trace: Trace, sizes: Sequence[int], out: Console) -> list[Run]:
    """Replay a trace with each size of the cache, and with the default.

    Parameters
    ----------
    path, trace
        The trace, as a file and as read.
    sizes
        The sizes, in bytes.
    out
        Where progress is shown, if that is a terminal.
    """
    settings = [*(str(size) for size in sorted(set(sizes))), _AUTO]
    copies = 2 * trace.live_peak < _available()
    with (
        Progress(console=out, transient=True, disable=not out.is_terminal) as progress,
        ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool,
    ):
        task = progress.add_task("replaying", total=len(settings))

        def one(setting: str) -> Run:
            run = _run(path, setting, copies=copies)
            progress.advance(task)
            return run

        return list(pool.map(one, settings))


def _run(path: Path, setting: str, *, copies: bool) -> Run:
    env = clean_environment(os.environ) | {
        "ZK_NALLOC_CACHE_BYTES": setting,
        # Time does not pass in a replay, and no page is touched.
        "ZK_NALLOC_IDLE_SECONDS": "0",
        "ZK_NALLOC_THP": "0",
    }
    # -P: nothing is imported from the current folder, as in zkprof itself.
    command = [sys.executable, "-P", "-m", "zkprof.replay", str(path)]
    command += [] if copies else [NO_COPIES]
    done = subprocess.run(  # noqa: S603  (our own module)
        command, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        message = f"the replay with a cache of {setting} failed: {last}"
        raise SimulationError(message)
    counted = json.loads(done.stdout)
    hit, missed = counted["bytes_hit"], counted["bytes_missed"]
    return Run(
        setting=setting,
        cache_bytes=counted["cache_bytes"],
        hit_rate=hit / (hit + missed) if hit + missed else 0.0,
        bytes_missed=missed,
        committed_peak=counted["committed_peak"],
        classes=tuple(row for row in counted["classes"] if row["hits"] + row["misses"]),
    )


def _available() -> int:
    """Return the memory that may be used without pressing anyone."""
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  (not a path of ours)
        for line in file:
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return 0


# -------------------------------------------------------------------- results


def _columns(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _table(runs: Sequence[Run]) -> Table:
    table = _columns("cache", "hit rate", "from the kernel", "peak memory")
    for run in runs:
        name = run.setting if run.setting == _AUTO else write_size(int(run.setting))
        table.add_row(
            name,
            percent(run.hit_rate),
            f"{run.bytes_missed / 1e9:.2f} GB",
            f"{run.committed_peak / 1e9:.2f} GB",
        )
    return table


def _advice(runs: Sequence[Run]) -> str:
    default = next(run for run in runs if run.setting == _AUTO)
    best = enough([run.point for run in runs if run.setting != _AUTO])
    if best is None:  # nothing was asked for
        return ""
    if default.hit_rate < best.hit_rate:
        return f"-> export ZK_NALLOC_CACHE_BYTES={write_size(best.bytes)}"
    return (
        "-> Set nothing: the default (auto) serves as much as any size. What goes beyond its "
        "ceiling it keeps too, for the kernel to take when memory is short. "
        f"As a hard ceiling, ZK_NALLOC_CACHE_BYTES={write_size(best.bytes)} does as well."
    )
