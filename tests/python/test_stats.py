# SPDX-License-Identifier: MIT OR Apache-2.0
"""Statistics as values: differences, how they read, how notebooks show them."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from html.parser import HTMLParser

import pytest

import zk_nalloc
from zk_nalloc import _stats

KIB = 1024
MIB = 1024 * KIB


def churn(count: int, nbytes: int) -> None:
    for _ in range(count):
        zk_nalloc.alloc(nbytes).close()


# ------------------------------------------------------------ differences


def test_a_difference_is_field_by_field() -> None:
    before = zk_nalloc.stats()
    churn(7, 3 * MIB)
    after = zk_nalloc.stats()
    change = after - before
    for field in dataclasses.fields(zk_nalloc.Stats):
        if field.name not in {"classes", "cache_bytes"}:
            was, now = getattr(before, field.name), getattr(after, field.name)
            assert getattr(change, field.name) == now - was
    assert change.cache_bytes == after.cache_bytes
    assert change.frees == change.hits + change.misses == 7
    rows = [row for row in change.classes if row.hits or row.misses]
    assert [(row.size, row.hits + row.misses) for row in rows] == [(2 * MIB, 7)]
    with pytest.raises(TypeError):
        after - 1  # type: ignore[operator]


def test_delta_counts_the_block_alone() -> None:
    churn(3, MIB)
    with zk_nalloc.stats_delta() as phase:
        churn(5, MIB)
        assert phase.stats.frees == 5
        churn(1, MIB)
    churn(4, MIB)
    assert phase.stats.frees == 6
    assert phase.stats == phase.stats
    assert phase.hit_rate == phase.stats.hit_rate
    assert phase.to_dict() == phase.stats.to_dict()


def test_delta_of_nothing() -> None:
    with zk_nalloc.stats_delta() as phase:
        pass
    assert phase.hit_rate is None
    assert phase.stats.hits == phase.stats.misses == phase.stats.live_now == 0


def test_delta_sees_what_goes_down() -> None:
    buffer = zk_nalloc.alloc(MIB)
    with zk_nalloc.stats_delta() as phase:
        buffer.close()
    assert phase.stats.regions_now == -1
    assert phase.stats.live_now <= -MIB
    assert "live -1.0 MiB" in repr(phase)


def test_delta_of_a_block_that_raises() -> None:
    with pytest.raises(KeyError), zk_nalloc.stats_delta() as phase:
        churn(2, MIB)
        raise KeyError
    churn(1, MIB)
    assert phase.stats.frees == 2


def test_delta_without_a_block_runs_on_and_may_be_entered_again() -> None:
    phase = zk_nalloc.stats_delta()
    churn(2, MIB)
    assert phase.stats.frees == 2
    with phase:
        churn(1, MIB)
    churn(1, MIB)
    assert phase.stats.frees == 1


def test_deltas_nest() -> None:
    with zk_nalloc.stats_delta() as outer:
        churn(1, MIB)
        with zk_nalloc.stats_delta() as inner:
            churn(2, MIB)
    assert (outer.stats.frees, inner.stats.frees) == (3, 2)


def test_delta_counts_every_thread() -> None:
    threads = [threading.Thread(target=churn, args=(100, MIB)) for _ in range(4)]
    with zk_nalloc.stats_delta() as phase:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert phase.stats.frees == 400
    assert phase.stats.hits + phase.stats.misses == 400
    assert phase.stats.regions_now == 0


def test_a_difference_is_a_value_too() -> None:
    with zk_nalloc.stats_delta() as phase:
        churn(1, MIB)
    with pytest.raises(dataclasses.FrozenInstanceError):
        phase.stats.hits = 1  # type: ignore[misc]
    assert json.loads(json.dumps(phase.to_dict()))["frees"] == 1
    assert {phase.stats: 1}[phase.stats] == 1


# ------------------------------------------------------------------- text


def example(**changes: int) -> zk_nalloc.Stats:
    """Return statistics that are all zero but for `changes`."""
    names = {f.name for f in dataclasses.fields(zk_nalloc.Stats)} - {"classes"}
    return zk_nalloc.Stats(
        **{name: changes.get(name, 0) for name in names},
        classes=(zk_nalloc.ClassStats(64 * KIB, 3, 1), zk_nalloc.ClassStats(128 * KIB, 0, 0)),
    )


def test_repr_is_one_readable_line() -> None:
    stats = example(
        hits=3, misses=1, bytes_missed=1536, live_now=2 * MIB, live_peak=5 << 30, cached_now=12
    )
    assert repr(stats) == (
        "<Stats: 4 large requests, hit rate 75.00 %, 1.5 KiB from the kernel; "
        "live 2.0 MiB (peak 5.0 GiB), cached 12 B>"
    )
    assert "hit rate none" in repr(example())


@pytest.mark.parametrize(
    ("hits", "misses", "text"),
    [(1, 0, "100 %"), (10**6, 1, "99.99 %"), (0, 5, "0.00 %"), (1, 1, "50.00 %")],
)
def test_hit_rates_are_never_rounded_up_to_all(hits: int, misses: int, text: str) -> None:
    assert f"hit rate {text}," in repr(example(hits=hits, misses=misses))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (-3 * MIB, "-3.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_bytes_for_people(number: int, text: str) -> None:
    assert _stats._bytes(number) == text


class Table(HTMLParser):
    """Collects the cells, and insists that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert not attrs
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in {"td", "th"}:
            self.rows[-1].append(data)


def test_html_tables() -> None:
    stats = example(hits=3, misses=1, bytes_hit=MIB, regions_now=7, cache_bytes=2 * MIB)
    assert Table(stats._repr_html_()).rows == [
        ["size from", "hits", "misses", "hit rate"],
        ["64.0 KiB", "3", "1", "75.00 %"],
        ["counter", "value"],
        ["hits", "3"],
        ["misses", "1"],
        ["bytes_hit", "1.0 MiB"],
        ["regions_now", "7"],
        ["cache_bytes", "2.0 MiB"],
    ]


def test_html_of_real_statistics() -> None:
    with zk_nalloc.stats_delta() as phase:
        churn(1234, MIB)
    rows = Table(phase._repr_html_()).rows
    assert ["frees", "1,234"] in rows
    assert Table(zk_nalloc.stats()._repr_html_()).rows
    assert not re.search(r"[<>]", re.sub(r"</?(p|table|tr|th|td)>", "", phase._repr_html_()))
