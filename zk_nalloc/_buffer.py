# SPDX-License-Identifier: MIT OR Apache-2.0
"""`alloc` and `Buffer`: bytes on cached regions that nothing can outlive.

A `Buffer` is a `_memory.Memory`, which owns the block and counts its views,
with the manners of `_owned.Owned`, on memory of the cache.
"""

from __future__ import annotations

from typing import Final, Self, SupportsIndex

from zk_nalloc._lib import ffi, lib
from zk_nalloc._owned import ALIGNMENT, Owned, address_of, checked, checked_alignment

__all__ = ["Buffer", "alloc"]

_FREE: Final = address_of("zkn_free")


class Buffer(Owned):
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

    __slots__ = ()

    def __new__(
        cls, nbytes: SupportsIndex, *, zeroed: bool = False, alignment: SupportsIndex = ALIGNMENT
    ) -> Self:
        """Allocate; see the class."""
        size = checked("nbytes", nbytes)
        align = checked_alignment(alignment)
        address = _allocate(size, align, zeroed=zeroed)
        if not address:
            raise MemoryError(f"cannot allocate {size} bytes aligned to {align}")
        try:
            return super().__new__(cls, address, size, _FREE)
        except BaseException:
            lib.zkn_free(ffi.cast("void *", address))
            raise


def alloc(
    nbytes: SupportsIndex, *, zeroed: bool = False, alignment: SupportsIndex = ALIGNMENT
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


def _allocate(size: int, alignment: int, *, zeroed: bool) -> int:
    """Return the address of a new block, or 0."""
    if zeroed and size >= lib.ZKN_THRESHOLD and alignment <= ALIGNMENT:
        # Only zkn_calloc() knows which pages are zero already.
        pointer = lib.zkn_calloc(1, size)
    else:
        pointer = lib.zkn_aligned_alloc(alignment, size)
        if zeroed and pointer != ffi.NULL:
            lib.memset(pointer, 0, size)
    return address_of(pointer)
