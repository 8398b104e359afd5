# SPDX-License-Identifier: MIT OR Apache-2.0
"""NumPy on the cache: what goes there, and that all of it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import doctest
import gc
import itertools
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import zk_nalloc
from zk_nalloc import _numpy
from zk_nalloc.numpy import allocator, install, installed, owns, uninstall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    Python = Callable[..., CompletedProcess[str]]

T = TypeVar("T")

KIB = 1024
MIB = 1024 * KIB
THRESHOLD = 64 * KIB


def handler_name(*array: object) -> str:
    """Return the name of the context's handler, or of an array's."""
    return np._core.multiarray.get_handler_name(*array)


@pytest.fixture(params=["installed", "context"])
def on_cache(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have NumPy use the cache, by either way."""
    if request.param == "context":
        with allocator():
            yield
        return
    install()
    yield
    uninstall()


# ------------------------------------------------------ what goes where


@pytest.mark.usefixtures("on_cache")
def test_large_data_is_on_the_cache() -> None:
    with zk_nalloc.stats_delta() as phase:
        array = np.ones(MIB, np.uint64)
        assert owns(array)
        assert owns(array[100:200])
        assert owns(array + array)
        assert array.sum() == MIB
        del array
    assert phase.stats.frees == 2
    assert phase.stats.live_now == 0


@pytest.mark.parametrize("nbytes", [1, 100, 1023, 1024, THRESHOLD - 1])
@pytest.mark.usefixtures("on_cache")
def test_small_data_is_not(nbytes: int) -> None:
    with zk_nalloc.stats_delta() as phase:
        assert not owns(np.empty(nbytes, np.uint8))
        assert not owns(np.zeros(nbytes, np.uint8))
    assert phase.stats.hits + phase.stats.misses == 0


@pytest.mark.usefixtures("on_cache")
def test_the_threshold_itself_is_large() -> None:
    assert owns(np.empty(THRESHOLD, np.uint8))
    assert owns(np.zeros(THRESHOLD, np.uint8))


@pytest.mark.usefixtures("on_cache")
def test_zeros_are_zero_on_dirty_memory() -> None:
    for _ in range(3):
        np.full(MIB, -1, np.int64)
        with zk_nalloc.stats_delta() as phase:
            assert not np.zeros(MIB, np.int64).any()
        assert phase.stats.callocs == 1


def test_without_it_nothing_is_on_the_cache() -> None:
    assert not installed()
    with zk_nalloc.stats_delta() as phase:
        np.ones(MIB)
        np.zeros(MIB)
    assert phase.stats.hits + phase.stats.misses == 0


@pytest.mark.parametrize("make", [np.empty, np.zeros])
@pytest.mark.usefixtures("on_cache")
def test_too_much(make: Callable[..., Any]) -> None:
    for nbytes in (1 << 62, (1 << 63) - 1):
        with pytest.raises(MemoryError):
            make(nbytes, np.uint8)


# -------------------------------------------------------------- lifetimes


def test_arrays_outlive_the_context() -> None:
    with allocator():
        array = np.arange(MIB)
        view = array[::2]
    assert handler_name() == "default_allocator"
    assert handler_name(array) == "zknalloc"
    del array
    assert owns(view)
    assert view[10] == 20
    with zk_nalloc.stats_delta() as phase:
        del view
    assert phase.stats.frees == 1


def test_arrays_outlive_uninstall_and_precede_install() -> None:
    before = np.arange(MIB)
    install()
    during = np.arange(MIB)
    assert (owns(before), owns(during)) == (False, True)
    before.resize(2 * MIB, refcheck=False)
    assert before[MIB - 1] == MIB - 1
    del before
    uninstall()
    assert owns(during)
    during.resize(2 * MIB, refcheck=False)
    assert during[MIB - 1] == MIB - 1
    with zk_nalloc.stats_delta() as phase:
        del during
    assert phase.stats.frees == 1


def test_install_twice_uninstall_once() -> None:
    install()
    install()
    assert installed()
    uninstall()
    uninstall()
    assert not installed()
    assert not owns(np.empty(MIB))


def test_numpy_keeps_its_own_name_for_its_default() -> None:
    install()
    try:
        assert handler_name() == "default_allocator"
    finally:
        uninstall()


def test_contexts_nest() -> None:
    with allocator():
        with allocator():
            inner = np.empty(MIB)
        assert owns(inner)
        assert owns(np.empty(MIB))
    assert not owns(np.empty(MIB))


