# SPDX-License-Identifier: MIT OR Apache-2.0
"""Buffers: what they promise about sizes, views, closing and being dropped."""

from __future__ import annotations

import contextlib
import copy
import doctest
import gc
import importlib
import pickle
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import zk_nalloc

KIB = 1024
MIB = 1024 * KIB


def regions() -> int:
    """Count the live regions of the cache."""
    return zk_nalloc.stats().regions_now


# ----------------------------------------------------------- allocation


@settings(max_examples=3 * settings().max_examples)
@given(
    nbytes=st.one_of(
        st.integers(0, 4 * KIB), st.integers(63 * KIB, 65 * KIB), st.integers(0, 4 * MIB)
    ),
    power=st.integers(0, 21),
    zeroed=st.booleans(),
)
def test_every_size_and_alignment(nbytes: int, power: int, *, zeroed: bool) -> None:
    with zk_nalloc.alloc(nbytes, zeroed=zeroed, alignment=1 << power) as buffer:
        assert buffer.address % (1 << power) == 0
        assert len(buffer) == buffer.nbytes == nbytes
        with memoryview(buffer) as view:
            assert (view.nbytes, view.ndim, view.format, view.readonly) == (nbytes, 1, "B", False)
            if zeroed:
                assert view == bytes(nbytes)
            # Leave the region dirty for the zeroed requests that follow.
            view[:] = b"\xa5" * nbytes
            assert view == b"\xa5" * nbytes


def test_default_alignment_is_a_cache_line() -> None:
    for nbytes in (1, 100, 64 * KIB, 3 * MIB):
        assert zk_nalloc.alloc(nbytes).address % 64 == 0


def test_numbers_that_are_not_int() -> None:
    assert len(zk_nalloc.alloc(np.int64(100), alignment=np.uint8(128))) == 100


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((-1, 64), ValueError, "nbytes must be at least 0, got -1"),
        ((2**70, 64), OverflowError, f"nbytes must be at most {sys.maxsize}, got {2**70}"),
        ((sys.maxsize, 64), MemoryError, f"cannot allocate {sys.maxsize} bytes"),
        ((1 << 62, 1), MemoryError, f"cannot allocate {1 << 62} bytes"),
        ((64, 0), ValueError, "alignment must be at least 1, got 0"),
        ((64, 48), ValueError, "alignment must be a power of two, got 48"),
        ((64, 1 << 70), OverflowError, f"alignment must be at most {sys.maxsize}"),
        ((1.5, 64), TypeError, "'float' object cannot be interpreted as an integer"),
        (("64", 64), TypeError, "'str' object cannot be interpreted as an integer"),
    ],
)
def test_bad_arguments(arguments: tuple[int, int], error: type[Exception], text: str) -> None:
    before = regions()
    with pytest.raises(error, match=text):
        zk_nalloc.alloc(arguments[0], alignment=arguments[1])
    with pytest.raises(error, match=text):
        zk_nalloc.alloc(arguments[0], alignment=arguments[1], zeroed=True)
    assert regions() == before


# ------------------------------------------------------ views and closing


def test_close_gives_back_once() -> None:
    before = regions()
    frees = zk_nalloc.stats().frees
    buffer = zk_nalloc.alloc(MIB)
    assert regions() == before + 1
    buffer.close()
    buffer.close()
    del buffer
    assert regions() == before
    assert zk_nalloc.stats().frees == frees + 1


def test_close_under_views_is_refused() -> None:
    buffer = zk_nalloc.alloc(MIB)
    view = memoryview(buffer)
    array = np.frombuffer(buffer, dtype=np.uint64)
    assert buffer.views == 2
    with pytest.raises(BufferError, match="2 views of this buffer are alive"):
        buffer.close()
    array[:] = 7  # still there
    del array
    with pytest.raises(BufferError, match="1 view of this buffer is alive"):
        buffer.close()
    view.release()
    buffer.close()
    assert buffer.closed
    assert buffer.views == 0


