# SPDX-License-Identifier: MIT OR Apache-2.0
"""`SecretBuf`: memory for keys and witnesses, and what it does not protect.

The C library does the protecting (`zknalloc.h`, "secrets"); this module sees
to it that Python code cannot undo it by accident.  A `SecretBuf` is a part of
the `Memory` that destroys the C secret, so that views, garbage collection and
closing follow the rules of every other buffer.

Access is switched in an order that no view can notice: taken away from new
views first and from the pages then, given back to the pages first; and only
while no view is alive that could trap.

The module keeps a weak list of the secrets that are open, and wipes them when
the interpreter exits; the library itself wipes what is left when the process
does.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import math
import mmap
import os
import resource
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Self, SupportsIndex

from zk_nalloc._lib import ffi, lib
from zk_nalloc._memory import Memory
from zk_nalloc._owned import Guard, Owned, address_of, checked, plural

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from zk_nalloc._native import _Pointer

    Access = Literal["no-access", "read-only", "read-write"]

__all__ = ["SecretBuf"]

_DESTROY: Final = address_of("zkn_secret_destroy")
_ACCESS: Final = {
    "no-access": lib.ZKN_SECRET_NO_ACCESS,
    "read-only": lib.ZKN_SECRET_READ_ONLY,
    "read-write": lib.ZKN_SECRET_READ_WRITE,
}


class SecretBuf(Owned):
    r"""Memory for a secret: a writable buffer, zero at first.

    It lies between two guard pages, is kept out of swap and core dumps, reads
    as zeros in forked children, and is wiped when it is closed, when it is
    garbage-collected, and when the interpreter exits.  What the kernel grants
    of that is reported by `locked`, `secret_memory`, `dontdump` and
    `wipe_on_fork`.

    Parameters
    ----------
    nbytes
        The size, 0 or more.
    require_lock
        Whether to fail where the memory cannot be kept out of swap.

    Raises
    ------
    OSError
        With `require_lock`: the kernel refuses to lock the memory.  The
        message names the limit (`RLIMIT_MEMLOCK`), what is needed, and how to
        raise it.
    ValueError
        `nbytes` is negative.
    OverflowError
        `nbytes` is larger than an address can be.
    MemoryError
        There is not that much memory.

    Notes
    -----
    What this cannot protect:

    - *Copies.* ``bytes(secret)``, slices of a `memoryview` that are converted,
      integers made of the content, and NumPy arrays computed from it are
      ordinary memory.  Compute in place, on views.
    - *The source.* What `from_bytes` is given stays where it was; `bytes` and
      `str` cannot be wiped at all.  Read secrets straight into a `SecretBuf`:
      ``file.readinto(secret)``.
    - *Registers, stacks, caches* of the processor that the content passes
      through, and callers' own buffers that are swapped out.
    - *Comparisons* other than `compare`: they stop at the first difference.
    - *A process that is killed* does not wipe; the kernel clears the pages
      before it hands them to somebody else.  A hibernated machine writes what
      is locked to disk, unless `secret_memory` holds.
    - Whoever runs code in this process.

    A child of `os.fork` has the object, with zeros in it.

    Examples
    --------
    >>> with SecretBuf.from_bytes(b"correct horse") as secret:
    ...     secret.compare(b"correct horse"), secret.compare(b"correct house")
    (True, False)
    >>> secret.closed
    True
    """

    __slots__ = ("_handle", "_lock", "_protection", "_root")

    _handle: _Pointer
    _lock: Guard
    _protection: Access
    _root: Memory

    def __new__(cls, nbytes: SupportsIndex, *, require_lock: bool = False) -> Self:
        """Allocate; see the class."""
        size = checked("nbytes", nbytes)
        handle = lib.zkn_secret_create(size, lib.ZKN_SECRET_REQUIRE_LOCK if require_lock else 0)
        if handle == ffi.NULL:
            code = ffi.errno
            if require_lock:
                raise _lock_error(code, size)
            raise MemoryError(f"cannot allocate a secret of {size} bytes")
        try:
            root = Memory(address_of(handle), 0, _DESTROY)
        except BaseException:
            lib.zkn_secret_destroy(handle)
            raise
        self = super().__new__(cls, address_of(lib.zkn_secret_data(handle)), size, root)
        self._handle = handle
        self._root = root
        self._protection = "read-write"
        self._lock = Guard("secret")
        _open_secrets.add(self)
        return self

    @classmethod
    def from_bytes(cls, data: Buffer, *, require_lock: bool = False) -> Self:
        """Make a secret of a copy of `data`, which stays as it is.

        Parameters
        ----------
        data
            Any contiguous buffer.
        require_lock
            As for the class.

        Returns
        -------
        SecretBuf
            The secret, as long as `data`.

        Examples
        --------
        >>> seed = bytearray(32)
        >>> secret = SecretBuf.from_bytes(seed)
        >>> seed[:] = bytes(32)  # where the source can be wiped, do
        >>> len(secret)
        32
        """
        with memoryview(data) as source, source.cast("B") as source_bytes:
            self = cls(source.nbytes, require_lock=require_lock)
            with memoryview(self) as target:
                target[:] = source_bytes
        return self

    # ---------------------------------------------------------------- content

    def compare(self, other: Buffer) -> bool:
        """Tell whether the content equals that of another buffer.

        The time that takes depends on the sizes alone, not on the content.

        Parameters
        ----------
        other
            Any contiguous buffer, another secret too.

        Returns
        -------
        bool
            Whether sizes and contents are equal.
        """
        with memoryview(self) as left, memoryview(other) as right:
            if left.nbytes != right.nbytes:
                return False
            return lib.zkn_secret_equal(ffi.from_buffer(left), ffi.from_buffer(right), left.nbytes)

    def wipe(self) -> None:
        """Overwrite the content with zeros, whatever the protection.

        Views stay valid and read zeros.

        Raises
        ------
        ValueError
            The secret is closed, and wiped.
        """
        with self._lock:
            self._check_open()
            _check(lib.zkn_secret_wipe(self._handle))

    def close(self) -> None:
        """Wipe the content and give the memory back to the kernel.

        Closing a closed secret does nothing.

        Raises
        ------
        BufferError
            Views of the memory are alive; the message says how many.  The
            secret stays open and is not wiped.
        """
        with self._lock:
            super().close()
            self._root.close()

    # ------------------------------------------------------------- protection

    @property
    def protection(self) -> Access:
        """What the pages allow: ``"no-access"``, ``"read-only"`` or ``"read-write"``."""
        return self._protection

    def protect(self, access: Access) -> None:
        """Change what the pages allow.

        The processor enforces it, against C code and stray pointers, too: they
        raise `SIGSEGV`.  Python code sees `BufferError` where it asks for a view
        without access, and `TypeError` where it writes to a read-only one.

        Parameters
        ----------
        access
            ``"no-access"``, ``"read-only"`` or ``"read-write"``.

        Raises
        ------
        BufferError
            Views are alive that could do more than that; the message says how
            many.

        Examples
        --------
        >>> secret = SecretBuf.from_bytes(b"key")
        >>> secret.protect("no-access")
        >>> memoryview(secret)
        Traceback (most recent call last):
        BufferError: access is switched off
        >>> secret.protect("read-only")
        >>> memoryview(secret).readonly
        True
        """
        if access not in _ACCESS:
            raise ValueError(f"access must be one of {', '.join(_ACCESS)}; got {access!r}")
        wanted = _ACCESS[access]
        with self._lock:
            self._check_open()
            now = _ACCESS[self._protection]
            if wanted < now and (views := self._restrict(wanted)):
                raise BufferError(
                    f"cannot change to {access}: {plural(views)} of this secret "
                    f"{'is' if views == 1 else 'are'} alive"
                )
            try:
                _check(lib.zkn_secret_protect(self._handle, wanted))
            except OSError:
                self._restrict(now)
                raise
            self._restrict(wanted)
            self._protection = access

    # ------------------------------------------------------ what was achieved

    @property
    def locked(self) -> bool:
        """Whether the memory is never written to swap."""
        return self._has(lib.ZKN_SECRET_LOCKED)

    @property
    def secret_memory(self) -> bool:
        """Whether it is of `memfd_secret`: not even the kernel's to read."""
        return self._has(lib.ZKN_SECRET_MEMFD)

    @property
    def dontdump(self) -> bool:
        """Whether it is left out of core dumps."""
        return self._has(lib.ZKN_SECRET_DONTDUMP)

    @property
    def wipe_on_fork(self) -> bool:
        """Whether the kernel keeps it from every child process."""
        return self._has(lib.ZKN_SECRET_WIPE_ON_FORK)

    def __repr__(self) -> str:
        """Describe the secret, not its content."""
        if self.closed:
            return super().__repr__()
        names = ("locked", "secret_memory", "dontdump", "wipe_on_fork")
        achieved = ", ".join(name for name in names if getattr(self, name))
        return (
            f"<{type(self).__name__} of {self.nbytes} bytes, {self._protection}, "
            f"{achieved or 'unprotected'}>"
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            f"cannot pickle or copy a {type(self).__name__}: it keeps its content in one place"
        )

    # ---------------------------------------------------------------- private

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("operation on a closed secret")

    def _has(self, flag: int) -> bool:
        with self._lock:
            self._check_open()
            return bool(lib.zkn_secret_info(self._handle) & flag)