def test_a_block_that_raises_leaves_the_context() -> None:
    with contextlib.suppress(KeyError), allocator():
        raise KeyError
    assert handler_name() == "default_allocator"


def test_many_contexts_leak_no_region() -> None:
    with zk_nalloc.stats_delta() as phase:
        for _ in range(1000):
            with allocator():
                np.empty(MIB)
    assert phase.stats.frees == 1000
    assert phase.stats.regions_now == 0


# ------------------------------------------------------- threads and tasks


def in_thread(function: Callable[[], T]) -> T:
    """Return what `function` returns in a new thread, in a context of its own."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_install_holds_in_every_thread() -> None:
    go, done = threading.Event(), threading.Event()
    found: list[bool] = []

    def early() -> None:
        go.wait()
        found.append(owns(np.empty(MIB)))
        done.set()

    thread = threading.Thread(target=early)
    thread.start()
    install()
    try:
        go.set()
        assert done.wait(60)
        assert found == [True]
        assert in_thread(lambda: owns(np.empty(MIB)))
    finally:
        go.set()
        uninstall()
        thread.join()


def test_a_context_is_of_one_thread() -> None:
    go, entered = threading.Event(), threading.Event()
    found: list[bool] = []

    def other() -> None:
        entered.set()
        go.wait()
        found.append(owns(np.empty(MIB)))

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    with allocator():
        go.set()
        thread.join()
    assert found == [False]


def test_a_context_is_of_one_task() -> None:
    async def main() -> list[bool]:
        inside, outside = asyncio.Event(), asyncio.Event()
        found = []

        async def chooses() -> None:
            with allocator():
                inside.set()
                await outside.wait()
                found.append(owns(np.empty(MIB)))

        async def does_not() -> None:
            await inside.wait()
            found.append(owns(np.empty(MIB)))
            outside.set()

        await asyncio.gather(chooses(), does_not())
        return found

    assert asyncio.run(main()) == [False, True]


@pytest.mark.usefixtures("on_cache")
def test_an_array_may_be_freed_on_another_thread() -> None:
    arrays = [np.full(MIB, 7, np.uint8)]
    with zk_nalloc.stats_delta() as phase:
        assert in_thread(lambda: int(arrays.pop()[0])) == 7
    assert phase.stats.frees == 1


# ----------------------------------------------------------------- resizing


@pytest.mark.parametrize(
    "sizes",
    [
        (100, 10),  # below the threshold throughout
        (100, 2 * THRESHOLD),
        (2 * THRESHOLD, 100),
        (THRESHOLD - 8, THRESHOLD, THRESHOLD - 8),
        (100, 64 * MIB, 100),
        (MIB, 8 * MIB, 3 * MIB, 16 * MIB, 10),
    ],
)
@pytest.mark.usefixtures("on_cache")
def test_resize_keeps_the_content(sizes: tuple[int, ...]) -> None:
    with zk_nalloc.stats_delta() as phase:
        array = np.arange(sizes[0] // 8)
        for before, after in itertools.pairwise(sizes):
            kept = min(before, after) // 8
            expected = array[:kept].copy()
            array.resize(after // 8, refcheck=False)
            np.testing.assert_array_equal(array[:kept], expected)
            assert not array[kept:].any()
        del array, expected
    assert phase.stats.regions_now == 0


@pytest.mark.usefixtures("on_cache")
def test_shrinking_below_the_threshold_leaves_the_cache() -> None:
    array = np.arange(MIB)
    array.resize(10, refcheck=False)
    assert not owns(array)
    assert array.tolist() == list(range(10))


@pytest.mark.usefixtures("on_cache")
def test_growing_sequences_come_to_the_cache() -> None:
    array = np.fromiter(iter(range(50_000)), np.int64)
    assert owns(array)
    np.testing.assert_array_equal(array, np.arange(50_000))


@pytest.mark.usefixtures("on_cache")
def test_text_readers_grow_too() -> None:
    text = " ".join(map(str, range(100_000)))
    np.testing.assert_array_equal(np.fromstring(text, np.int64, sep=" "), np.arange(100_000))


# --------------------------------------------------- somebody else's handler


class Allocator(ctypes.Structure):
    """PyDataMemAllocator of NumPy's header."""

    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("malloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        (
            "calloc",
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t),
        ),
        (
            "realloc",
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        ),
        ("free", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
    )


