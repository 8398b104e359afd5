# SPDX-License-Identifier: MIT OR Apache-2.0
"""What every object with memory of the library has in common.

`_memory.Memory` owns a block and counts its views; `Owned` makes it pleasant
in Python: a context manager, a length, a `repr` without content, and clear
refusals of what would copy an address.
"""

from __future__ import annotations

import operator
import sys
import threading
from typing import TYPE_CHECKING, Final, NoReturn, Self, SupportsIndex

from zk_nalloc._lib import ffi, lib
from zk_nalloc._memory import Memory

if TYPE_CHECKING:
    from types import TracebackType

    from zk_nalloc._native import _Pointer

__all__ = [
    "ALIGNMENT",
    "Guard",
    "Owned",
    "address_of",
    "checked",
    "checked_alignment",
    "plural",
]

ALIGNMENT: Final = 64
"""What the library gives to every region without being asked."""

# PTRDIFF_MAX, which is Py_ssize_t's limit too.
_LIMIT: Final = sys.maxsize


class Owned(Memory):
    """Memory with the manners of a Python object; see `Buffer`."""

    __slots__ = ("__weakref__",)

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


class Guard:
    """A lock around operations on one object.

    A finaliser or a signal handler may interrupt an operation on its own
    thread.  Where that comes back to the object, it gets an error instead of a
    deadlock, and instead of an object that is changed halfway.
    """

    __slots__ = ("_busy", "_lock", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.RLock()
        self._busy = False

    def __enter__(self) -> None:
        """Wait for other threads."""
        self._lock.acquire()
        if self._busy:
            self._lock.release()
            raise RuntimeError(f"an operation on this {self._what} was interrupted by another")
        self._busy = True

    def __exit__(self, *error: object) -> None:
        """Let other threads go on."""
        self._busy = False
        self._lock.release()


def checked(name: str, value: SupportsIndex, *, least: int = 0) -> int:
    """Return `value` as an integer from `least` to the largest size there is."""
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number > _LIMIT:
        raise OverflowError(f"{name} must be at most {_LIMIT}, got {number}")
    return number


def checked_alignment(value: SupportsIndex) -> int:
    """Return `value` as an integer that is a power of two."""
    number = checked("alignment", value, least=1)
    if number & (number - 1):
        raise ValueError(f"alignment must be a power of two, got {number}")
    return number


def address_of(what: _Pointer | str) -> int:
    """Return the address that a pointer has, or the C function of that name."""
    pointer = ffi.addressof(lib, what) if isinstance(what, str) else what
    return int(ffi.cast("uintptr_t", pointer))


def plural(views: int) -> str:
    """Return `1 view` or `2 views`."""
    return f"{views} view" if views == 1 else f"{views} views"
