# SPDX-License-Identifier: MIT OR Apache-2.0
"""NumPy's own arrays on the cache: for the whole process, or for one block.

NumPy asks an exchangeable allocator for the data of every array (NEP 49).
`install` puts the cache under it for all threads, `allocator` for the thread
or task that enters its block:

>>> import numpy as np
>>> with allocator():
...     trace = np.zeros((64, 1 << 14), dtype=np.uint64)
>>> owns(trace)
True

Requests of 64 KiB and more go to the cache, smaller ones to the allocator that
NumPy had before.  Arrays are ordinary ones and may outlive both: each gives its
memory back to where it came from.  Nothing here imports NumPy before it is
called, and NumPy 2.0 is the oldest that will do.
"""

from __future__ import annotations

import contextlib
import contextvars
from functools import cache
from typing import TYPE_CHECKING, Any

from zk_nalloc._lib import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from numpy.typing import NDArray

__all__ = ["allocator", "install", "installed", "owns", "uninstall"]

_OLDEST = 2


@cache
def _bridge() -> ModuleType:
    """Return the compiled module, which imports NumPy, or say what is missing."""
    try:
        import numpy as np  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ModuleNotFoundError(
            "NumPy is not installed; zk_nalloc's arrays need it: pip install zk-nalloc[numpy]",
            name="numpy",
        ) from error
    if int(np.__version__.partition(".")[0]) < _OLDEST:
        raise ImportError(
            f"NumPy {np.__version__} is too old; zk_nalloc's arrays need 2.0 or newer: "
            "pip install -U zk-nalloc[numpy]",
            name="numpy",
        )
    from zk_nalloc import _numpy  # noqa: PLC0415 - see above

    return _numpy


def install() -> None:
    """Put the data of all arrays of 64 KiB and more on the cache.

    Holds for every thread, those that start later included, until `uninstall`.
    Arrays that exist stay where they are.  A context that has chosen another
    allocator by NumPy's protocol keeps it.  Installing twice does nothing.

    Raises
    ------
    ModuleNotFoundError
        NumPy is not installed; the message says how to get it.
    ImportError
        NumPy is older than 2.0.
    RuntimeError
        This NumPy does not ask its default allocator as those known do;
        `allocator` may still work.

    See Also
    --------
    allocator : the same for one block.

    Examples
    --------
    >>> import numpy as np
    >>> install()
    >>> owns(np.ones(1 << 20))
    True
    >>> uninstall()
    >>> owns(np.ones(1 << 20))
    False
    """
    bridge = _bridge()
    bridge.install()
    # In a context where no allocator was chosen, which is what this is about.
    import numpy as np  # noqa: PLC0415 - optional

    probe = contextvars.Context().run(np.empty, int(lib.ZKN_THRESHOLD), np.uint8)
    if not owns(probe) and not _cache_is_off():
        bridge.uninstall()
        raise RuntimeError(
            f"NumPy {np.__version__} does not follow its default allocator; "
            "use `with zk_nalloc.numpy.allocator():` instead"
        )


def uninstall() -> None:
    """Undo `install`.

    Arrays on the cache live on, and give their memory back to it.
    """
    _bridge().uninstall()


def installed() -> bool:
    """Tell whether `install` is in force.

    Returns
    -------
    bool
        False also where NumPy has never been asked for.
    """
    return _bridge.cache_info().currsize > 0 and bool(_bridge().installed())


@contextlib.contextmanager
def allocator() -> Iterator[None]:
    """Put arrays that this thread or task makes inside of the block on the cache.

    The choice is kept in a context variable: other threads and tasks do not see
    it, except those that copy the context.  Blocks may be nested, and may stand
    inside of another allocator's, which then gets the requests below 64 KiB.

    Yields
    ------
    None

    Raises
    ------
    ModuleNotFoundError
        NumPy is not installed; the message says how to get it.
    ImportError
        NumPy is older than 2.0.

    Examples
    --------
    >>> import numpy as np
    >>> with allocator():
    ...     columns = np.arange(1 << 20)
    >>> owns(columns), owns(columns + 1)
    (True, False)
    """
    bridge = _bridge()
    before = bridge.swap(bridge.layered())
    try:
        yield
    finally:
        bridge.swap(before)


def owns(array: NDArray[Any]) -> bool:
    """Tell whether an array's data, or what it is a view of, lies in the cache.

    Parameters
    ----------
    array
        Any array.

    Returns
    -------
    bool
        False for what the system allocator holds, as it does below 64 KiB.
    """
    address = array.__array_interface__["data"][0]
    return lib.zkn_owns(ffi.cast("void *", address))


def _cache_is_off() -> bool:
    """Tell whether the library itself passes large requests on to the system."""
    pointer = lib.zkn_alloc(lib.ZKN_THRESHOLD)
    owned = lib.zkn_owns(pointer)
    lib.zkn_free(pointer)
    return not owned
