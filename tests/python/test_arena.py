# SPDX-License-Identifier: MIT OR Apache-2.0
"""Arenas: what they serve, and that nothing of it can dangle."""

from __future__ import annotations

import copy
import doctest
import gc
import os
import pickle
import resource
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
from zk_nalloc import Arena, ArenaBuffer

KIB = 1024
MIB = 1024 * KIB


def regions() -> int:
    """Count the live regions of the cache, but for what only awaits collection."""
    gc.collect()
    return zk_nalloc.stats().regions_now


# ------------------------------------------------------------- allocation


@settings(max_examples=2 * settings().max_examples)
@given(
    dtype=st.sampled_from(["u1", "uint64", "Q", "<i4", ">f8", "c16", "?", np.float32, "S5", "V3"]),
    shape=st.one_of(st.integers(0, 5000), st.lists(st.integers(0, 30), max_size=4).map(tuple)),
    order=st.sampled_from(["C", "F"]),
    zeroed=st.booleans(),
)
def test_every_kind_of_array(dtype, shape, order, *, zeroed: bool) -> None:  # noqa: ANN001
    with Arena(20 * MIB) as arena:
        arena.alloc(3)  # so that the next is not aligned by accident
        first = arena.alloc_array(dtype, shape, order=order, zeroed=zeroed)
        second = arena.alloc_array(dtype, shape, order=order)
        model = np.zeros(shape, dtype, order=order)
        for array in (first, second):
            assert type(array) is np.ndarray
            assert (array.shape, array.dtype) == (model.shape, model.dtype)
            assert array.strides == model.strides or array.size == 0
            assert array.ctypes.data % 64 == 0
            assert array.flags.writeable
        if zeroed:
            assert first.tobytes() == bytes(model.nbytes)
        assert not np.shares_memory(first, second)
        del array, first, second


def test_structured_types() -> None:
    with Arena(MIB) as arena:
        pairs = arena.alloc_array([("left", "u8"), ("right", "u4")], 10)
        pairs["right"] = 7
        assert pairs["right"].sum() == 70
        rows = arena.alloc_array(np.dtype(("u8", (4,))), 3)
        assert rows.shape == (3, 4)
        del pairs, rows


def test_capacity_is_exact() -> None:
    arena = Arena(3 * MIB)
    arrays = [arena.alloc_array("u8", MIB // 8) for _ in range(3)]
    assert arena.used == arena.capacity == 3 * MIB
    for value, array in enumerate(arrays):
        array[:] = value
    with pytest.raises(MemoryError, match="1 bytes aligned to 64 asked for, 0 of 3145728 left"):
        arena.alloc(1)
    assert arena.used == 3 * MIB
    assert [int(array[0]) for array in arrays] == [int(array[-1]) for array in arrays] == [0, 1, 2]
    del array, arrays
    arena.reset()
    assert (arena.used, arena.peak) == (0, 3 * MIB)
    arena.alloc(3 * MIB, alignment=4096)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda _: Arena(-1), ValueError, "capacity must be at least 0, got -1"),
        (lambda _: Arena(2**70), OverflowError, "capacity must be at most"),
        (lambda _: Arena(2**50), MemoryError, f"cannot allocate an arena of {2**50} bytes"),
        (lambda _: Arena(1.5), TypeError, "'float' object"),
        (lambda a: a.alloc(-1), ValueError, "nbytes must be at least 0, got -1"),
        (lambda a: a.alloc(1, alignment=48), ValueError, "a power of two, got 48"),
        (lambda a: a.alloc(1, alignment=0), ValueError, "at least 1, got 0"),
        (lambda a: a.alloc(MIB + 1), MemoryError, "1048576 of 1048576 left"),
        (lambda a: a.alloc(1, alignment=2**62), MemoryError, "arena exhausted"),
        (lambda a: a.alloc_array("u1", -1), ValueError, "shape must be at least 0, got -1"),
        (lambda a: a.alloc_array("u1", (2, -1)), ValueError, "shape must be at least 0"),
        (lambda a: a.alloc_array("u1", 1.5), TypeError, "'float' object is not iterable"),
        (lambda a: a.alloc_array("u1", "12"), TypeError, "'str' object cannot be interpreted"),
        (lambda a: a.alloc_array("u8", 2**60), OverflowError, "nbytes must be at most"),
        (lambda a: a.alloc_array("u1", 2**40), MemoryError, "arena exhausted"),
        (lambda a: a.alloc_array("u1", 1, order="K"), ValueError, "order must be 'C' or 'F'"),
        (lambda a: a.alloc_array(object, 1), TypeError, "cannot hold Python objects"),
        (lambda a: a.alloc_array([("a", "O")], 1), TypeError, "cannot hold Python objects"),
        (lambda a: a.alloc_array("S0", 1), ValueError, "elements of some size"),
        (lambda a: a.alloc_array("nonsense", 1), TypeError, "not understood"),
        (lambda _: ArenaBuffer(), TypeError, r"comes from Arena.alloc\(\)"),
    ],
)
def test_bad_arguments(call, error, text) -> None:  # noqa: ANN001
    with Arena(MIB) as arena:
        with pytest.raises(error, match=text):
            call(arena)
        assert (arena.used, arena.views) == (0, 0)