def test_slices_count_until_the_last_is_gone() -> None:
    buffer = zk_nalloc.alloc(MIB)
    part = memoryview(buffer)[10:20].cast("H")
    with pytest.raises(BufferError):
        buffer.close()
    del part
    buffer.close()


def test_views_outlive_a_dropped_buffer() -> None:
    before = regions()
    view = memoryview(zk_nalloc.alloc(MIB, zeroed=True))
    gc.collect()
    assert regions() == before + 1
    view[-1] = 1
    assert sum(view) == 1
    view.release()
    assert regions() == before


def test_use_after_close() -> None:
    buffer = zk_nalloc.alloc(MIB)
    buffer.close()
    assert repr(buffer) == f"<Buffer of {MIB} bytes, closed>"
    assert buffer.nbytes == MIB
    for use in (
        lambda: memoryview(buffer),
        lambda: np.frombuffer(buffer),
        lambda: bytes(buffer),
        lambda: buffer.address,
        buffer.__enter__,
    ):
        with pytest.raises(ValueError, match="operation on a closed buffer"):
            use()


def test_with_closes() -> None:
    with zk_nalloc.alloc(MIB) as buffer:
        assert not buffer.closed
    assert buffer.closed


def test_with_refuses_to_close_under_a_view() -> None:
    with pytest.raises(BufferError, match="1 view"), zk_nalloc.alloc(MIB) as buffer:
        view = memoryview(buffer)
    view.release()
    buffer.close()


def test_with_does_not_hide_the_error_of_its_block() -> None:
    before = regions()
    with pytest.raises(KeyError, match="mine"), zk_nalloc.alloc(MIB) as buffer:
        view = memoryview(buffer)
        raise KeyError("mine")
    assert not buffer.closed
    view.release()
    del buffer
    gc.collect()
    assert regions() == before


# -------------------------------------------------------- a Python object


def test_no_pickling_and_no_copying() -> None:
    buffer = zk_nalloc.alloc(10)
    for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"bytes\(memoryview\(buffer\)\)"):
            refuse(buffer)


def test_weak_references() -> None:
    buffer = zk_nalloc.alloc(MIB)
    reference = weakref.ref(buffer)
    assert reference() is buffer
    del buffer
    assert reference() is None


def test_attributes_are_fixed() -> None:
    buffer = zk_nalloc.alloc(MIB)
    for name in ("nbytes", "address", "closed", "other"):
        with pytest.raises(AttributeError):
            setattr(buffer, name, 1)


def test_subclasses_own_their_memory_too() -> None:
    class Trace(zk_nalloc.Buffer):
        """Has a __dict__, so it can be part of a cycle."""

    before = regions()
    trace = Trace(MIB, zeroed=True)
    assert repr(trace).startswith(f"<Trace of {MIB} bytes, at 0x")
    trace.itself = trace  # type: ignore[attr-defined]
    trace.view = memoryview(trace)  # type: ignore[attr-defined]
    del trace
    assert regions() == before + 1
    gc.collect()
    assert regions() == before


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="counts are deferred"
)
def test_instances_keep_no_reference_to_their_type() -> None:
    before = sys.getrefcount(zk_nalloc.Buffer)
    for _ in range(100):
        zk_nalloc.alloc(10).close()
        memoryview(zk_nalloc.alloc(10)).release()
    after = sys.getrefcount(zk_nalloc.Buffer)  # pytest's assert holds one itself
    assert after == before


def test_subclass_cannot_skip_the_allocation() -> None:
    with pytest.raises(TypeError):
        object.__new__(zk_nalloc.Buffer)


