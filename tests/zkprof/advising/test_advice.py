# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every verdict leads to advice, and the advice to the target's situation."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from zkprof.advice import Item, advise, size_text
from zkprof.again import given
from zkprof.cli import parser
from zkprof.estimate import estimate
from zkprof.model import Context, Frame, Kind, LibraryCounters, Measurement, StackTime, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Make = Callable[..., Measurement]
    Library = Callable[..., LibraryCounters]

BOUND = {Kind.FAULT_ANON: 0.3}
GB = 10**9


def items(m: Measurement, argv: Sequence[str] | None = None) -> dict[str, Item]:
    return {item.id: item for item in advise(m, estimate(m), argv)}


def test_preload_and_the_rival_are_both_named(measurement: Make) -> None:
    found = items(measurement(BOUND))
    assert list(found) == ["preload", "rival", "huge-pages"]
    assert found["preload"].command == "zk-nalloc run -- /opt/prover ARGS..."
    assert "MALLOC_MMAP_THRESHOLD_=4294967296" in str(found["rival"].command)


def test_the_command_that_was_run_is_repeated(measurement: Make) -> None:
    found = items(measurement(BOUND), ["./prove", "a b"])
    assert found["preload"].command == "zk-nalloc run -- ./prove 'a b'"


@pytest.mark.parametrize(
    ("allocator", "variable"),
    [("jemalloc", "MALLOC_CONF=dirty_decay_ms:-1"), ("mimalloc", "MIMALLOC_PURGE_DELAY=-1")],
)
def test_rivals_of_other_allocators(measurement: Make, allocator: str, variable: str) -> None:
    assert variable in str(items(measurement(BOUND, allocator=allocator))["rival"].command)


def test_an_unknown_allocator_has_no_rival(measurement: Make) -> None:
    assert list(items(measurement(BOUND, allocator="unknown"))) == ["preload"]


def test_where_preloading_cannot_help(measurement: Make) -> None:
    found = items(
        measurement(BOUND, allocator="go", preloadable=False, preload_reason="Go has its own heap")
    )
    assert list(found) == ["not-preloadable", "rival"]
    assert "Go has its own heap" in found["not-preloadable"].text
    assert found["not-preloadable"].command is None  # nothing to link it with, either
    assert found["rival"].command == "GOGC=400 /opt/prover ARGS..."


def test_the_path_it_was_called_by_is_repeated(measurement: Make) -> None:
    m = measurement(BOUND, exe="/usr/bin/python3.11", command="/home/a b/.venv/bin/python")
    found = items(m)
    assert found["preload"].command == "zk-nalloc run -- '/home/a b/.venv/bin/python' ARGS..."
    assert str(found["rival"].command).endswith(" '/home/a b/.venv/bin/python' ARGS...")


def advice_of(m: Measurement, *words: str) -> str:
    """Return the command to measure once more, after zkprof was called with these words."""
    args = parser().parse_args(words)
    argv = args.command[1:] if args.call.__name__ == "run" else None
    found = advise(m, estimate(m), argv, given(args.parser, args))
    return next(str(i.command) for i in found if i.id in ("measure-more", "measure-warm"))


@pytest.mark.parametrize(
    ("changes", "given", "advised"),
    [
        ({}, "attach 4242", "zkprof 4242 -d 20"),
        ({}, "attach 4242 -d 5 --children", "zkprof 4242 -d 20 --children"),
        (
            {"lost": 500},
            "attach --rate=199.5 4242 -d 7.5 --no-python",
            "zkprof 4242 --rate 50 -d 7.5 --no-python",
        ),
        (
            {"exited": True},
            "run --children --fail-on not-allocation-bound --html a --fail-on saving>5 -- ./p -d",
            (
                "zkprof run --rate 999 --children --html a --fail-on not-allocation-bound "
                "--fail-on 'saving>5' -- ./p -d"
            ),
        ),
        ({"exited": True}, "attach 4242", "zkprof run --rate 999 -- /opt/prover ARGS..."),
        (
            {"growth": 0.95, "samples": 1000},
            "attach 4242 --children -d 9",
            "zkprof 4242 -d 30 --children",
        ),
    ],
)
def test_the_options_that_were_given_are_repeated(
    measurement: Make, changes: dict[str, object], given: str, advised: str
) -> None:
    m = measurement(BOUND, **({"samples": 100} | changes))
    assert advice_of(m, *given.split()) == advised


def test_of_a_saved_report_the_options_are_seen_in_what_was_measured(measurement: Make) -> None:
    m = measurement(BOUND, samples=100)
    method = dataclasses.replace(m.method, rate_hz=999.0)
    m = dataclasses.replace(m, method=method, pids=(4242, 4243))
    assert items(m)["measure-more"].command == "zkprof 4242 -d 20 --rate 999 --children"
    m = dataclasses.replace(measurement(BOUND, tier=Tier.PROC), pids=(4242, 4243))
    assert items(m)["better-tier"].command == "sudo zkprof 4242 --children"


