# SPDX-License-Identifier: MIT OR Apache-2.0
"""Medians, the table, CSV and JSON.

Every figure is a median over the warm proofs of all runs of one setting, that
is over all proofs but the first of each process.  Peak memory belongs to a
process, not to a proof: the median over runs of its last VmHWM.
"""

from __future__ import annotations

import csv
import datetime as dt
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.table import Table

from .registry import PROVERS
from .runner import Proof, Run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of the table."""

    prover: str
    size: int
    threads: int
    allocator: str
    warm_proofs: int
    wall_s: float
    wall_min_s: float
    wall_max_s: float
    cold_wall_s: float
    cpu_s: float
    sys_share: float
    minor_faults: float
    peak_rss_kib: float
    hit_rate: float | None
    hit_rate_of: str | None
    """`warm proofs`, or `process` where only its exit dump is known."""


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """Reduce runs to one row for each prover, size and allocator, in their order."""
    groups: dict[tuple[str, int, int, str], list[Run]] = {}
    for run in runs:
        key = (run.prover, run.size, run.threads, run.allocator)
        groups.setdefault(key, []).append(run)
    return [_row(*key, group) for key, group in groups.items()]


def _row(prover: str, size: int, threads: int, allocator: str, runs: list[Run]) -> Summary:
    warm = [proof for run in runs for proof in run.proofs[1:]]
    if not warm:
        raise ValueError("a run needs two proofs or more: the first one is cold")
    walls = [proof.wall_s for proof in warm]
    rate, scope = hit_rate(runs, warm)
    return Summary(
        prover=prover,
        size=size,
        threads=threads,
        allocator=allocator,
        warm_proofs=len(warm),
        wall_s=median(walls),
        wall_min_s=min(walls),
        wall_max_s=max(walls),
        cold_wall_s=median(run.proofs[0].wall_s for run in runs),
        cpu_s=median(proof.user_s + proof.sys_s for proof in warm),
        sys_share=median(
            proof.sys_s / cpu if (cpu := proof.user_s + proof.sys_s) else 0.0 for proof in warm
        ),
        minor_faults=median(proof.minor_faults for proof in warm),
        peak_rss_kib=median(run.proofs[-1].peak_rss_kib for run in runs),
        hit_rate=rate,
        hit_rate_of=scope,
    )


def hit_rate(runs: Iterable[Run], warm: Sequence[Proof]) -> tuple[float | None, str | None]:
    """Return hits over large requests, of the warm proofs where they are known."""
    counted = [(proof.hits, proof.misses) for proof in warm]
    scope = "warm proofs"
    if any(hits is None for hits, _ in counted):
        counted = [(run.library["hits"], run.library["misses"]) for run in runs if run.library]
        scope = "process"
    hits = sum(h for h, _ in counted if h is not None)
    requests = hits + sum(m for _, m in counted if m is not None)
    return (hits / requests, scope) if requests else (None, None)


def table(rows: Sequence[Summary], what: str) -> Table:
    """Lay the rows of one prover out for 80 columns."""
    prover = PROVERS[rows[0].prover]
    notes = [text for text in (what, prover.note) if text]
    if any(row.hit_rate_of == "process" for row in rows):
        notes.append("hit rate of the whole process, start-up included")
    title = f"{prover.title}, {rows[0].threads} threads"
    shown = Table(
        title=title,
        caption="; ".join(notes),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("allocator", no_wrap=True)
    for heading in ("wall s", "± %", "CPU s", "sys %", "faults", "peak MiB", "hit %"):
        shown.add_column(heading, justify="right", no_wrap=True)
    base = next((row.wall_s for row in rows if row.allocator == "glibc"), None)
    for row in rows:
        shown.add_row(
            row.allocator,
            f"{row.wall_s:.2f}",
            f"{100 * (row.wall_s / base - 1):+.1f}" if base else "-",
            f"{row.cpu_s:.2f}",
            f"{100 * row.sys_share:.1f}",
            f"{row.minor_faults:,.0f}",
            f"{row.peak_rss_kib / 1024:,.0f}",
            f"{100 * row.hit_rate:.1f}" if row.hit_rate is not None else "-",
        )
    return shown


def machine() -> dict[str, Any]:
    """Describe where the figures come from."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    thp = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "thp": thp.read_text().strip() if thp.exists() else "absent",
    }


def document(runs: Sequence[Run], **more: object) -> dict[str, Any]:
    """Return everything as one JSON document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine(),
        **more,
        "summary": [asdict(row) for row in summarise(runs)],
        "runs": [asdict(run) for run in runs],
    }


def write_rows(rows: Iterable[DataclassInstance], kind: type, file: TextIO) -> None:
    """Write dataclasses as CSV, one line for each."""
    writer = csv.DictWriter(file, [field.name for field in fields(kind)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)


def write_csv(runs: Sequence[Run], file: TextIO) -> None:
    """Write one line for each proof, cold ones included."""
    names = ["prover", "size", "threads", "allocator", "run", *Proof.__slots__]
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    seen: dict[tuple[str, str], int] = {}
    for run in runs:
        key = (run.prover, run.allocator)
        seen[key] = seen.get(key, -1) + 1
        for proof in run.proofs:
            writer.writerow(
                {
                    "prover": run.prover,
                    "size": run.size,
                    "threads": run.threads,
                    "allocator": run.allocator,
                    "run": seen[key],
                    **asdict(proof),
                }
            )