def test_stays_resident() -> None:
    """Phases that come again touch no new page and make no request."""
    with Arena(16 * MIB, populate=True) as arena:

        def phase() -> None:
            arena.alloc_array("u1", 16 * MIB).fill(1)

        phase()
        arena.reset()
        before = zk_nalloc.stats()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            with arena.phase():
                phase()
        # 50 * 4096 pages were written to.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 500
        after = zk_nalloc.stats()
        assert (after.misses, after.frees) == (before.misses, before.frees)


def test_small_and_empty_arenas() -> None:
    with Arena(0) as arena, pytest.raises(MemoryError):
        arena.alloc(0)
    with Arena(64) as arena:
        assert arena.alloc(0).nbytes == 0


# -------------------------------------------------------- views and resets


def test_reset_under_views_is_refused() -> None:
    arena = Arena(MIB)
    array = arena.alloc_array("u8", 100)
    buffer = arena.alloc(100)
    view = memoryview(buffer)
    part = array[10:20].reshape(2, 5)
    del array  # the part keeps it
    part[:] = 7
    assert arena.views == 2
    for refuse in (arena.reset, arena.close):
        with pytest.raises(BufferError, match="2 views of this arena are alive; release or delete"):
            refuse()
    view.release()
    for refuse, what in ((arena.reset, "reset"), (arena.close, "close")):
        with pytest.raises(BufferError, match=f"cannot {what}: 1 view of this arena is alive"):
            refuse()
    assert memoryview(buffer).nbytes == 100  # refusing leaves all as it was
    assert (part == 7).all()
    del part
    arena.reset()
    arena.close()
    assert arena.closed


def test_a_buffer_without_views_hinders_nothing() -> None:
    with Arena(MIB) as arena:
        buffer = arena.alloc(100)
        address = buffer.address
        assert not buffer.closed
        arena.reset()
        assert buffer.closed
        assert repr(buffer) == "<ArenaBuffer of 100 bytes, closed>"
        for use in (
            lambda: memoryview(buffer),
            lambda: np.frombuffer(buffer),
            lambda: buffer.address,
        ):
            with pytest.raises(ValueError, match="operation on a closed buffer"):
                use()
        assert arena.alloc(100).address == address  # somebody else's now
        assert arena.views == 0


def test_closing_a_buffer_ends_its_views_only() -> None:
    with Arena(MIB) as arena:
        with arena.alloc(100) as buffer, memoryview(buffer) as view:
            view[:] = bytes(100)
        with pytest.raises(ValueError, match="closed"):
            memoryview(buffer)
        assert arena.used == 100