def test_not_bound_is_left_alone(measurement: Make) -> None:
    found = items(measurement({Kind.FAULT_ANON: 0.01}))
    assert list(found) == ["leave"]
    assert "32 MiB" in found["leave"].text
    assert found["leave"].command is None
    other = items(measurement({Kind.FAULT_ANON: 0.01}, allocator="jemalloc"))
    assert "32 MiB" not in other["leave"].text


def test_a_large_swing_needs_a_larger_cache(measurement: Make) -> None:
    # Faulted 10 GB, of which 3 GB stayed: the swing is 3 GB.
    found = items(measurement({Kind.FAULT_ANON: 0.6}, growth=0.3, faulted=10 * GB))
    assert found["preload"].command == "zk-nalloc run --cache 3072M -- /opt/prover ARGS..."


@pytest.mark.parametrize(
    ("size", "text"),
    [(1, "256M"), (256 << 20, "256M"), ((256 << 20) + 1, "512M"), (5 << 30, "5G")],
)
def test_sizes_are_rounded_up(size: int, text: str) -> None:
    assert size_text(size) == text


def test_growth_is_measured_again_when_warm(measurement: Make) -> None:
    found = items(measurement(BOUND, growth=0.95))
    assert list(found) == ["measure-warm", "huge-pages"]
    assert found["measure-warm"].command == "zkprof 4242 -d 30"
    assert "hugetlb=1 -- /opt/prover" in str(found["huge-pages"].command)
    assert items(measurement(BOUND, growth=0.95, exited=True))["measure-warm"].command is None


@pytest.mark.parametrize(
    ("changes", "argv", "command"),
    [
        ({}, None, "zkprof 4242 -d 20"),
        ({"lost": 500}, None, "zkprof 4242 --rate 50"),
        ({"exited": True}, ["./p"], "zkprof run --rate 999 -- ./p"),
    ],
)
def test_inconclusive_says_what_would_help(
    measurement: Make, changes: dict[str, object], argv: list[str] | None, command: str
) -> None:
    found = items(measurement(BOUND, samples=100, **changes), argv)
    assert list(found) == ["measure-more"]
    assert found["measure-more"].command == command


@pytest.mark.parametrize(
    "target",
    [{"thp": "always"}, {"thp": "never"}, {"allocator": "jemalloc"}],
)
def test_huge_pages_only_where_asking_for_them_helps(
    measurement: Make, target: dict[str, str]
) -> None:
    assert "huge-pages" not in items(measurement(BOUND, growth=0.95, **target))
    assert "huge-pages" not in items(measurement(BOUND, **target))


@pytest.mark.parametrize("allocator", ["static", "jemalloc"])
def test_what_is_linked_in_can_be_linked_otherwise(measurement: Make, allocator: str) -> None:
    m = measurement(BOUND, allocator=allocator, preloadable=False, preload_reason="it is inside")
    assert items(m)["not-preloadable"].command == "zk-nalloc config --cflags --libs"


def test_memory_is_short(measurement: Make) -> None:
    m = measurement(BOUND)
    tight = Context(cgroup_limit=10 * GB, cgroup_used=int(9.5 * GB))
    found = items(dataclasses.replace(m, context=tight))
    assert "95% of the control group's limit" in found["memory-is-short"].text
    waiting = dataclasses.replace(m, context=Context(psi_some_s=1.0))
    assert "memory-is-short" in items(waiting)
    roomy = Context(cgroup_limit=10 * GB, cgroup_used=5 * GB, psi_some_s=0.01)
    assert "memory-is-short" not in items(dataclasses.replace(m, context=roomy))


def test_waiting_for_the_address_space(measurement: Make) -> None:
    m = measurement(BOUND)
    found = items(dataclasses.replace(m, context=Context(mmap_lock_wait_s=2.0)))
    assert "waited 2.0 s" in found["mmap-lock"].text
    assert "mmap-lock" not in items(dataclasses.replace(m, context=Context(mmap_lock_wait_s=0.1)))


def test_on_the_library_and_well(measurement: Make, library: Library) -> None:
    m = measurement(library=library(hits=999, misses=1), allocator="libzknalloc")
    found = items(m)
    assert list(found) == ["keep"]
    assert "hit rate 100%" in found["keep"].text


def test_faults_on_memory_that_is_not_the_librarys(measurement: Make, library: Library) -> None:
    m = measurement(BOUND, library=library(hits=999, misses=1), allocator="libzknalloc")
    found = items(m)
    assert list(found) == ["not-its-memory"]
    assert "below 64 KiB" in found["not-its-memory"].text


def test_a_ceiling_that_is_too_low(measurement: Make, library: Library) -> None:
    counted = library(hits=700, misses=300, bytes_evicted=9 * GB, committed_peak=6 << 30)
    found = items(measurement(BOUND, library=counted, allocator="libzknalloc"))
    assert list(found) == ["raise-ceiling"]  # not: preload what is loaded
    assert found["raise-ceiling"].command == "export ZK_NALLOC_CACHE_BYTES=6G"


