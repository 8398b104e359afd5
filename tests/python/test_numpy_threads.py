# SPDX-License-Identifier: MIT OR Apache-2.0
"""Many threads at once: nothing is lost, mixed up, or freed under anybody.

They are the same with the GIL and without it; a free-threaded Python runs them
truly at the same time.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import zk_nalloc
from zk_nalloc.numpy import allocator, install, owns, uninstall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 16
LENGTHS = (10, 5_000, 9_000, 50_000, 300_000)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Check that each test gives back every region."""
    before = zk_nalloc.stats().regions_now
    yield
    uninstall()
    assert zk_nalloc.stats().regions_now == before


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Have the GIL, where there is one, change hands a thousand times more often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


def everywhere(work: Callable[[int], None]) -> None:
    """Run `work` on all workers at once; raise what the first of them raised."""
    barrier = threading.Barrier(WORKERS)

    def start(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(start, number) for number in range(WORKERS)]:
            future.result()


def intact(array: np.ndarray[Any, Any]) -> bool:
    """Say whether an array holds what `np.full` put there."""
    return bool((array == array[0]).all())


def test_arrays_go_from_thread_to_thread() -> None:
    """Made on one, resized on another, freed on a third, installed or not."""
    queue: deque[np.ndarray[Any, Any]] = deque()

    def work(number: int) -> None:
        rng = random.Random(number)
        for turn in range(150):
            queue.append(np.full(rng.choice(LENGTHS), number * 1000 + turn))
            try:
                array = queue.popleft()
            except IndexError:  # the others were faster
                continue
            value = array[0]
            assert intact(array)
            array.resize(rng.choice(LENGTHS), refcheck=False)
            assert array[0] == value
            array[:] = value
            if rng.random() < 0.9:
                queue.append(array)
            if number == 0:
                (install if turn % 2 else uninstall)()

    everywhere(work)
    assert all(intact(array) for array in queue)
    queue.clear()


def test_each_thread_has_its_own_context() -> None:
    def work(number: int) -> None:
        for _ in range(100):
            if number % 2:
                with allocator():
                    inside = np.full(20_000, number)
                    assert owns(inside)
                assert inside[-1] == number
            assert not owns(np.full(20_000, number))

    everywhere(work)


def test_first_calls_race() -> None:
    """Every alignment's allocator is made once or a few times, and each is good."""

    def work(number: int) -> None:
        for power in range(20):
            for make in (zk_nalloc.empty, zk_nalloc.zeros):
                array = make(30_000, np.int64, align=1 << power)
                assert array.ctypes.data % (1 << power) == 0
                array[:] = number
                assert intact(array)

    _handler = zk_nalloc._arrays._handler
    _handler.cache_clear()
    everywhere(work)


def test_memory_is_never_handed_out_twice() -> None:
    """Arrays of all threads, alive at the same time, do not overlap."""
    kept: list[list[np.ndarray[Any, Any]]] = [[] for _ in range(WORKERS)]
    install()

    def work(number: int) -> None:
        rng = random.Random(number)
        mine = kept[number]
        for _ in range(200):
            mine.append(np.zeros(rng.randrange(8_192, 30_000)))
            if len(mine) > 20:
                del mine[rng.randrange(len(mine))]

    everywhere(work)
    spans = sorted(
        (array.ctypes.data, array.ctypes.data + array.nbytes) for mine in kept for array in mine
    )
    assert len(spans) > WORKERS * 10
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    kept.clear()


def test_statistics_while_everybody_works() -> None:
    install()
    done = threading.Event()
    rates = []

    def watch() -> None:
        while not done.is_set():
            with zk_nalloc.stats_delta() as phase:
                pass
            rates.append((phase.stats.frees, phase.hit_rate))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with zk_nalloc.stats_delta() as phase:
        everywhere(lambda number: [np.full(10_000, number) for _ in range(100)].clear())
    done.set()
    watcher.join()
    assert phase.stats.frees == WORKERS * 100
    assert all(frees >= 0 and (rate is None or 0 <= rate <= 1) for frees, rate in rates)


def test_the_modules_need_no_gil() -> None:
    """A free-threaded Python would turn the GIL on for a module that did."""
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert enabled == (not getattr(sys, "abiflags", "").endswith("t"))