def test_forced_reset() -> None:
    before = regions()
    arena = Arena(MIB)
    array = arena.alloc_array("u8", 100)
    buffer = arena.alloc(100)
    view = memoryview(buffer)
    array[:] = 1
    arena.reset(force=True)
    assert (arena.used, arena.views) == (0, 0)
    with pytest.raises(ValueError, match="operation on a closed buffer"):
        memoryview(buffer)
    with pytest.raises(ValueError, match="operation on a closed buffer"):
        memoryview(array.base.base.obj)
    # As documented: old arrays see what new ones write.
    again = arena.alloc_array("u8", 100)
    again[:] = 2
    assert (array == 2).all()
    with pytest.raises(BufferError, match="1 view of"):
        arena.close()
    del again
    arena.close()
    # What old views use stays mapped, and is nobody else's.
    assert regions() == before + 1
    assert view[0] in range(256)
    assert (array == 2).all()
    view.release()
    del array, buffer
    assert regions() == before


def test_views_outlive_a_dropped_arena() -> None:
    before = regions()
    array = Arena(MIB).alloc_array("u8", 1000, zeroed=True)
    gc.collect()
    assert regions() == before + 1
    array += 1
    assert array.sum() == 1000
    del array
    assert regions() == before


def test_use_after_close() -> None:
    arena = Arena(MIB)
    arena.close()
    arena.close()
    assert repr(arena) == f"<Arena of {MIB} bytes, closed>"
    assert (arena.capacity, arena.views, arena.closed) == (MIB, 0, True)
    for use in (
        lambda: arena.alloc(1),
        lambda: arena.alloc_array("u1", 1),
        arena.reset,
        lambda: arena.reset(force=True),
        arena.phase().__enter__,
        arena.__enter__,
        lambda: arena.used,
        lambda: arena.peak,
    ):
        with pytest.raises(ValueError, match="operation on a closed arena"):
            use()


def test_with_does_not_hide_the_error_of_its_block() -> None:
    before = regions()
    with pytest.raises(KeyError, match="mine"), Arena(MIB) as arena:
        array = arena.alloc_array("u1", 1)
        raise KeyError("mine")
    assert not arena.closed
    del array
    arena.close()
    with pytest.raises(BufferError, match="1 view"), Arena(MIB) as arena:
        array = arena.alloc_array("u1", 1)
    del array, arena
    gc.collect()
    assert regions() == before


# ----------------------------------------------------------------- phases


def test_phases_nest() -> None:
    with Arena(MIB) as arena:
        kept = arena.alloc_array("u8", 100, zeroed=True)
        with arena.phase() as inside:
            assert inside is arena
            outer = arena.alloc_array("u8", 100)
            with arena.phase():
                arena.alloc_array("u8", 100)[:] = 1
                assert arena.used == 2464
            outer[:] = 2
            assert arena.used == 1632
            del outer
        assert arena.used == 800
        assert not kept.any()
        del kept


def test_a_phase_ends_under_no_view() -> None:
    with Arena(MIB) as arena:
        text = "cannot end the phase: 2 views of this phase are alive"
        with pytest.raises(BufferError, match=text), arena.phase():
            array = arena.alloc_array("u8", 100)
            other = arena.alloc_array("u8", 100)
        array[:] = 7
        other[:] = 8
        assert arena.used == 1632
        assert (array == 7).all()
        del array
        assert arena.used == 1632
        del other
        assert arena.used == 0  # as soon as it can


def test_what_is_left_of_an_inner_phase_is_left_of_the_outer_too() -> None:
    with Arena(MIB) as arena:
        first, second = arena.phase(), arena.phase()
        first.__enter__()
        array = arena.alloc_array("u8", 100)
        second.__enter__()
        other = arena.alloc_array("u8", 100)
        with pytest.raises(BufferError, match="1 view of this phase"):
            second.__exit__(None, None, None)
        with pytest.raises(BufferError, match="2 views of this phase"):
            first.__exit__(None, None, None)
        assert arena.used == 1632
        del other
        assert arena.used == 800
        del array
        assert arena.used == 0