class Handler(ctypes.Structure):
    """PyDataMem_Handler of NumPy's header."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("allocator", Allocator),
    )


class Theirs:
    """A handler of another library: counts its live blocks, insists on its context."""

    CONTEXT = 0x5EC12E7

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        for name in ("malloc", "calloc", "realloc"):
            getattr(libc, name).restype = ctypes.c_void_p
        self.live: set[int] = set()
        self.faults: list[str] = []
        types = dict(Allocator._fields_)

        def seen(context: int, old: int | None, new: int | None) -> int | None:
            if context != self.CONTEXT:
                self.faults.append(f"context {context}")
            if old is not None:
                if old not in self.live:
                    self.faults.append(f"{old:#x} is not mine")
                self.live.discard(old)
            if new is not None:
                self.live.add(new)
            return new

        def free(context: int, ptr: int, _size: int) -> None:
            seen(context, ptr, None)
            libc.free(ctypes.c_void_p(ptr))

        size_t, void_p = ctypes.c_size_t, ctypes.c_void_p
        functions = Allocator(
            self.CONTEXT,
            types["malloc"](lambda c, n: seen(c, None, libc.malloc(size_t(n)))),
            types["calloc"](lambda c, n, s: seen(c, None, libc.calloc(size_t(n), size_t(s)))),
            types["realloc"](lambda c, p, n: seen(c, p, libc.realloc(void_p(p), size_t(n)))),
            types["free"](free),
        )
        self.handler = Handler(b"theirs", 1, functions)
        new_capsule = ctypes.pythonapi.PyCapsule_New
        new_capsule.restype = ctypes.py_object
        new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self.capsule = new_capsule(ctypes.addressof(self.handler), b"mem_handler", None)


@pytest.fixture
def theirs() -> Iterator[Theirs]:
    handler = Theirs()
    before = _numpy.swap(handler.capsule)
    yield handler
    _numpy.swap(before)
    gc.collect()
    assert handler.faults == []
    assert handler.live == set()


def test_install_leaves_a_chosen_handler_alone(theirs: Theirs) -> None:
    install()
    try:
        array = np.empty(MIB)
        assert not owns(array)
        assert handler_name(array) == "theirs"
        assert len(theirs.live) == 1
    finally:
        uninstall()


def test_a_context_over_theirs_passes_small_requests_down(theirs: Theirs) -> None:
    with allocator():
        small, large = np.arange(1000), np.arange(MIB)
        assert len(theirs.live) == 1
        assert (owns(small), owns(large)) == (False, True)
        small.resize(THRESHOLD // 8, refcheck=False)
        assert theirs.live == set()
        assert small[999] == 999
        large.resize(1000, refcheck=False)
        assert len(theirs.live) == 1
        assert large[999] == 999
        kept = np.zeros(10)
    assert handler_name() == "theirs"
    # `kept` now outlives the context, and everybody's other reference.
    del small, large
    assert kept.sum() == 0
    assert len(theirs.live) == 1
    with allocator(), allocator():
        assert owns(np.empty(MIB))


# -------------------------------------------------- processes of other kinds

CHECK = """if True:
    import sys, numpy as np, zk_nalloc
    from zk_nalloc.numpy import install, owns, uninstall
    early = np.arange(1 << 18)
    install()
    arrays = [np.arange(n) for n in (10, 9000, 1 << 18)]
    for array in (*arrays, early):
        for size in (20, 1 << 19, 10):
            array.resize(size, refcheck=False)
            assert array[:10].tolist() == list(range(10)), array
    on_cache = owns(np.zeros(1 << 18))
    kept = np.ones(1 << 18)
    uninstall()
    sys.kept = kept
    print(on_cache)
