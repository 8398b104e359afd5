# SPDX-License-Identifier: MIT OR Apache-2.0
"""`Arena`: memory for the phases of a proof, given back all at once.

In C a reset leaves whoever still uses the memory with a dangling pointer.
Here nothing may dangle, and still a reset is one step, however many arrays
there were.  What makes that possible is that a view of a part counts as a view
of the whole (see `_memory.c`), so that one number answers for them all:

    root             the C arena, destroyed when nothing refers to it
      scope          what was allocated since the last reset
        scope        what was allocated since a phase began, and so on
          buffer     one allocation; its views count in all of the above

Ending a scope means to close its `Memory`: refused, atomically, while views
are alive; after it, its buffers give no more views.  Then the C arena goes
back to where the scope began.

A phase ends where its block ends, but its memory goes back when it can: an
exception carries the frames of the block, and so their arrays, with it.  A
phase that has ended under views, or under a phase of another thread inside
of it, stays on the stack until the next operation finds it free; if something
is allocated first, which lies above its memory, it dissolves into the scope
around it.

Every operation takes the arena's lock, so that a buffer belongs to the scope
whose memory it got.
"""

from __future__ import annotations

import functools
import math
import operator
import struct
import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NoReturn,
    Self,
    SupportsIndex,
    TypeVar,
    overload,
)
from typing import cast as typing_cast