def test_exceptions_end_phases() -> None:
    """The frames of the exception hold the array; then they go, and it goes."""
    with Arena(MIB) as arena:

        def prove() -> None:
            with arena.phase():
                witness = arena.alloc_array("u8", 100)
                witness[:] = 1
                raise ArithmeticError("not satisfied")

        try:
            prove()
        except ArithmeticError as error:
            assert error.__traceback__ is not None  # noqa: PT017
            assert arena.used == 800
            assert arena.views == 1
        assert (arena.used, arena.views) == (0, 0)


def test_a_phase_left_under_views_dissolves_into_what_is_around() -> None:
    with Arena(MIB) as arena:
        with pytest.raises(BufferError), arena.phase():
            left = arena.alloc_array("u8", 100)
        later = arena.alloc(100)  # above it, and not part of any phase
        assert arena.used == 932
        left[:] = 7
        with pytest.raises(BufferError, match="1 view of this arena"):
            arena.reset()
        del left
        memoryview(later)[:] = bytes(100)
        assert arena.used == 932
        with arena.phase():
            arena.alloc(50)
        assert arena.used == 932
        arena.reset()
        assert arena.used == 0


def test_phases_that_end_in_another_order() -> None:
    with Arena(MIB) as arena:
        first, second = arena.phase(), arena.phase()
        first.__enter__()
        arena.alloc(100)
        second.__enter__()
        view = memoryview(arena.alloc(100))
        first.__exit__(None, None, None)
        view[:] = bytes(100)
        assert arena.used == 228
        view.release()
        second.__exit__(None, None, None)
        assert arena.used == 0


def test_reset_and_close_end_phases() -> None:
    with Arena(MIB) as arena:
        with arena.phase():
            old = arena.alloc(100)
            arena.reset()
            assert old.closed
            new = arena.alloc(100)
        assert arena.used == 100
        assert not new.closed
        with arena.phase(), arena.phase():
            arena.close()
    assert arena.closed


def test_closing_gives_the_memory_back_whoever_still_has_its_objects() -> None:
    before = regions()
    arena = Arena(MIB)
    phase = arena.phase()
    phase.__enter__()
    block = arena.alloc(100)
    assert regions() == before + 1
    arena.close()
    assert regions() == before
    assert block.closed
    phase.__exit__(None, None, None)


def test_phases_are_used_once_and_not_without_limit() -> None:
    with Arena(MIB) as arena:
        phase = arena.phase()
        with pytest.raises(RuntimeError, match="has not begun"):
            phase.__exit__(None, None, None)
        with phase:
            pass
        with pytest.raises(RuntimeError, match="has begun before"):
            phase.__enter__()
        phases = [arena.phase() for _ in range(129)]
        for one in phases[:128]:
            one.__enter__()
        with pytest.raises(RuntimeError, match="more than 128 phases are open"):
            phases[128].__enter__()
        for one in reversed(phases[:128]):
            one.__exit__(None, None, None)
        with arena.phase():
            pass


# -------------------------------------------------------- a Python object


def test_no_pickling_and_no_copying() -> None:
    with Arena(MIB) as arena:
        buffer = arena.alloc(10)
        for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot pickle or copy an Arena"):
                refuse(arena)
            with pytest.raises(TypeError, match="cannot pickle or copy a ArenaBuffer"):
                refuse(buffer)
        array = arena.alloc_array("u8", 10, zeroed=True)
        copied = pickle.loads(pickle.dumps(array))
        del array
        assert arena.views == 0
        assert copied.sum() == 0