@pytest.mark.parametrize(("growth", "expected"), [(0.9, "warming-up"), (0.0, "misses")])
def test_misses_without_evictions(
    measurement: Make, library: Library, growth: float, expected: str
) -> None:
    m = measurement(BOUND, growth=growth, library=library(hits=5, misses=5))
    assert expected in items(m)


def test_the_size_that_missed_is_named(measurement: Make, library: Library) -> None:
    counted = dataclasses.replace(
        library(hits=5, misses=5, bytes_hit=3 * GB),
        class_misses=(1, 0, 0, 0, 0, 0, 0, 0, 0, 4, *[0] * 14),
    )
    text = items(measurement(BOUND, library=counted))["misses"].text
    assert "80% of them are of 32 MiB and more" in text
    assert "3.0 GB recycled" in text


def test_memory_given_back_while_idle(measurement: Make, library: Library) -> None:
    counted = library(hits=5, misses=5, bytes_missed=2 * GB, bytes_released=2 * GB)
    found = items(measurement(BOUND, library=counted))
    assert found["released"].command == "export ZK_NALLOC_IDLE_SECONDS=600"


def test_no_address_space(measurement: Make, library: Library) -> None:
    found = items(measurement(library=library(hits=1, fallback_system=7)))
    assert "7 large requests" in found["no-address-space"].text


def test_library_that_served_nothing(measurement: Make, library: Library) -> None:
    assert "no-requests" in items(measurement(library=library()))


def test_two_caches(measurement: Make, library: Library) -> None:
    assert "two-caches" in items(measurement(library=library(copies=2, hits=1)))


def test_file_faults_are_explained(measurement: Make) -> None:
    assert "file-faults" in items(measurement({Kind.FAULT_FILE: 0.2}))
    assert "file-faults" not in items(measurement({Kind.FAULT_FILE: 0.02}))


def test_counters_alone_suggest_sampling(measurement: Make) -> None:
    found = items(measurement(BOUND, tier=Tier.PROC))
    assert found["better-tier"].command == "sudo zkprof 4242"


@pytest.mark.parametrize("anon", [0.0, 0.03, 0.1, 0.5])
@pytest.mark.parametrize("growth", [0.0, 0.9])
@pytest.mark.parametrize("samples", [10, 1000])
def test_there_is_always_advice(
    measurement: Make, anon: float, growth: float, samples: int
) -> None:
    assert items(measurement({Kind.FAULT_ANON: anon}, growth=growth, samples=samples))


MUNMAP = Frame("__munmap", "libc.so.6")
FREE = Frame("cfree", "libc.so.6")
POOL = Frame("prover::pool::drop", "prover")
MAIN = Frame("main", "prover")


def giving(measurement: Make, *stacks: tuple[float, tuple[Frame, ...]]) -> Measurement:
    """Make a measurement whose memory is given back on these stacks, innermost first."""
    frames = tuple(dict.fromkeys(frame for _, stack in stacks for frame in stack))
    return dataclasses.replace(
        measurement({Kind.FAULT_ANON: 0.3, Kind.UNMAP: 0.1}),
        frames=frames,
        stacks=tuple(
            StackTime(Kind.UNMAP, 7, tuple(frames.index(f) for f in reversed(stack)), seconds, 10)
            for seconds, stack in stacks
        ),
    )


def test_free_is_reached_by_preloading(measurement: Make) -> None:
    found = items(giving(measurement, (0.5, (MUNMAP, FREE, POOL, MAIN))))
    assert list(found) == ["preload", "rival", "huge-pages"]


def test_the_programs_own_munmap_is_not(measurement: Make) -> None:
    found = items(giving(measurement, (0.5, (MUNMAP, POOL, MAIN))))
    assert list(found) == ["own-mappings"]
    assert "prover::pool::drop" in found["own-mappings"].text


def test_half_of_it_is(measurement: Make) -> None:
    found = items(
        giving(measurement, (0.25, (MUNMAP, POOL, MAIN)), (0.25, (MUNMAP, FREE, POOL, MAIN)))
    )
    assert list(found) == ["own-mappings", "preload", "rival", "huge-pages"]
    assert "50%" in found["own-mappings"].text


@pytest.mark.parametrize(
    "allocator",
    [
        Frame("mi_free", "prover"),
        Frame("_rjem_je_pages_unmap", "prover"),
        Frame("0x1234", "libjemalloc.so.2"),
        Frame("operator delete(void*)", "prover"),
    ],
)
def test_other_allocators_are_allocators(measurement: Make, allocator: Frame) -> None:
    found = items(giving(measurement, (0.5, (MUNMAP, allocator, POOL, MAIN))))
    assert "own-mappings" not in found


def test_stacks_without_a_caller_say_nothing(measurement: Make) -> None:
    assert "own-mappings" not in items(giving(measurement, (0.5, (MUNMAP,))))