from zk_nalloc._lib import ffi, lib
from zk_nalloc._memory import Memory
from zk_nalloc._owned import (
    ALIGNMENT,
    Guard,
    Owned,
    address_of,
    checked,
    checked_alignment,
    plural,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType, TracebackType

    import numpy as np
    import numpy.typing as npt

    from zk_nalloc._native import _Pointer

    Shape = SupportsIndex | Sequence[SupportsIndex]

_Scalar = TypeVar("_Scalar", bound="np.generic")

__all__ = ["Arena", "ArenaBuffer", "Phase"]

_DESTROY: Final = address_of("zkn_arena_destroy")


class ArenaBuffer(Owned):
    """A block of an arena: what `Arena.alloc` returns.

    It has the buffer protocol as `Buffer` has.  Once its phase or its arena
    has been reset or closed, it gives no more views: `memoryview(buffer)` and
    the like raise `ValueError`.
    """

    __slots__ = ()

    def __new__(cls) -> Self:
        """Refuse: an address alone is not safe."""
        raise TypeError(f"a {cls.__name__} comes from Arena.alloc()")


class _Scope:
    """What was allocated since a reset, or since a phase began."""

    __slots__ = ("ended", "mark", "memory")

    def __init__(self, whole: Memory, mark: int = -1) -> None:
        # The scope's own bytes are never shown; its address is any.
        self.memory = Memory(whole.address, 0, whole)
        self.mark = mark
        self.ended = False


class Arena:
    """Memory of fixed capacity that is allocated piecewise and freed at once.

    Allocating is one atomic operation, `reset` another, and the memory stays
    resident in between: a phase that runs again touches no new page.  Safe
    Python code cannot be left with memory that is somebody else's: while a
    view of the arena is alive (a `memoryview`, a NumPy array, a slice of one),
    resetting and closing raise `BufferError`.

    Parameters
    ----------
    capacity
        The bytes that can be allocated in sum, padding for their alignment
        included.
    populate
        Whether to fault all pages in now instead of at their first use.

    Raises
    ------
    ValueError
        `capacity` is negative.
    OverflowError
        `capacity` is larger than an address can be.
    MemoryError
        There is not that much memory.

    Notes
    -----
    Arenas may be shared between threads.  Resets and phases are the arena's,
    not a thread's: threads with phases of their own need arenas of their own.

    Examples
    --------
    >>> arena = Arena(1 << 20)
    >>> trace = arena.alloc_array("uint64", (4, 1000))
    >>> trace[:] = 7
    >>> arena.used
    32000
    >>> arena.reset()
    Traceback (most recent call last):
    BufferError: cannot reset: 1 view of this arena is alive; release or delete it first
    >>> del trace
    >>> arena.reset()
    >>> arena.used, arena.peak
    (0, 32000)
    >>> arena.close()
    """

    __slots__ = ("__weakref__", "_capacity", "_handle", "_lock", "_root", "_scopes")

    def __init__(self, capacity: SupportsIndex, *, populate: bool = False) -> None:
        size = checked("capacity", capacity)
        handle = lib.zkn_arena_create(size, lib.ZKN_ARENA_POPULATE if populate else 0)
        if handle == ffi.NULL:
            raise MemoryError(f"cannot allocate an arena of {size} bytes")
        try:
            root = Memory(address_of(handle), 0, _DESTROY)
        except BaseException:
            lib.zkn_arena_destroy(handle)
            raise
        self._capacity = size
        self._handle: _Pointer = handle
        self._root: Memory | None = root
        # The first scope is the arena's own, the others are open phases.
        self._scopes = [_Scope(root)]
        self._lock = Guard("arena")

    # ------------------------------------------------------------ allocation

    def alloc(self, nbytes: SupportsIndex, *, alignment: SupportsIndex = ALIGNMENT) -> ArenaBuffer:
        """Allocate bytes of unspecified content.

        Parameters
        ----------
        nbytes
            The size, 0 or more.
        alignment
            A power of two; the address is a multiple of it.

        Returns
        -------
        ArenaBuffer
            The memory, until the phase ends or the arena is reset.

        Raises
        ------
        MemoryError
            The arena has not that much left; it stays as it was.
        ValueError
            The arena is closed, or a number is not what it must be.

        Examples
        --------
        >>> with Arena(4096) as arena:
        ...     buffer = arena.alloc(100)
        ...     bytes(memoryview(buffer)[:0]), buffer.address % 64
        (b'', 0)
        """
        size = checked("nbytes", nbytes)
        align = checked_alignment(alignment)
        with self._lock:
            self._check_open()
            self._settle()
            while self._scopes[-1].ended:
                self._scopes.pop()
            pointer = lib.zkn_arena_alloc(self._handle, size, align)
            if pointer == ffi.NULL:
                used = lib.zkn_arena_used(self._handle)
                raise MemoryError(
                    f"arena exhausted: {size} bytes aligned to {align} asked for, "
                    f"{self._capacity - used} of {self._capacity} left"
                )
            whole = self._scopes[-1].memory
            return Memory.__new__(ArenaBuffer, address_of(pointer), size, whole)

    @overload
    def alloc_array(
        self,
        dtype: type[_Scalar] | np.dtype[_Scalar],
        shape: Shape,
        *,
        order: Literal["C", "F"] = ...,
        zeroed: bool = ...,
    ) -> npt.NDArray[_Scalar]: ...

    @overload
    def alloc_array(
        self,
        dtype: npt.DTypeLike,
        shape: Shape,
        *,
        order: Literal["C", "F"] = ...,
        zeroed: bool = ...,
    ) -> npt.NDArray[Any]: ...

    def alloc_array(
        self,
        dtype: npt.DTypeLike,
        shape: Shape,
        *,
        order: Literal["C", "F"] = "C",
        zeroed: bool = False,
    ) -> npt.NDArray[Any]:
        """Allocate an array, aligned to 64 bytes.

        Parameters
        ----------
        dtype
            The type of its elements, as NumPy takes it; formats of the module
            `struct` for one element, such as ``"Q"``, are among those, and
            the only ones without NumPy.
        shape
            Its size, or its sizes along each axis.
        order
            Whether the last axis is contiguous (``"C"``), or the first.
        zeroed
            Whether every byte is to be zero.  The content is unspecified, and
            may be that of arrays before, otherwise.

        Returns
        -------
        numpy.ndarray
            The array; a `memoryview` where NumPy cannot be imported.

        Raises
        ------
        MemoryError
            The arena has not that much left; it stays as it was.
        TypeError
            Elements of that type cannot lie in an arena: Python objects.
        ValueError
            The arena is closed, or a parameter is not what it must be.

        Examples
        --------
        >>> with Arena(1 << 20) as arena:
        ...     columns = arena.alloc_array("Q", (3, 1000), zeroed=True)
        ...     columns.shape, columns.itemsize, int(columns.sum())
        ...     del columns
        ((3, 1000), 8, 0)
        """
        sizes = _sizes(shape)
        if order not in {"C", "F"}:
            raise ValueError(f"order must be 'C' or 'F', got {order!r}")
        numpy = _numpy()
        if numpy is None:
            if order == "F" and len(sizes) > 1:
                raise ValueError("order 'F' needs NumPy")
            view = self._alloc_view(dtype, sizes, zeroed=zeroed)
            return typing_cast("npt.NDArray[Any]", view)
        kind = numpy.dtype(dtype)
        if kind.subdtype is not None:
            kind, inner = kind.subdtype
            sizes += inner
        if kind.hasobject:
            raise TypeError(f"an arena cannot hold Python objects: {kind!r}")
        if kind.itemsize == 0:
            raise ValueError(f"an array in an arena needs elements of some size, not {kind!r}")
        count = math.prod(sizes)
        buffer = self._alloc_zeroed(count * kind.itemsize, zeroed=zeroed)
        flat: npt.NDArray[Any] = numpy.frombuffer(buffer, dtype=kind, count=count)
        return flat.reshape(sizes, order=order)

    def _alloc_zeroed(self, nbytes: int, *, zeroed: bool) -> ArenaBuffer:
        buffer = self.alloc(nbytes)
        if zeroed:
            with memoryview(buffer):  # or another thread may reset meanwhile
                lib.memset(ffi.cast("void *", buffer.address), 0, nbytes)
        return buffer

    def _alloc_view(self, dtype: object, sizes: tuple[int, ...], *, zeroed: bool) -> memoryview:
        """Do what `alloc_array` does without NumPy."""
        code = _format(dtype)
        count = math.prod(sizes)
        if count == 0 and len(sizes) > 1:
            raise ValueError("empty arrays of more than one axis need NumPy")
        buffer = self._alloc_zeroed(count * struct.calcsize(code), zeroed=zeroed)
        flat: Any = memoryview(buffer)
        view: memoryview = flat.cast(code) if count == 0 else flat.cast(code, sizes)
        return view

    # ---------------------------------------------------------------- freeing

    def reset(self, *, force: bool = False) -> None:
        """Free everything that was allocated; phases that are open end.

        Parameters
        ----------
        force
            Whether to do so under live views, too.  **This is unsafe**: such
            views and arrays go on reading and writing memory that is given
            out again, and so show and change what others hold.  It stays
            mapped as long as they live.  Every `ArenaBuffer` from before the
            reset refuses to give new views, as ever.

        Raises
        ------
        BufferError
            Views of the arena are alive; the message says how many.  Nothing
            is freed.
        ValueError
            The arena is closed.

        Examples
        --------
        >>> arena = Arena(4096)
        >>> buffer = arena.alloc(100)
        >>> view = memoryview(buffer)
        >>> arena.reset(force=True)
        >>> memoryview(buffer)
        Traceback (most recent call last):
        ValueError: operation on a closed buffer
        """
        with self._lock:
            root = self._check_open()
            fresh = _Scope(root)
            scope = self._scopes[0]
            if force:
                scope.memory._abandon()  # noqa: SLF001
            elif views := scope.memory._try_close():  # noqa: SLF001
                raise _alive("reset", "arena", views)
            lib.zkn_arena_reset(self._handle)
            self._scopes = [fresh]

    def phase(self) -> Phase:
        """Return a context manager that frees what is allocated inside of it.

        Phases nest.  What was allocated before a phase stays.

        Returns
        -------
        Phase
            To be used with `with`; it gives the arena.

        Examples
        --------
        >>> arena = Arena(1 << 16)
        >>> kept = arena.alloc(1000)
        >>> with arena.phase():
        ...     scratch = arena.alloc(50000)
        >>> arena.used
        1000
        >>> memoryview(kept).nbytes
        1000
        """
        return Phase(self)

    def close(self) -> None:
        """Give the arena's memory back to the cache.

        Closing a closed arena does nothing.

        Raises
        ------
        BufferError
            Views of the arena are alive; the message says how many.  The
            arena stays open and usable.
        """
        with self._lock:
            root = self._root
            if root is None:
                return
            if views := self._scopes[0].memory._try_close():  # noqa: SLF001
                raise _alive("close", "arena", views)
            self._root = None
            self._scopes.clear()
            # Where a forced reset has left views, they keep the memory.
            root._try_close()  # noqa: SLF001

    def __enter__(self) -> Self:
        """Return the arena itself."""
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the arena.

        Where the block raised and views are alive, its exception is the one
        to see; the memory is then given back with the last view.
        """
        try:
            self.close()
        except BufferError:
            if error is None:
                raise

    # ---------------------------------------------------------------- queries

    @property
    def capacity(self) -> int:
        """The bytes that can be allocated in sum, as asked for."""
        return self._capacity

    @property
    def used(self) -> int:
        """The bytes that allocations and their alignment use now."""
        with self._lock:
            self._check_open()
            self._settle()
            return lib.zkn_arena_used(self._handle)

    @property
    def peak(self) -> int:
        """The most bytes that were ever in use at once."""
        with self._lock:
            self._check_open()
            return lib.zkn_arena_peak(self._handle)

    @property
    def views(self) -> int:
        """How many views of the arena's memory are alive.

        Those that a forced reset has left are not counted.
        """
        with self._lock:
            return self._scopes[0].memory.views if self._scopes else 0

    @property
    def closed(self) -> bool:
        """Whether the memory has been given back."""
        return self._root is None

    def __repr__(self) -> str:
        """Describe the arena, not its content."""
        state = "closed" if self.closed else f"{self.used} used"
        return f"<{type(self).__name__} of {self._capacity} bytes, {state}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            f"cannot pickle or copy an {type(self).__name__}: its memory lies in this process"
        )

    # -------------------------------------------------- under the lock, below

    def _check_open(self) -> Memory:
        if self._root is None:
            raise ValueError("operation on a closed arena")
        return self._root

    def _begin(self) -> _Scope:
        with self._lock:
            self._check_open()
            self._settle()
            mark = lib.zkn_arena_mark(self._handle)
            if mark < 0:
                raise RuntimeError(
                    f"more than {lib.ZKN_ARENA_MARKS} phases are open, or were left under views"
                )
            scope = _Scope(self._scopes[-1].memory, mark)
            self._scopes.append(scope)
            return scope

    def _end(self, scope: _Scope) -> int:
        """End a phase; say how many views keep its memory."""
        with self._lock:
            scope.ended = True
            if self._scopes:
                self._settle()
            for inner in reversed(self._scopes):
                if inner is scope:
                    return scope.memory.views
                if not inner.ended:
                    break  # it is that phase which keeps the memory, views or not
            return 0

    def _settle(self) -> None:
        """Give back the memory of phases that have ended, where nothing views it."""
        while (scope := self._scopes[-1]).ended and not scope.memory._try_close():  # noqa: SLF001
            self._scopes.pop()
            lib.zkn_arena_rewind(self._handle, scope.mark)


class Phase:
    """A phase of an arena: what `Arena.phase` returns.

    Its `with` block gives the arena.  What is allocated in the block, by any
    thread, is freed at its end.

    Raises
    ------
    BufferError
        At the end of the block, unless that raised something: views of what
        was allocated inside of it are alive.  The memory is given back when
        they are gone.
    """

    __slots__ = ("_arena", "_scope")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._scope: _Scope | None = None

    def __enter__(self) -> Arena:
        """Begin the phase."""
        if self._scope is not None:
            raise RuntimeError("this phase has begun before; make another")
        self._scope = self._arena._begin()  # noqa: SLF001
        return self._arena

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the phase."""
        if self._scope is None:
            raise RuntimeError("this phase has not begun")
        views = self._arena._end(self._scope)  # noqa: SLF001
        if views and error is None:
            raise _alive("end the phase", "phase", views)


def _alive(what: str, where: str, views: int) -> BufferError:
    are, them = ("is", "it") if views == 1 else ("are", "them")
    return BufferError(
        f"cannot {what}: {plural(views)} of this {where} {are} alive; "
        f"release or delete {them} first"
    )


def _sizes(shape: Shape) -> tuple[int, ...]:
    """Return `shape` as a tuple of sizes."""
    try:
        sizes: Sequence[SupportsIndex] = (operator.index(shape),)  # type: ignore[arg-type]
    except TypeError:
        sizes = typing_cast("Sequence[SupportsIndex]", shape)
    return tuple(checked("shape", size) for size in sizes)


@functools.cache
def _numpy() -> ModuleType | None:
    try:
        import numpy as np  # noqa: PLC0415  # the first array pays, not the import
    except ImportError:
        return None
    return np


def _format(dtype: object) -> str:
    """Return the native format of one element that `memoryview.cast` takes."""
    if not isinstance(dtype, str):
        raise TypeError(f"without NumPy a format of the module struct is needed, got {dtype!r}")
    native = {"little": "<", "big": ">"}[sys.byteorder]
    code = dtype[1:] if dtype[:1] in {"@", "=", native} else dtype
    try:
        same = len(code) == 1 and struct.calcsize(dtype) == struct.calcsize(code)
        if same and code not in "sp":
            memoryview(bytes(struct.calcsize(code))).cast(code)  # type: ignore[call-overload]
            return code
    except (struct.error, ValueError):
        pass
    raise ValueError(f"without NumPy the format must be of one native element, got {dtype!r}")