def test_references_and_attributes() -> None:
    arena = Arena(MIB)
    assert repr(arena) == f"<Arena of {MIB} bytes, 0 used>"
    assert len(arena.alloc(7)) == 7
    reference = weakref.ref(arena)
    for name in ("capacity", "used", "other"):
        with pytest.raises(AttributeError):
            setattr(arena, name, 1)
    del arena
    assert reference() is None


def test_operations_that_interrupt_each_other() -> None:
    """A finaliser inside of an operation gets an error, not a half-changed arena."""
    with Arena(MIB) as arena, arena._lock:
        for use in (lambda: arena.alloc(1), arena.reset, arena.close, arena.phase().__enter__):
            with pytest.raises(RuntimeError, match="this arena was interrupted by another"):
                use()


def test_without_numpy(python) -> None:  # noqa: ANN001
    done = python(
        code="""if True:
            import sys
            sys.modules["numpy"] = None
            import zk_nalloc
            arena = zk_nalloc.Arena(1 << 20)
            view = arena.alloc_array("Q", (3, 4), zeroed=True)
            assert type(view) is memoryview
            assert (view.format, view.shape, view.nbytes) == ("Q", (3, 4), 96)
            view[2, 3] = 2**64 - 1
            assert view.tolist() == [[0] * 4, [0] * 4, [0, 0, 0, 2**64 - 1]]
            try:
                arena.reset()
            except BufferError as error:
                print(error)
            del view
            arena.reset()
            for code in ("b", "@d", "=I", "<q" if sys.byteorder == "little" else ">q"):
                assert arena.alloc_array(code, 5).format == code[-1]
            assert arena.alloc_array("B", 0).nbytes == 0
            assert arena.alloc_array("d", ()).shape == ()
            used = arena.used
            for bad in ("QQ", "", "z", "s", ">q" if sys.byteorder == "little" else "<q", "<l",
                        float, None):
                try:
                    arena.alloc_array(bad, 1)
                except (TypeError, ValueError) as error:
                    assert "without NumPy" in str(error), error
                else:
                    raise AssertionError(bad)
            for arguments in (("B", (0, 2)), ("B", (2, 2), "F")):
                try:
                    arena.alloc_array(*arguments[:2], order=(*arguments, "C")[2])
                except ValueError as error:
                    assert "NumPy" in str(error)
                else:
                    raise AssertionError(arguments)
            assert arena.used == used
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cannot reset: 1 view of this arena is alive")


def test_arenas_left_at_exit(python) -> None:  # noqa: ANN001
    done = python(
        "-X",
        "dev",
        code="""if True:
            import sys, zk_nalloc
            sys.kept = zk_nalloc.Arena(1 << 20)
            sys.array = sys.kept.alloc_array("u8", 100)
            sys.phase = sys.kept.phase()
            sys.phase.__enter__()
            class Late:
                def __del__(self, arena=sys.kept, array=sys.array): array[0] = arena.used
            sys.late = Late()
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_in_a_forked_child() -> None:
    with Arena(MIB) as arena:
        array = arena.alloc_array("u8", 100)
        array[:] = 7
        child = os.fork()
        if child == 0:
            good = (array == 7).all() and len(arena.alloc(1000)) == 1000
            array[:] = 8
            del array
            arena.close()
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0) == (child, 0)
        assert (array == 7).all()
        assert arena.used == 800
        del array


# ---------------------------------------------------------------- threads