"""


@pytest.mark.parametrize("options", [(), ("-X", "dev"), ("-X", "tracemalloc")])
@pytest.mark.parametrize("preload", [False, True])
def test_process(python: Python, options: tuple[str, ...], *, preload: bool) -> None:
    environ = {"LD_PRELOAD": str(zk_nalloc.preload_path())} if preload else {}
    done = python(*options, code=CHECK, **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_process_without_a_cache(python: Python) -> None:
    done = python("-X", "dev", code=CHECK, ZK_NALLOC_RESERVE_BYTES="0")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_what_the_cache_cannot_serve_goes_below(python: Python) -> None:
    code = """if True:
        import numpy as np
        from zk_nalloc.numpy import install, owns
        install()
        arrays = [np.full(1 << 20, i) for i in range(40)]
        print(owns(arrays[0]), owns(arrays[-1]))
        for i, array in enumerate(arrays):
            array.resize(3 << 19, refcheck=False)
            assert (array[: 1 << 20] == i).all()
        del arrays, array
        print(owns(np.empty(1 << 20)))
    """
    done = python("-X", "dev", code=code, ZK_NALLOC_RESERVE_BYTES="256M")
    assert (done.returncode, done.stdout) == (0, "True False\nTrue\n"), done.stderr


def test_tracemalloc_sees_the_data(python: Python) -> None:
    code = """if True:
        import tracemalloc, numpy as np, zk_nalloc
        zk_nalloc.numpy.install()
        tracemalloc.start()
        array = np.empty(1 << 20, np.uint8)
        domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        count = lambda: sum(
            trace.size for trace in tracemalloc.take_snapshot().filter_traces([domain]).traces
        )
        print(count() >> 20)
        del array
        print(count() >> 20)
    """
    done = python(code=code)
    assert (done.stdout, done.stderr) == ("1\n0\n", "")


@pytest.mark.usefixtures("on_cache")
def test_fork() -> None:
    array = np.arange(MIB)
    child = os.fork()
    if child == 0:
        good = owns(array + 1) and array[-1] == MIB - 1
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


# ------------------------------------------------------------ without NumPy


@pytest.mark.parametrize(
    "call", ["numpy.install()", "numpy.allocator().__enter__()", "empty(3)", "full(3, 0)"]
)
@pytest.mark.parametrize(
    ("numpy", "text"),
    [
        ("None", "ModuleNotFoundError: NumPy is not installed; zk_nalloc's arrays need it: "),
        ("old", "ImportError: NumPy 1.26.4 is too old; zk_nalloc's arrays need 2.0 or newer: "),
    ],
)
def test_numpy_is_optional(python: Python, call: str, numpy: str, text: str) -> None:
    code = f"""if True:
        import sys, types
        old = types.ModuleType("numpy")
        old.__version__ = "1.26.4"
        sys.modules["numpy"] = {numpy}
        import zk_nalloc
        assert not zk_nalloc.numpy.installed()
        zk_nalloc.{call}
    """
    done = python(code=code)
    assert done.stderr.splitlines()[-1].startswith(text), done.stderr
    assert done.stderr.endswith("zk-nalloc[numpy]\n")


def test_importing_zk_nalloc_does_not_import_numpy(python: Python) -> None:
    code = "import sys, zk_nalloc, zk_nalloc.numpy; print('numpy' in sys.modules)"
    assert python(code=code).stdout == "False\n"


# -------------------------------------------------------- random histories


class Histories(RuleBasedStateMachine):
    """Any order of choosing allocators, making, resizing and dropping arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.before = zk_nalloc.stats().regions_now
        self.arrays: list[tuple[np.ndarray, int]] = []

    @rule(on=st.booleans())
    def choose(self, *, on: bool) -> None:
        (install if on else uninstall)()

    @rule(length=st.integers(1, 40_000), seed=st.integers(0, 1000), context=st.booleans())
    def make(self, length: int, seed: int, *, context: bool) -> None:
        with allocator() if context else contextlib.nullcontext():
            self.arrays.append((np.arange(seed, seed + length), seed))

    @precondition(lambda self: self.arrays)
    @rule(which=st.integers(0), length=st.integers(1, 40_000))
    def resize(self, which: int, length: int) -> None:
        array, seed = self.arrays[which % len(self.arrays)]
        had = len(array)
        array.resize(length, refcheck=False)
        array[had:] = np.arange(seed + had, seed + length)[: max(0, length - had)]

    @precondition(lambda self: self.arrays)
    @rule(which=st.integers(0))
    def drop(self, which: int) -> None:
        del self.arrays[which % len(self.arrays)]

    @invariant()
    def nothing_lost(self) -> None:
        for array, seed in self.arrays:
            assert array[0] == seed
            assert array[-1] == seed + len(array) - 1
        owned = sum(owns(array) for array, _ in self.arrays)
        assert zk_nalloc.stats().regions_now == self.before + owned

    def teardown(self) -> None:
        uninstall()
        for array, seed in self.arrays:
            np.testing.assert_array_equal(array, np.arange(seed, seed + len(array)))
        array = None  # the loop's reference
        self.arrays.clear()
        assert zk_nalloc.stats().regions_now == self.before


Histories.TestCase.settings = settings(stateful_step_count=30)
test_histories = Histories.TestCase


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(zk_nalloc.numpy)
    assert result.failed == 0
    assert result.attempted > 5
