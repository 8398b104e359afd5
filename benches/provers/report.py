# SPDX-License-Identifier: MIT OR Apache-2.0
"""Medians, the table, CSV.

Every figure is a median over the warm proofs of all runs of one setting, that
is over all proofs but the first of each process.  Peak memory belongs to a
process, not to a proof: the median over runs of its last VmHWM.  The spread of
a time is half of what lies between its quartiles.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple, TextIO

from rich import box
from rich.table import Table

from .registry import PROVERS
from .runner import Proof, Run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Case(NamedTuple):
    """What is compared: a group of rows in the table."""

    prover: str
    size: int
    threads: int


def case_of(one: Run | Summary) -> Case:
    """Return the group that a run or a row belongs to."""
    return Case(one.prover, one.size, one.threads)


def of_case(runs: Iterable[Run], case: Case) -> list[Run]:
    """Return the runs of one case."""
    return [run for run in runs if case_of(run) == case]


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of the table."""

    prover: str
    size: int
    threads: int
    allocator: str
    processes: int
    warm_proofs: int
    wall_s: float
    wall_q1_s: float
    wall_q3_s: float
    cold_wall_s: float
    cpu_s: float
    sys_share: float
    minor_faults: float
    peak_rss_kib: float
    hit_rate: float | None
    hit_rate_of: str | None
    """`warm proofs`, or `process` where only its exit dump is known."""

    @property
    def spread(self) -> float:
        """Half of what lies between the quartiles, as a share of the median."""
        return (self.wall_q3_s - self.wall_q1_s) / 2 / self.wall_s


def groups(rows: Iterable[Summary]) -> dict[Case, list[Summary]]:
    """Return the rows of each case, in their order."""
    found: dict[Case, list[Summary]] = {}
    for row in rows:
        found.setdefault(case_of(row), []).append(row)
    return found


def row_of(rows: Iterable[Summary], allocator: str) -> Summary | None:
    """Return the row of one allocator, if it was measured."""
    return next((row for row in rows if row.allocator == allocator), None)


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """Reduce runs to one row for each prover, size and allocator, those of a case together.

    Cases are in the order of the provers, allocators in the order in which they ran first.
    """
    found: dict[tuple[str, int, int, str], list[Run]] = {}
    for run in runs:
        found.setdefault((*case_of(run), run.allocator), []).append(run)
    order = list(PROVERS)
    keys = sorted(found, key=lambda key: (order.index(key[0]), key[1:3]))
    return [_row(*key, found[key]) for key in keys]


def _row(prover: str, size: int, threads: int, allocator: str, runs: list[Run]) -> Summary:
    warm = [proof for run in runs for proof in run.warm]
    if not warm:
        raise ValueError("a run needs two proofs or more: the first one is cold")
    walls = [proof.wall_s for proof in warm]
    rate, scope = hit_rate(runs, warm)
    first, _, third = quantiles(walls, n=4, method="inclusive") if len(walls) > 1 else 3 * walls
    return Summary(
        prover=prover,
        size=size,
        threads=threads,
        allocator=allocator,
        processes=len(runs),
        warm_proofs=len(warm),
        wall_s=median(walls),
        wall_q1_s=first,
        wall_q3_s=third,
        cold_wall_s=median(run.proofs[0].wall_s for run in runs),
        cpu_s=median(proof.cpu_s for proof in warm),
        sys_share=median(proof.sys_s / proof.cpu_s if proof.cpu_s else 0.0 for proof in warm),
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


def notes(rows: Sequence[Summary], what: str) -> str:
    """Return what a reader of one case's rows has to know."""
    texts = [text for text in (what, PROVERS[rows[0].prover].note) if text]
    if any(row.hit_rate_of == "process" for row in rows):
        texts.append("hit rate of the whole process, start-up included")
    return "; ".join(texts)


HEADINGS = ("wall s", "±%", "x glibc", "CPU s", "sys%", "faults", "MiB", "hit%")


def cells(row: Summary, glibc: Summary | None) -> list[str]:
    """Return the figures of a row, as `HEADINGS` names them."""
    return [
        f"{row.wall_s:.2f}",
        f"{100 * row.spread:.1f}",
        f"{row.wall_s / glibc.wall_s:.3f}" if glibc else "-",
        f"{row.cpu_s:.2f}",
        f"{100 * row.sys_share:.1f}",
        f"{row.minor_faults:,.0f}",
        f"{row.peak_rss_kib / 1024:,.0f}",
        f"{100 * row.hit_rate:.1f}" if row.hit_rate is not None else "-",
    ]


def table(rows: Sequence[Summary], what: str) -> Table:
    """Lay the rows of one case out for 80 columns."""
    shown = Table(
        title=f"{PROVERS[rows[0].prover].title}, {rows[0].threads} threads",
        caption=notes(rows, what),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    # Where it is too narrow, names break: figures never do.
    shown.add_column("allocator", overflow="fold")
    for heading in HEADINGS:
        shown.add_column(heading, justify="right", no_wrap=True)
    glibc = row_of(rows, "glibc")
    for row in rows:
        shown.add_row(row.allocator, *cells(row, glibc))
    return shown


def write_rows(rows: Iterable[DataclassInstance], kind: type, file: TextIO) -> None:
    """Write dataclasses as CSV, one line for each."""
    writer = csv.DictWriter(file, [field.name for field in fields(kind)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)


def write_csv(runs: Sequence[Run], file: TextIO) -> None:
    """Write one line for each proof, cold ones included."""
    names = ["prover", "size", "threads", "allocator", "run", "slice", *Proof.__slots__]
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    seen: Counter[tuple[Case, str]] = Counter()
    for run in runs:
        key = (case_of(run), run.allocator)
        seen[key] += 1
        for proof in run.proofs:
            writer.writerow(
                {
                    "prover": run.prover,
                    "size": run.size,
                    "threads": run.threads,
                    "allocator": run.allocator,
                    "run": seen[key] - 1,
                    "slice": run.slice,
                    **asdict(proof),
                }
            )
