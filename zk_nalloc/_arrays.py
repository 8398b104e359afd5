# SPDX-License-Identifier: MIT OR Apache-2.0
"""`empty`, `zeros`, `full`, `empty_like`: NumPy's, on the cache and aligned.

Each asks NumPy for the array while an allocator is set that sends the request
to the library; the result owns its data, so it can be resized, pickled, viewed
and passed on by DLPack like any other.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeAlias, TypeVar, overload

from zk_nalloc.numpy import _bridge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

__all__ = ["empty", "empty_like", "full", "zeros"]

_Shape: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
_Order: TypeAlias = Literal["C", "F"]
_OrderLike: TypeAlias = Literal["K", "A", "C", "F"]
_Scalar = TypeVar("_Scalar", bound="np.generic")
_ALIGNMENT = 64


@lru_cache(maxsize=64)
def _handler(align: int) -> Any:  # noqa: ANN401 - an opaque capsule
    return _bridge().aligned(align)


def _made(name: str, align: SupportsIndex, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Return what the function of NumPy returns while it allocates here."""
    bridge = _bridge()
    import numpy as np  # noqa: PLC0415 - optional

    number = operator.index(align)
    if number < 1 or number & (number - 1):
        raise ValueError(f"align must be a power of two, got {number}")
    if number > sys.maxsize:
        raise OverflowError(f"align must be at most {sys.maxsize}, got {number}")
    return bridge.call(_handler(number), getattr(np, name), *args, **kwargs)


@overload
def empty(
    shape: _Shape, dtype: None = None, order: _Order = "C", *, align: SupportsIndex = 64
) -> NDArray[np.float64]: ...
@overload
def empty(
    shape: _Shape,
    dtype: type[_Scalar] | np.dtype[_Scalar],
    order: _Order = "C",
    *,
    align: SupportsIndex = 64,
) -> NDArray[_Scalar]: ...
@overload
def empty(
    shape: _Shape, dtype: DTypeLike, order: _Order = "C", *, align: SupportsIndex = 64
) -> NDArray[Any]: ...
def empty(
    shape: _Shape,
    dtype: DTypeLike | None = None,
    order: _Order = "C",
    *,
    align: SupportsIndex = _ALIGNMENT,
) -> NDArray[Any]:
    """Return a new array on the cache, its content unspecified.

    Parameters
    ----------
    shape
        A length, or one for each dimension.
    dtype
        The type of the elements, `numpy.float64` by default.
    order
        ``"C"`` for rows, ``"F"`` for columns next to each other in memory.
    align
        A power of two; the address of the data is a multiple of it.

    Returns
    -------
    numpy.ndarray
        An ordinary array that owns its data.  Memory of 64 KiB and more goes
        back to the cache with it.

    Raises
    ------
    ValueError
        `align` is not a power of two, or an argument is one that NumPy refuses.
    MemoryError
        There is not that much memory.
    ModuleNotFoundError
        NumPy is not installed; the message says how to get it.

    See Also
    --------
    zk_nalloc.numpy.allocator : has all of NumPy's functions allocate here.

    Examples
    --------
    >>> column = empty(1 << 20, np.uint64, align=4096)
    >>> column.ctypes.data % 4096, column.flags.owndata
    (0, True)
    """
    array: NDArray[Any] = _made("empty", align, shape, dtype, order)
    return array


