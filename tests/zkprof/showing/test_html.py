# SPDX-License-Identifier: MIT OR Apache-2.0
"""Pages as text: whole, small, escaped, and asking for nothing from outside."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from zkprof import pagedata
from zkprof.compare import compare
from zkprof.estimate import Verdict
from zkprof.html import comparison_page, page
from zkprof.model import Frame, Kind, Share, StackTime, ThreadTime, Tier
from zkprof.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "input", "br", "link", "img"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "tags are nested"

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def data(self) -> Any:  # noqa: ANN401
        return json.loads(self.texts["script"][0])


def test_a_page_says_what_the_report_says(full: Report) -> None:
    text = page(full)
    seen = Page(text)
    words = " ".join(" ".join(t.split()) for part in seen.texts.values() for t in part)
    for expected in (
        "prove",
        "allocation-bound",
        "page faults, anonymous",
        "worker-3",
        "memset",
        "64 KiB",
        "90.0 GB mapped",
        "a note",
    ):
        assert expected in words
    assert not seen._open


def test_charts_add_up(full: Report) -> None:
    m = full.measurement
    data = Page(page(full)).data()
    columns = len(data["time"]["layers"][0])
    width = data["time"]["seconds"] / columns
    for group, layer in zip(data["time"]["groups"], data["time"]["layers"], strict=True):
        kinds = [k for k in Kind if pagedata.GROUP_OF[k] == group]
        seconds = sum(b.by_kind.get(k, 0.0) for b in m.bins for k in kinds)
        assert sum(layer) * width == pytest.approx(seconds, rel=0.01)
    flame = data["flame"]
    assert sum(leaf[2] for leaf in flame["leaves"]) == pytest.approx(m.cpu_s, rel=1e-3)
    assert all(parent < i for i, parent in enumerate(flame["parents"]) if i)
    assert {flame["names"][i] for i in flame["nodes"]} >= {"prove", "main", "memset"}
    busy = sum(map(sum, data["strip"]["cpu"])) / 100 * m.duration_s / len(data["strip"]["cpu"][0])
    assert busy == pytest.approx(sum(sum(b.cpu_s.values()) for b in m.bins), rel=0.02)


def test_only_its_own_script_may_run(full: Report) -> None:
    text = page(full)
    seen = Page(text)
    scripts = [attrs for tag, attrs in seen.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    policy = next(a["content"] for t, a in seen.tags if t == "meta" and "http-equiv" in a)
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[-1].encode()).digest()).decode()
    assert policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [t for t, a in seen.tags if {"src", "href"} & set(a)]
    assert not [a for _, a in seen.tags if any(name.startswith("on") for name in a)]
    addresses = set(re.findall(r"https?://[^\"'\s]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a name, not an address"


@pytest.mark.parametrize("both", [False, True])
def test_hostile_names_stay_text(evil: Report, full: Report, *, both: bool) -> None:
    text = comparison_page(compare([full], [evil])) if both else page(evil)
    assert text.encode(), "no lone surrogates"
    seen = Page(text)
    assert sum(tag == "script" for tag, _ in seen.tags) == 2
    assert not [tag for tag, _ in seen.tags if tag in {"img", "bold"}]
    assert "window.hacked" not in seen.texts["script"][1]
    assert all(c.isprintable() or c == "\n" for c in text)
    assert any("</script>" in name for name in seen.data()["flame"]["names"])


@pytest.mark.parametrize("tier", Tier)
def test_what_is_missing_is_left_out(measurement_of: Callable[..., Any], tier: Tier) -> None:
    m = measurement_of(tier)
    data = Page(text := page(Report.of(m))).data()
    assert data["flame"] is None
    assert 'id="flame"' not in text
    assert data["time"]["groups"] == ["anon", "user"], "as much as is known"


@pytest.fixture
def measurement_of(made: Callable[..., Any]) -> Callable[..., Any]:
    def make(tier: Tier) -> Any:  # noqa: ANN401
        m = made(stacks=(), frames=(), python=None, traffic=None, pids=())
        bins = tuple(dataclasses.replace(b, by_kind={}) for b in m.bins)
        method = dataclasses.replace(m.method, tier=tier)
        return dataclasses.replace(m, bins=bins, method=method)

    return make


def test_nothing_was_measured(made: Callable[..., Any]) -> None:
    m = dataclasses.replace(
        made(),
        cpu_s=0.0,
        duration_s=0.0,
        classes={},
        overlays={},
        bins=(),
        memory=(),
        threads=(),
        stacks=(),
        frames=(),
    )
    report = Report.of(m)
    assert report.estimate.verdict is Verdict.INCONCLUSIVE
    seen = Page(page(report))
    assert not seen._open


def monstrous(made: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Make a measurement of a thousand threads, and stacks without end."""
    m = made(threads=1000, duration_s=30.0, bins=())
    frames = tuple(Frame(f"name{i}" + "<&>" * 400, "module", "", 0) for i in range(20_000))
    stacks = tuple(
        StackTime(Kind.FAULT_ANON, 4242, tuple((7 * i + j) % 20_000 for j in range(60)), 1.0, 1)
        for i in range(20_000)
    )
    first = made(threads=2).bins[0]
    bins = tuple(
        dataclasses.replace(
            first,
            t=1000 + i / 100,
            width_s=0.01,
            cpu_s={4242 + j: 0.01 for j in range(0, 1000, 7)},
            mm_s={},
        )
        for i in range(3000)
    )
    threads = tuple(ThreadTime(4242 + i, "<" * 15, 1.0, {Kind.USER: 1.0}) for i in range(1000))
    return dataclasses.replace(
        m,
        frames=frames,
        stacks=stacks,
        bins=bins,
        threads=threads,
        cpu_s=20_000.0,
        classes={Kind.FAULT_ANON: Share(20_000.0, 19_000.0, 20_000.0)},
    )


def test_a_page_stays_small(made: Callable[..., Any]) -> None:
    m = monstrous(made)
    text = page(Report.of(m))
    assert len(text.encode()) < 1_000_000
    data = Page(text).data()
    assert sum(leaf[2] for leaf in data["flame"]["leaves"]) == pytest.approx(m.cpu_s, rel=1e-3)
    assert f"{data['flame']['left']:,} lightest stacks" in text
    assert len(comparison_page(compare([Report.of(m)], [Report.of(m)])).encode()) < 1_000_000


def test_threads_in_turns_share_a_lane(made: Callable[..., Any]) -> None:
    m = made(threads=2)
    bins = tuple(
        dataclasses.replace(b, cpu_s={100 + i // 20: b.width_s}, mm_s={})
        for i, b in enumerate(m.bins)
    )
    threads = tuple(ThreadTime(100 + i, "step", 1.0, {}) for i in range(len(bins) // 20))
    strip = pagedata.thread_strip(dataclasses.replace(m, bins=bins, threads=threads))
    assert strip
    assert strip["lanes"] == [f"step \N{MULTIPLICATION SIGN} {len(threads)}"]
    assert min(strip["cpu"][0]) == 100


def test_arguments_are_not_written(made: Callable[..., Any]) -> None:
    report = Report.of(made(), ["./prove", "--key", "hunter2"])
    assert any("hunter2" in str(item.command) for item in report.advice)
    assert "hunter2" not in page(report)
