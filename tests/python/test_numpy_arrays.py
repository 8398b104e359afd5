# SPDX-License-Identifier: MIT OR Apache-2.0
"""`empty`, `zeros`, `full`, `empty_like`: ordinary arrays, elsewhere."""

from __future__ import annotations

import copy
import doctest
import pickle
import sys
from typing import TYPE_CHECKING, Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import zk_nalloc
from zk_nalloc import _arrays
from zk_nalloc.numpy import owns

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB

MAKERS: list[Callable[..., Any]] = [
    zk_nalloc.empty,
    zk_nalloc.zeros,
    lambda shape, *args, **kwargs: zk_nalloc.full(shape, 1, *args, **kwargs),
    lambda shape, *args, **kwargs: zk_nalloc.empty_like(np.empty(shape), *args, **kwargs),
]


@pytest.fixture(params=MAKERS, ids=["empty", "zeros", "full", "empty_like"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return each of the functions, called by shape."""
    return request.param


def handler_name() -> str:
    return np._core.multiarray.get_handler_name()


@settings(max_examples=3 * settings().max_examples)
@given(
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=20),
    dtype=st.one_of(hnp.scalar_dtypes(), hnp.array_dtypes(), st.just(np.dtype(object))),
    order=st.sampled_from(["C", "F"]),
    power=st.integers(0, 16),
)
def test_as_numpy_makes_them(
    shape: tuple[int, ...], dtype: np.dtype[Any], order: str, power: int
) -> None:
    for name, arguments in (
        ("empty", (shape, dtype, order)),
        ("zeros", (shape, dtype, order)),
        ("full", (shape, np.zeros((), dtype)[()], dtype, order)),
        ("empty_like", (np.empty(shape, dtype, order),)),
    ):
        array = getattr(zk_nalloc, name)(*arguments, align=1 << power)
        expected = getattr(np, name)(*arguments)
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert (array.strides, array.flags) == (expected.strides, expected.flags)
        assert array.size == 0 or array.ctypes.data % (1 << power) == 0
        if name in {"zeros", "full"} and not dtype.hasobject:
            assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("nbytes", [1, 1000, 64 * KIB - 1, 64 * KIB, 3 * MIB])
@pytest.mark.parametrize("align", [64, 4096, 2 * MIB])
def test_aligned_and_on_the_cache(make: Callable[..., Any], nbytes: int, align: int) -> None:
    with zk_nalloc.stats_delta() as phase:
        array = make(nbytes, np.uint8, align=align)
        assert array.ctypes.data % align == 0
        assert array.flags.owndata
        assert owns(array) == (nbytes >= 64 * KIB)
        array[:] = 0xA5
        del array
    assert phase.stats.frees == (nbytes >= 64 * KIB)
    assert phase.stats.regions_now == 0


@pytest.mark.parametrize("align", [64, 4096])
def test_zeros_on_dirty_memory(align: int) -> None:
    for nbytes in (100, 64 * KIB, MIB):
        zk_nalloc.full(nbytes, 7, np.uint8, align=align)
        assert not zk_nalloc.zeros(nbytes, np.uint8, align=align).any()


def test_zeros_does_not_clear_what_is_zero() -> None:
    zk_nalloc.release_cache()
    with zk_nalloc.stats_delta() as phase:
        zk_nalloc.zeros(8 * MIB, np.uint8)
    assert (phase.stats.callocs, phase.stats.bytes_cleared) == (1, 0)


def test_full() -> None:
    np.testing.assert_array_equal(zk_nalloc.full((2, 3), [1, 2, 3]), [[1, 2, 3]] * 2)
    assert zk_nalloc.full(3, 2**40).dtype == np.int64
    assert zk_nalloc.full(3, 7, np.uint8).dtype == np.uint8
    with pytest.raises(ValueError, match="broadcast"):
        zk_nalloc.full(2, [1, 2, 3])


def test_empty_like_keeps_order_and_subclass() -> None:
    class Column(np.ndarray):
        pass

    prototype = np.zeros((300, 400), np.uint32, order="F").view(Column)
    array = zk_nalloc.empty_like(prototype)
    assert isinstance(array, Column)
    assert array.strides == prototype.strides
    assert owns(array)
    other = zk_nalloc.empty_like(prototype, np.float32, "C", shape=(5, 6), align=4096)
    assert (other.dtype, other.shape, other.ctypes.data % 4096) == (np.float32, (5, 6), 0)
    assert zk_nalloc.empty_like([1, 2]).dtype == np.int64


@pytest.mark.parametrize(
    ("align", "error", "text"),
    [
        (0, ValueError, "align must be a power of two, got 0"),
        (-64, ValueError, "align must be a power of two, got -64"),
        (48, ValueError, "align must be a power of two, got 48"),
        (1 << 70, OverflowError, f"align must be at most {sys.maxsize}"),
        (1.5, TypeError, "'float' object cannot be interpreted as an integer"),
    ],
)
def test_bad_align(
    make: Callable[..., Any], align: object, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make(3, align=align)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("x",), TypeError),
        ((-1,), ValueError),
        ((1, "no such type"), TypeError),
        ((1, None, "X"), ValueError),
        ((1 << 62, np.uint8), MemoryError),
        ((1 << 61,), ValueError),
    ],
)
def test_bad_arguments_leave_numpy_alone(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    for function in (zk_nalloc.empty, zk_nalloc.zeros):
        with pytest.raises(error):
            function(*arguments)
        assert handler_name() == "default_allocator"
        assert not owns(np.empty(MIB))


# ----------------------------------------------------- what arrays can do


@pytest.mark.parametrize("nbytes", [800, 8 * MIB])
def test_pickling_copies(nbytes: int) -> None:
    array = zk_nalloc.empty(nbytes // 8)
    array[:] = np.arange(nbytes // 8)
    for other in (
        pickle.loads(pickle.dumps(array)),
        copy.copy(array),
        copy.deepcopy(array),
    ):
        assert other.ctypes.data != array.ctypes.data
        assert not owns(other)
        np.testing.assert_array_equal(other, array)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
    np.testing.assert_array_equal(pickle.loads(data, buffers=buffers), array)


def test_dlpack() -> None:
    array = zk_nalloc.zeros(MIB, np.uint8)
    with zk_nalloc.stats_delta() as phase:
        other = np.from_dlpack(array)
        array[5] = 1
        del array
        assert phase.stats.frees == 0
        assert other[5] == 1
        del other
    assert phase.stats.frees == 1


def test_buffer_protocol() -> None:
    array = zk_nalloc.zeros((300, 400), np.int32)
    with memoryview(array) as view:
        assert (view.format, view.shape, view.readonly) == ("i", (300, 400), False)
        view[2, 3] = 9
    assert array[2, 3] == 9


@pytest.mark.parametrize("align", [64, 4096])
def test_resizing_keeps_content_and_alignment(align: int) -> None:
    with zk_nalloc.stats_delta() as phase:
        array = zk_nalloc.empty(1000, np.int64, align=align)
        array[:] = np.arange(1000)
        for length in (20_000, 200_000, 30_000, 1000, 10):
            array.resize(length, refcheck=False)
            assert array.ctypes.data % align == 0
            kept = min(length, 1000)
            np.testing.assert_array_equal(array[:kept], np.arange(kept))
            assert not array[1000:].any()
        del array
    assert phase.stats.regions_now == 0


def test_objects() -> None:
    marker = object()
    before = sys.getrefcount(marker)
    array = zk_nalloc.full(10_000, marker, object)
    assert owns(array)
    assert array[9_999] is marker
    del array
    after = sys.getrefcount(marker)
    assert after == before


def test_an_array_is_served_by_the_one_before() -> None:
    zk_nalloc.empty(16 * MIB, np.uint8)[:] = 1
    with zk_nalloc.stats_delta() as phase:
        for _ in range(10):
            zk_nalloc.empty(16 * MIB, np.uint8)[:] = 1
    assert phase.hit_rate == 1
    assert phase.stats.hits == 10


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(_arrays, extraglobs={"np": np})
    assert result.failed == 0
    assert result.attempted >= 4