@overload
def zeros(
    shape: _Shape, dtype: None = None, order: _Order = "C", *, align: SupportsIndex = 64
) -> NDArray[np.float64]: ...
@overload
def zeros(
    shape: _Shape,
    dtype: type[_Scalar] | np.dtype[_Scalar],
    order: _Order = "C",
    *,
    align: SupportsIndex = 64,
) -> NDArray[_Scalar]: ...
@overload
def zeros(
    shape: _Shape, dtype: DTypeLike, order: _Order = "C", *, align: SupportsIndex = 64
) -> NDArray[Any]: ...
def zeros(
    shape: _Shape,
    dtype: DTypeLike | None = None,
    order: _Order = "C",
    *,
    align: SupportsIndex = _ALIGNMENT,
) -> NDArray[Any]:
    """Return a new array of zeros on the cache.

    Pages that are known to be zero are not touched, as long as `align` is at
    most 64.

    Parameters
    ----------
    shape, dtype, order, align
        As for `empty`.

    Returns
    -------
    numpy.ndarray
        As from `empty`.

    Examples
    --------
    >>> zeros((2, 3), np.int32)
    array([[0, 0, 0],
           [0, 0, 0]], dtype=int32)
    """
    array: NDArray[Any] = _made("zeros", align, shape, dtype, order)
    return array


@overload
def full(
    shape: _Shape,
    fill_value: object,
    dtype: None = None,
    order: _Order = "C",
    *,
    align: SupportsIndex = 64,
) -> NDArray[Any]: ...
@overload
def full(
    shape: _Shape,
    fill_value: object,
    dtype: type[_Scalar] | np.dtype[_Scalar],
    order: _Order = "C",
    *,
    align: SupportsIndex = 64,
) -> NDArray[_Scalar]: ...
@overload
def full(
    shape: _Shape,
    fill_value: object,
    dtype: DTypeLike,
    order: _Order = "C",
    *,
    align: SupportsIndex = 64,
) -> NDArray[Any]: ...
def full(
    shape: _Shape,
    fill_value: object,
    dtype: DTypeLike | None = None,
    order: _Order = "C",
    *,
    align: SupportsIndex = _ALIGNMENT,
) -> NDArray[Any]:
    """Return a new array on the cache, every element `fill_value`.

    Parameters
    ----------
    shape, order, align
        As for `empty`.
    fill_value
        The value, or an array that is broadcast.
    dtype
        The type of the elements, that of `fill_value` by default.

    Returns
    -------
    numpy.ndarray
        As from `empty`.

    Examples
    --------
    >>> full(3, 7)
    array([7, 7, 7])
    """
    array: NDArray[Any] = _made("full", align, shape, fill_value, dtype, order)
    return array


@overload
def empty_like(
    prototype: NDArray[_Scalar],
    dtype: None = None,
    order: _OrderLike = "K",
    *,
    shape: _Shape | None = None,
    align: SupportsIndex = 64,
) -> NDArray[_Scalar]: ...
@overload
def empty_like(
    prototype: object,
    dtype: type[_Scalar] | np.dtype[_Scalar],
    order: _OrderLike = "K",
    *,
    shape: _Shape | None = None,
    align: SupportsIndex = 64,
) -> NDArray[_Scalar]: ...
@overload
def empty_like(
    prototype: object,
    dtype: DTypeLike | None = None,
    order: _OrderLike = "K",
    *,
    shape: _Shape | None = None,
    align: SupportsIndex = 64,
) -> NDArray[Any]: ...
def empty_like(
    prototype: object,
    dtype: DTypeLike | None = None,
    order: _OrderLike = "K",
    *,
    shape: _Shape | None = None,
    align: SupportsIndex = _ALIGNMENT,
) -> NDArray[Any]:
    """Return a new array on the cache, shaped and typed as another.

    Parameters
    ----------
    prototype
        What it is to be like; subclasses of arrays are kept.
    dtype, shape
        What is to differ.
    order
        ``"K"`` as close to the prototype's order as can be, ``"A"`` for
        ``"F"`` where that of the prototype is, or as for `empty`.
    align
        As for `empty`.

    Returns
    -------
    numpy.ndarray
        As from `empty`.

    Examples
    --------
    >>> empty_like(np.ones((3, 4), order="F")).flags.f_contiguous
    True
    """
    array: NDArray[Any] = _made("empty_like", align, prototype, dtype, order, shape=shape)
    return array