def test_threads_share_an_arena() -> None:
    """Whatever threads allocate and reset, a live array keeps its content."""
    rounds, workers = 300, 4
    arena = Arena(4 * MIB)
    done = threading.Event()
    resets = 0

    def work(tag: int) -> None:
        for turn in range(rounds):
            try:
                array = arena.alloc_array("u2", 1000 + turn)
            except MemoryError:
                continue
            value = tag * 10000 + turn
            array[:] = value
            buffer = arena.alloc(64)
            try:
                with memoryview(buffer) as view:
                    view[:] = bytes([tag]) * 64
                    assert bytes(view) == bytes([tag]) * 64
            except ValueError:  # reset between the two calls: no view, no harm
                pass
            assert (array == value).all()
            del array

    def reset() -> int:
        count = 0
        while not done.is_set():
            try:
                arena.reset()
                count += 1
            except BufferError:
                pass
        return count

    def phases() -> None:
        while not done.is_set():
            try:
                with arena.phase():
                    arena.alloc(100)
            except BufferError:
                pass

    with ThreadPoolExecutor(workers + 2) as pool:
        meddlers = [pool.submit(reset), pool.submit(phases)]
        futures = [pool.submit(work, tag) for tag in range(1, workers + 1)]
        try:
            for future in futures:
                future.result()
        finally:
            done.set()
        resets = meddlers[0].result()
        meddlers[1].result()
    assert resets > 0
    arena.close()


def test_one_of_many_closers_frees() -> None:
    frees = zk_nalloc.stats().frees
    rounds, workers = 100, 4
    barrier = threading.Barrier(workers)
    arenas = [Arena(64 * KIB) for _ in range(rounds)]

    def close_all() -> None:
        for arena in arenas:
            barrier.wait()
            arena.close()

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(close_all) for _ in range(workers)]:
            future.result()
    assert zk_nalloc.stats().frees == frees + rounds


# ----------------------------------------------------- random histories


class Histories(RuleBasedStateMachine):
    """Any order of allocating, viewing, phases and resets: live views keep their content."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(256 * KIB)
        self.buffers: list[ArenaBuffer] = []
        self.views: list[tuple[memoryview, int]] = []
        self.phases: list[zk_nalloc.Phase] = []

    @rule(nbytes=st.integers(1, 20 * KIB))
    def allocate(self, nbytes: int) -> None:
        try:
            self.buffers.append(self.arena.alloc(nbytes))
        except MemoryError:
            assert self.arena.used + nbytes + 64 > self.arena.capacity

    @precondition(lambda self: self.buffers)
    @rule(which=st.integers(0), fill=st.integers(0, 255))
    def view(self, which: int, fill: int) -> None:
        buffer = self.buffers.pop(which % len(self.buffers))
        if buffer.closed:
            with pytest.raises(ValueError, match="closed"):
                memoryview(buffer)
            return
        view = memoryview(buffer)
        view[:] = bytes([fill]) * len(view)
        self.views.append((view, fill))

    @precondition(lambda self: self.views)
    @rule(which=st.integers(0))
    def unview(self, which: int) -> None:
        self.views.pop(which % len(self.views))[0].release()

    @rule()
    def begin(self) -> None:
        phase = self.arena.phase()
        try:
            phase.__enter__()
        except RuntimeError:
            return
        self.phases.append(phase)

    @precondition(lambda self: self.phases)
    @rule(which=st.integers(0, 1))
    def end(self, which: int) -> None:
        phase = self.phases.pop(-1 if which or len(self.phases) < 2 else -2)
        try:
            phase.__exit__(None, None, None)
        except BufferError:
            assert self.views

    @rule()
    def reset(self) -> None:
        if self.views:
            with pytest.raises(BufferError, match=f"{len(self.views)} view"):
                self.arena.reset()
        else:
            self.arena.reset()
            assert self.arena.used == 0

    @invariant()
    def nothing_dangles(self) -> None:
        assert self.arena.views == len(self.views)
        for view, fill in self.views:
            assert view == bytes([fill]) * len(view)

    def teardown(self) -> None:
        for view, _ in self.views:
            view.release()
        self.arena.close()
        assert all(buffer.closed for buffer in self.buffers)


Histories.TestCase.settings = settings(stateful_step_count=40)
test_histories = Histories.TestCase


# ------------------------------------------------------------------- docs


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(sys.modules["zk_nalloc._arena"])
    assert result.failed == 0
    assert result.attempted > 15
