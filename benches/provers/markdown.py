# SPDX-License-Identifier: MIT OR Apache-2.0
"""The tables as Markdown: what `--show` prints and `tables.md` holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benches.allocators import OWN
from benches.summary import is_own

from . import aims
from .aims import Aim
from .profile import Prediction
from .registry import PROVERS
from .report import (
    HEADINGS,
    Case,
    Summary,
    case_of,
    cells,
    groups,
    notes,
    of_case,
    row_of,
    summarise,
)
from .runner import Run
from .store import Results, Slice


def render(results: Results) -> str:
    """Return everything that was measured, and what it was measured with."""
    rows = groups(summarise(results.runs))
    what = {case_of(run): run.what for run in results.runs}
    predictions = results.predictions()
    checked = aims.check(results.runs, predictions, results.profiles)
    parts = [_overview(rows, results.runs, checked), _predictions(predictions), _aims(checked)]
    parts += [_case(case, own, what[case]) for case, own in rows.items()]
    parts.append(_slices(results.slices))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """Lay out a table whose first `left` columns are words."""
    rules = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rules, *body))


def _name(case: Case) -> str:
    return f"{case.prover}, {case.size:,}, {case.threads}"


def _overview(rows: dict[Case, list[Summary]], runs: Sequence[Run], checked: Sequence[Aim]) -> str:
    """Return a line for each case: ours beside glibc and beside the best other setting."""
    body = []
    for case, own in rows.items():
        ours, glibc = row_of(own, OWN), row_of(own, "glibc")
        best = aims.best_other(of_case(runs, case))
        if ours is None or best is None:
            continue
        time = next(one for one in checked if (one.case, one.aim) == (case, "prove time"))
        body.append(
            (
                _name(case),
                _brief(glibc),
                f"{best[0]}: {_brief(row_of(own, best[0]))}",
                _brief(ours),
                time.figure.partition(" of ")[0],
                f"{ours.peak_rss_kib / glibc.peak_rss_kib:.3f}" if glibc else "-",
                f"{100 * ours.hit_rate:.1f} %" if ours.hit_rate is not None else "-",
            )
        )
    if not body:
        return ""
    head = (
        "prover, size, threads",
        "glibc",
        "best other",
        OWN,
        "time to best",
        "peak to glibc",
        "hits",
    )
    legend = (
        "Wall seconds of a warm proof, page faults, peak MiB. *Time to best*: the median of "
        "the ratios of the rounds, with its 95 % interval."
    )
    return f"## {OWN} beside the best\n\n{_table(head, body, 4)}\n\n{legend}"


def _brief(row: Summary | None) -> str:
    if row is None:
        return "-"
    return f"{row.wall_s:.2f}, {row.minor_faults:,.0f}, {row.peak_rss_kib / 1024:,.0f}"


def _predictions(predictions: Sequence[Prediction]) -> str:
    body = [
        (
            _name(one.case),
            one.verdict,
            *(
                (f"{one.cpu_low:.1%} to {one.cpu_high:.1%}", f"{one.cpu_happened:.1%}")
                if one.preloadable
                else ("preloading cannot help", f"{one.cpu_happened:.1%}")
            ),
            f"{one.wall_low:.1%} to {one.wall_high:.1%}" if one.preloadable else "-",
            f"{one.wall_happened:.1%}",
            "yes" if one.holds else "**no**",
        )
        for one in predictions
    ]
    if not body:
        return ""
    head = (
        *("prover, size, threads", "verdict", "CPU saving said", "happened"),
        *("wall saving said", "happened", "within 5 points"),
    )
    return f"## What zkprof said of the run on glibc, and what happened\n\n{_table(head, body, 2)}"


def _aims(checked: Sequence[Aim]) -> str:
    if not checked:
        return ""
    body = [
        (
            _name(one.case),
            one.aim,
            one.verdict if one.verdict == aims.MET else f"**{one.verdict}**",
            one.figure,
        )
        for one in checked
    ]
    return f"## Aims\n\n{_table(('prover, size, threads', 'aim', 'verdict', 'figure'), body, 4)}"


def _case(case: Case, rows: Sequence[Summary], what: str) -> str:
    glibc, fastest = row_of(rows, "glibc"), min(row.wall_s for row in rows)
    body: list[tuple[str, ...]] = []
    for row in rows:
        name = f"**{row.allocator}**" if is_own(row.allocator) else row.allocator
        wall, *others = cells(row, glibc)
        body.append((name, f"**{wall}**" if row.wall_s == fastest else wall, *others))
    counts = {(row.processes, row.warm_proofs) for row in rows}
    many = " or ".join(f"{p} processes, {n} warm proofs" for p, n in sorted(counts))
    return (
        f"## {PROVERS[case.prover].title}\n\n"
        f"{notes(rows, what)}; {case.threads} threads; medians of {many}.\n\n"
        f"{_table(('allocator', *HEADINGS), body)}"
    )


def _slices(slices: Sequence[Slice]) -> str:
    return "## Measured with\n\n" + "\n".join(_slice(one) for one in slices)


def _slice(one: Slice) -> str:
    return "\n".join(_slice_lines(one))


def _slice_lines(one: Slice) -> Iterator[str]:
    m = one.machine
    yield (
        f"- `{one.command}`, {one.started} to {one.ended}: {m['processor']}, {m['cpus']} CPUs, "
        f"{m['memory_bytes'] / (1 << 30):.0f} GiB, Linux {m['kernel']}, {m['libc']}, huge pages "
        f"on `{m['transparent_huge_pages']}`"
        + (f", libzknalloc {one.library}" if one.library else "")
    )
    for kind, rows in (("missing", one.missing), ("failed", one.failed)):
        for name, why in rows.items():
            yield f"  - {kind}: {name}: {why.splitlines()[0]}"
