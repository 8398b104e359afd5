# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reports as one HTML file that needs no network and asks for none.

Text and tables are written by templates (`data/*.html`), so that a page can be
read without scripts; charts are drawn by `data/*.js` from one block of JSON.
Nothing from the target is ever markup: templates escape, scripts only set
text, and the page's policy forbids every script but its own by its digest.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from . import pagedata
from .advice import advise
from .compare import NOISE, UNKNOWN
from .estimate import Verdict
from .render import fact_rows, headline, verdict_sentence
from .show_compare import cells, notes, who
from .text import cleaned, size
from .version import version
from .views import asking
from .words import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .compare import Comparison
    from .model import Measurement
    from .report import Report

_SCRIPTS = ("charts.js", "flame.js")
_TONES = {
    Verdict.BOUND: "bad",
    Verdict.HEAVY: "warn",
    Verdict.NOT_BOUND: "good",
    Verdict.GROWTH: "calm",
    Verdict.INCONCLUSIVE: "muted",
}
_FUNCTIONS = 25
_THREADS = 200


def page(report: Report) -> str:
    """Return a report as the text of an HTML file."""
    report = cleaned(report)
    m, e = report.measurement, report.estimate
    flame = pagedata.flame([m])
    inconclusive = e.verdict is Verdict.INCONCLUSIVE
    return render(
        "report.html",
        data={
            "groups": pagedata.NAMES,
            "time": pagedata.time_chart(m),
            "memory": pagedata.memory_chart(m),
            "strip": pagedata.thread_strip(m),
            "flame": flame,
            "curve": [(point.bytes, point.hit_rate) for point in e.cache_curve],
        },
        m=m,
        e=e,
        tone=_TONES[e.verdict],
        headline=headline(m),
        sentence=verdict_sentence(m, e),
        why=_sentence(e.why),
        ranges=[]
        if inconclusive
        else [
            (name, r, f"{_percent(r.mid)} [{_percent(r.low)} to {_percent(r.high)}]")
            for name, r in (("wall time", e.saving_wall), ("CPU time", e.saving_cpu))
        ],
        cards=list(_cards(report)),
        # Made anew: the advice on screen may hold the command's arguments.
        advice=[{"text": _sentence(i.text), "command": i.command} for i in advise(m, e)],
        classes=list(_classes(m)),
        time_label=_time_label(m),
        flame_note=_left_out(flame),
        functions=[
            (seconds, [pagedata.short(name) for name in chain])
            for seconds, chain in (asking(m)[:_FUNCTIONS] if m.cpu_s > 0 else [])
        ],
        threads=[
            (t, pagedata.managed_share(t.by_kind))
            for t in sorted(m.threads, key=lambda t: -t.cpu_s)[:_THREADS]
        ],
        library=list(_library(m)),
        facts_rows=list(fact_rows(m, e)),
    )


def comparison_page(found: Comparison) -> str:
    """Return a comparison as the text of an HTML file."""
    sides = [[cleaned(r.measurement) for r in side] for side in (found.after, found.before)]
    flame = pagedata.flame(*sides, whole_runs=found.whole_runs)
    return render(
        "compare.html",
        data={"groups": pagedata.NAMES, "flame": flame},
        before=who(found.before),
        after=who(found.after),
        notes=list(notes(found, {NOISE: NOISE, UNKNOWN: UNKNOWN})),
        rows=[(row, cells(row)) for row in found.rows],
        whole_runs=found.whole_runs,
        flame_note=_left_out(flame),
    )


def render(template: str, *, data: dict[str, Any], **values: Any) -> str:  # noqa: ANN401
    """Return a page made from a template and the data of its charts."""
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            data=data,
            style=Markup(_asset("page.css")),  # noqa: S704  (our own file)
            script=Markup(script),  # noqa: S704
            script_digest=f"sha256-{digest}",
            version=version(),
            **values,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("zkprof", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"percent": _percent, "size": size}
    return environment


def _asset(name: str) -> str:
    loader = _environment().loader
    assert loader  # noqa: S101  (it was given one)
    return loader.get_source(_environment(), name)[0]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _cards(report: Report) -> Iterator[tuple[str, str, str]]:
    m, e = report.measurement, report.estimate
    cores = m.cpu_s / m.duration_s if m.duration_s > 0 else 0.0
    yield "CPU time", f"{m.cpu_s:.1f} s", f"{cores:.1f} cores in use"
    yield "Memory management", _percent(e.mm_share), "of the CPU time"
    if m.memory:
        faults = m.memory[-1].minor_faults - m.memory[0].minor_faults
        yield "Page faults", f"{faults:,}", f"{size(e.growth.faulted)} brought in"
        yield "New memory", _percent(e.growth.share), "of what was brought in"
        yield "Peak memory", size(m.memory[-1].hwm), f"{size(m.memory[-1].rss)} at the end"
    rate = m.library.hit_rate if m.library else None
    if rate is not None:
        yield "Hit rate", _percent(rate), "of large requests"


def _classes(m: Measurement) -> Iterator[dict[str, Any]]:
    for group in GROUPS:
        shares = [m.classes[kind] for kind in group.kinds if kind in m.classes]
        seconds = sum(s.seconds for s in shares)
        high = sum(s.high for s in shares)
        if m.cpu_s <= 0 or high / m.cpu_s < 0.0005:
            continue
        yield {
            "id": group.id,
            "name": group.name,
            "seconds": seconds,
            "share": seconds / m.cpu_s,
            "low": sum(s.low for s in shares) / m.cpu_s,
            "high": high / m.cpu_s,
        }


def _time_label(m: Measurement) -> str:
    text = f"CPU time by class over {m.duration_s:.1f} seconds"
    if not m.memory:
        return f"{text}."
    low, high = min(p.rss for p in m.memory), max(p.rss for p in m.memory)
    return f"{text}, above resident memory between {size(low)} and {size(high)}."


def _left_out(flame: dict[str, Any] | None) -> str:
    if not flame or not flame["left"]:
        return ""
    return f" The {flame['left']:,} lightest stacks are shown without their functions."


def _library(m: Measurement) -> Iterator[dict[str, Any]]:
    if not m.library:
        return
    first = 64 << 10
    rows = zip(m.library.class_hits, m.library.class_misses, strict=False)
    for i, (hits, misses) in enumerate(rows):
        if hits + misses:
            yield {"size": _binary(first << i), "hits": hits, "misses": misses}


def _binary(n: int) -> str:
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")):
        if n >= unit:
            return f"{n // unit} {name}"
    return f"{n >> 10} KiB"
