# SPDX-License-Identifier: MIT OR Apache-2.0
"""Counters of libzknalloc, read from outside, whatever state they are in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.library import (
    BadBlockError,
    Library,
    Snapshot,
    UnreadableError,
    counter_rows,
    difference,
    find_blocks,
    read_block,
)
from zkprof.procfs import Mapping, Process

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


def test_rows_are_those_of_the_header() -> None:
    header = (ROOT / "libzknalloc/include/zknalloc.h").read_text()
    listed = [line.split("X(", 1)[1] for line in header.splitlines() if "    X(" in line]
    expected = [tuple(part.strip() for part in row.split(",")[:2]) for row in listed]
    kinds = {"COUNTER": "c", "GAUGE": "g", "PEAK": "p"}
    assert counter_rows() == tuple((name, kinds[kind]) for kind, name in expected)
    assert counter_rows()[0] == ("hits", "c")


def test_counts_of_the_window(compiled: Callable[..., Path], run: Callable[..., Any]) -> None:
    with run(compiled("block")) as target, Process(target.pid) as process:
        library = Library(target.pid, process.maps())
        start = library.read()
        assert start
        assert start.counters["hits"] == 0
        assert start.hit_rate is None

        target.stdin.write("go\n")
        target.stdin.flush()
        assert target.stdout.readline() == "changed\n"
        found = library.read()

    assert found
    assert library.problems == []
    assert (found.version, found.cache_bytes, found.copies) == ("9.8.7", 1 << 30, 1)
    assert found.counters["hits"] == 21
    assert found.counters["misses"] == 3
    assert found.counters["live_now"] == 4000, "a gauge, summed over shards modulo 2^64"
    assert found.counters["live_peak"] == 9000
    assert found.hit_rate == pytest.approx(21 / 24)
    assert found.class_hits[:4] == (7, 7, 7, 0)
    assert found.class_misses[:4] == (0, 0, 3, 0)


def test_a_stripped_static_program(compiled: Callable[..., Path], run: Callable[..., Any]) -> None:
    with run(compiled("block", "-static", "-s")) as target, Process(target.pid) as process:
        (address,) = find_blocks(target.pid, process.maps())
        assert read_block(target.pid, address).counters[0] == 100


def test_a_newer_minor_version_is_read(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("block"), "minor") as target, Process(target.pid) as process:
        found = Library(target.pid, process.maps()).read()
    assert found
    assert found.counters["live_peak"] == 9000


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("major", "layout is version 2"),
        ("header", "header has the wrong size"),
        ("small", "too small"),
        ("state", "state is unknown"),
        ("version", "version is not text"),
        ("counters", "too many counters"),
        ("classes", "other size classes"),
        ("many-shards", "too many shards"),
        ("huge-shards", "nothing is mapped"),
        ("narrow-shards", "overlap or are misplaced"),
        ("odd-shards", "overlap or are misplaced"),
        ("no-shards-there", "nothing is mapped"),
        ("kernel-shards", "outside of user memory"),
    ],
)
def test_damaged_blocks_are_refused(
    compiled: Callable[..., Path], run: Callable[..., Any], way: str, message: str
) -> None:
    with run(compiled("block"), way) as target, Process(target.pid) as process:
        (address,) = find_blocks(target.pid, process.maps())
        with pytest.raises(BadBlockError, match=message):
            read_block(target.pid, address)
        library = Library(target.pid, process.maps())
        assert library.read() is None
        assert len(library.problems) == 1
        assert message in library.problems[0]
        assert library.problems[0].isprintable()


def test_a_program_without_the_library(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "compute") as target, Process(target.pid) as process:
        library = Library(target.pid, process.maps())
        assert library.read() is None
        assert library.problems == []


def test_the_last_reading_outlives_the_target(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("block")) as target, Process(target.pid) as process:
        library = Library(target.pid, process.maps())
        target.stdin.write("go\n")
        target.stdin.flush()
        assert target.stdout.readline() == "changed\n"
        library.read()
        target.kill()
        target.wait()
        found = library.read()
    assert found
    assert found.counters["hits"] == 21


def test_a_program_that_runs_another_takes_its_counts_along(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("block"), "exec") as target, Process(target.pid) as process:
        library = Library(target.pid, process.maps())
        assert library.read()
        target.stdin.write("go\n")
        target.stdin.flush()
        assert target.stdout.readline() == "ready\n"
        library.look_again(process.maps())
        found = library.read()
    assert found
    assert found.copies == 1
    assert found.counters["hits"] == 100, "all that the new program ever counted is new"


def test_memory_of_others_is_unreadable(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    with run(compiled("block")) as target, Process(target.pid) as process:
        maps = process.maps()

        def problems() -> list[str]:
            return Library(target.pid, maps).problems

        (problem,) = in_child(problems, drop)
    assert "permission to read" in problem


def test_huge_mappings_are_not_searched() -> None:
    huge = Mapping(0x1000, 0x1000 + (1 << 40), "rw-p", 1, "/database")
    assert find_blocks(os.getpid(), [huge]) == []


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    with pytest.raises(UnreadableError):
        find_blocks(child.pid, [Mapping(0x1000, 0x2000, "rw-p", 1, "/x")])


def snapshot(hits: int, live: int) -> Snapshot:
    values = {"hits": hits, "live_now": live}
    counters = tuple(values.get(name, 0) for name, _ in counter_rows())
    return Snapshot("1", 10, counters, (hits,) + (0,) * 23, (0,) * 24)


def test_copies_are_added_and_late_ones_count_from_zero() -> None:
    found = difference([snapshot(5, 100), None], [snapshot(8, 50), snapshot(4, 7)])
    assert found
    assert found.copies == 2
    assert found.cache_bytes == 20
    assert found.counters["hits"] == 3 + 4
    assert found.counters["live_now"] == 57
    assert found.class_hits[0] == 7


def test_counters_read_at_odd_moments_never_go_wild() -> None:
    # Shards are read one after the other: a sum may seem to fall by a little.
    found = difference([snapshot(5, 0)], [snapshot(4, (1 << 64) - 64)])
    assert found
    assert found.counters["hits"] == 0
    assert found.counters["live_now"] == 0


def test_no_copies_is_no_library() -> None:
    assert difference([], []) is None


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory, cmake: str) -> Path:
    """Return the real library, built for this test."""
    build = tmp_path_factory.mktemp("libzknalloc")
    options = ["-DZKN_TESTS=OFF", "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(
        [cmake, "-S", ROOT / "libzknalloc", "-B", build, *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run([cmake, "--build", build], check=True, stdout=subprocess.DEVNULL)
    return build / "libzknalloc_preload.so"


def test_the_real_library(preload: Path) -> None:
    # 4 buffers of 1 MiB over and over: misses at first, hits ever after, save
    # where the library tries whether zeroed memory is better off in small pages.
    code = (
        "import sys\n"
        "def round():\n"
        "    keep = [bytes(1 << 20) for _ in range(4)]\n"
        "round()\n"
        "print('ready', flush=True)\n"
        "input()\n"
        "for _ in range(100): round()\n"
        "print('done', flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        ["python3", "-c", code],
        env={**os.environ, "LD_PRELOAD": str(preload)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as target:
        assert target.stdin
        assert target.stdout
        assert target.stdout.readline() == "ready\n"
        with Process(target.pid) as process:
            library = Library(target.pid, process.maps())
            target.stdin.write("\n")
            target.stdin.flush()
            assert target.stdout.readline() == "done\n"
            found = library.read()
        target.kill()
    assert library.problems == []
    assert found
    assert found.copies == 1
    assert found.counters["hits"] >= 390
    assert found.hit_rate is not None
    assert found.hit_rate > 0.95
    assert sum(found.class_hits) == found.counters["hits"]