_open_secrets: Final[weakref.WeakSet[SecretBuf]] = weakref.WeakSet()


@atexit.register
def _wipe_at_exit() -> None:
    for secret in list(_open_secrets):
        # A failure must not spare the others; the library tries once more.
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            secret.wipe()


def _check(error: int) -> None:
    if error:
        raise OSError(-error, os.strerror(-error))


def _locked_bytes() -> int:
    """Return what this process has locked, as the kernel counts it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmLck:"):
            return int(line.split()[1]) * 1024
    return 0


def _lock_error(code: int, size: int) -> OSError | MemoryError:
    """Say why a secret of `size` bytes cannot be locked, and what helps."""
    limit, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    pages = max(1, math.ceil(size / mmap.PAGESIZE)) * mmap.PAGESIZE
    locked = _locked_bytes()
    needed = locked + pages
    if limit == resource.RLIM_INFINITY or needed <= limit:
        # Something else: no memory at all, or a filter of system calls.
        if code == errno.ENOMEM:
            return MemoryError(f"cannot allocate a locked secret of {size} bytes")
        return OSError(
            code, f"the kernel refuses to lock {pages} bytes in RAM: {os.strerror(code)}"
        )
    shell = f"`ulimit -l {math.ceil(needed / 1024)}`"
    if most != resource.RLIM_INFINITY and needed > most:
        shell += " (as root: the hard limit is lower)"
    return OSError(
        code,
        f"cannot lock {pages} bytes in RAM: RLIMIT_MEMLOCK is {limit} bytes now, of which "
        f"{locked} are in use, and {needed} are needed; raise it with {shell}, with "
        f"LimitMEMLOCK={needed} in a systemd unit, with `memlock` in /etc/security/limits.conf, "
        f"or with `docker run --ulimit memlock={needed}`",
    )
