# SPDX-License-Identifier: MIT OR Apache-2.0
"""`alloc` and `Buffer`: bytes on cached regions that nothing can outlive.

A `Buffer` is a `_memory.Memory`, which owns the block and counts its views,
plus what makes it pleasant: a context manager, checked arguments, and clear
refusals of what would copy an address.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Final, NoReturn, Self, SupportsIndex

from zk_nalloc._lib import ffi, lib
from zk_nalloc._memory import Memory

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Buffer", "alloc"]

# What the library gives to every region without being asked.
_ALIGNMENT: Final = 64
# PTRDIFF_MAX, which is Py_ssize_t's limit too.
_LIMIT: Final = sys.maxsize
_FREE: Final = int(ffi.cast("uintptr_t", ffi.addressof(lib, "zkn_free")))


class Buffer(Memory):
    r"""A block of writable memory, given back to the cache when closed.

    It has the buffer protocol: `memoryview(buffer)`, `numpy.frombuffer(buffer)`,
    `file.readinto(buffer)` and the like see `nbytes` writable bytes.  Memory
    that views still use is never freed: `close` then raises `BufferError`, and
    a buffer that is dropped instead of closed lives as long as its last view.

    Parameters
    ----------
    nbytes
        The size, 0 or more.
    zeroed
        Whether every byte is to be zero.  The content is unspecified, and may
        be what this process freed before, otherwise.
    alignment
        A power of two; the address is a multiple of it.

    Raises
    ------
    ValueError
        `nbytes` is negative or `alignment` is not a power of two.
    OverflowError
        A number is larger than an address can be.
    MemoryError
        There is not that much memory.

    See Also
    --------
    alloc : the same as a function.

    Examples
    --------
    >>> with Buffer(1 << 20, zeroed=True) as buffer:
    ...     bytes(memoryview(buffer)[:4])
    b'\x00\x00\x00\x00'
    >>> buffer.closed
    True
    """

    __slots__ = ("__weakref__",)

    def __new__(
        cls, nbytes: SupportsIndex, *, zeroed: bool = False, alignment: SupportsIndex = _ALIGNMENT
    ) -> Self:
        """Allocate; see the class."""
        size = _checked("nbytes", nbytes, least=0)
        align = _checked("alignment", alignment, least=1)
        if align & (align - 1):
            raise ValueError(f"alignment must be a power of two, got {align}")
        address = _allocate(size, align, zeroed=zeroed)
        if not address:
            raise MemoryError(f"cannot allocate {size} bytes aligned to {align}")
        try:
            return super().__new__(cls, address, size, _FREE)
        except BaseException:
            lib.zkn_free(ffi.cast("void *", address))
            raise

    def __enter__(self) -> Self:
        """Return the buffer itself."""
        if self.closed:
            raise ValueError("operation on a closed buffer")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the buffer.

        Where the block raised and views are alive, its exception is the one
        to see; the memory is then given back with the last view.
        """
        try:
            self.close()
        except BufferError:
            if error is None:
                raise

    def __len__(self) -> int:
        """Return `nbytes`."""
        return self.nbytes

    def __repr__(self) -> str:
        """Describe the buffer, not its content."""
        state = "closed" if self.closed else f"at {self.address:#x}"
        return f"<{type(self).__name__} of {self.nbytes} bytes, {state}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            f"cannot pickle or copy a {type(self).__name__}: its address means nothing elsewhere; "
            "use bytes(memoryview(buffer)) to copy the content"
        )


def alloc(
    nbytes: SupportsIndex, *, zeroed: bool = False, alignment: SupportsIndex = _ALIGNMENT
) -> Buffer:
    """Allocate a buffer of `nbytes` bytes.

    From 64 KiB on it comes from the cache: where a freed region fits, without
    a system call or a page fault.

    Parameters
    ----------
    nbytes
        The size, 0 or more.
    zeroed
        Whether every byte is to be zero.  Pages of a region that are known to
        be zero are not touched, as long as `alignment` is at most 64.
    alignment
        A power of two; the address is a multiple of it.

    Returns
    -------
    Buffer
        The memory; `close` it, leave its `with` block or drop it to give it
        back.

    Raises
    ------
    ValueError
        `nbytes` is negative or `alignment` is not a power of two.
    OverflowError
        A number is larger than an address can be.
    MemoryError
        There is not that much memory.

    Examples
    --------
    >>> buffer = alloc(3 << 20)
    >>> len(buffer), buffer.address % 64
    (3145728, 0)
    >>> view = memoryview(buffer)
    >>> buffer.close()
    Traceback (most recent call last):
    BufferError: cannot close: 1 view of this buffer is alive; release or delete them first
    >>> view.release()
    >>> buffer.close()
    """
    return Buffer(nbytes, zeroed=zeroed, alignment=alignment)


def _checked(name: str, value: SupportsIndex, *, least: int) -> int:
    """Return `value` as an integer from `least` to the largest size there is."""
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number > _LIMIT:
        raise OverflowError(f"{name} must be at most {_LIMIT}, got {number}")
    return number


def _allocate(size: int, alignment: int, *, zeroed: bool) -> int:
    """Return the address of a new block, or 0."""
    if zeroed and size >= lib.ZKN_THRESHOLD and alignment <= _ALIGNMENT:
        # Only zkn_calloc() knows which pages are zero already.
        pointer = lib.zkn_calloc(1, size)
    else:
        pointer = lib.zkn_aligned_alloc(alignment, size)
        if zeroed and pointer != ffi.NULL:
            lib.memset(pointer, 0, size)
    return int(ffi.cast("uintptr_t", pointer))