def test_buffers_left_at_exit(python) -> None:  # noqa: ANN001
    done = python(
        "-X",
        "dev",
        code="""if True:
            import sys, zk_nalloc
            class Trace(zk_nalloc.Buffer): pass
            kept = zk_nalloc.alloc(1 << 20)
            viewed = memoryview(zk_nalloc.alloc(1 << 20))
            cycle = Trace(1 << 20)
            cycle.itself, cycle.view = cycle, memoryview(cycle)
            sys.kept = zk_nalloc.alloc(1 << 20)
            class Late:
                def __del__(self, buffer=kept): memoryview(buffer)[0] = 1
            sys.late = Late()
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- threads


def test_one_of_many_closers_frees() -> None:
    frees = zk_nalloc.stats().frees
    rounds, workers = 200, 4
    barrier = threading.Barrier(workers)
    buffers = [zk_nalloc.alloc(64 * KIB) for _ in range(rounds)]

    def close_all() -> None:
        for buffer in buffers:
            barrier.wait()
            buffer.close()

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(close_all) for _ in range(workers)]:
            future.result()
    assert zk_nalloc.stats().frees == frees + rounds


def test_views_and_closing_race() -> None:
    """Closing wins or a view does; what a view sees is never taken away."""
    rounds = 300
    buffers = [zk_nalloc.alloc(64 * KIB, zeroed=True) for _ in range(rounds)]
    barrier = threading.Barrier(2)
    outcomes = {"viewed": 0, "closed": 0}

    def view() -> None:
        for buffer in buffers:
            barrier.wait()
            try:
                with memoryview(buffer) as seen:
                    assert seen[0] == seen[-1] == 0
                    seen[:] = b"\1" * len(seen)
                outcomes["viewed"] += 1
            except ValueError:
                outcomes["closed"] += 1

    def close() -> None:
        for buffer in buffers:
            barrier.wait()
            while not buffer.closed:
                with contextlib.suppress(BufferError):
                    buffer.close()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(view), pool.submit(close)]:
            future.result()
    assert outcomes["viewed"] + outcomes["closed"] == rounds
    assert all(buffer.closed for buffer in buffers)


# ----------------------------------------------------- random histories


class Lifetimes(RuleBasedStateMachine):
    """Any order of allocating, viewing, dropping and closing, against a model."""

    def __init__(self) -> None:
        super().__init__()
        self.before = regions()
        # A buffer, its views, and the byte that fills it.
        self.open: list[tuple[zk_nalloc.Buffer, list[memoryview], int]] = []

    @rule(nbytes=st.integers(64 * KIB, 300 * KIB), fill=st.integers(0, 255))
    def allocate(self, nbytes: int, fill: int) -> None:
        buffer = zk_nalloc.alloc(nbytes)
        with memoryview(buffer) as view:
            view[:] = bytes([fill]) * nbytes
        self.open.append((buffer, [], fill))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0))
    def view(self, which: int) -> None:
        buffer, views, _ = self.open[which % len(self.open)]
        views.append(memoryview(buffer))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0))
    def unview(self, which: int) -> None:
        views = self.open[which % len(self.open)][1]
        if views:
            views.pop().release()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0))
    def close(self, which: int) -> None:
        index = which % len(self.open)
        buffer, views, _ = self.open[index]
        if views:
            with pytest.raises(BufferError, match=f"{len(views)} view"):
                buffer.close()
        else:
            buffer.close()
            del self.open[index]

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0))
    def drop(self, which: int) -> None:
        del self.open[which % len(self.open)]

    @invariant()
    def nothing_lost(self) -> None:
        assert regions() == self.before + len(self.open)
        for buffer, views, fill in self.open:
            assert buffer.views == len(views)
            with memoryview(buffer) as view:
                assert view[0] == view[len(view) // 2] == view[-1] == fill

    def teardown(self) -> None:
        self.open.clear()
        assert regions() == self.before


Lifetimes.TestCase.settings = settings(stateful_step_count=30)
test_lifetimes = Lifetimes.TestCase


# ------------------------------------------------------------------- docs


@pytest.mark.parametrize("name", ["", "._buffer", "._config", "._control", "._stats"])
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"zk_nalloc{name}")
    result = doctest.testmod(module, extraglobs={"alloc": zk_nalloc.alloc})
    assert result.failed == 0
    assert result.attempted > 0
