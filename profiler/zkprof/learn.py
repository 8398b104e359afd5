# SPDX-License-Identifier: MIT OR Apache-2.0
"""Classifying kernel call chains where the kernel hides its symbols.

Chains of addresses may be sampled without the right to know their names
(``kptr_restrict``, or CAP_PERFMON without CAP_SYSLOG).  But a call always
returns to the same address.  So zkprof does, one after another, what it wants
to recognise later, samples itself doing it, and learns which addresses occur
there and nowhere else: on the way in by a page fault, in munmap(), where an
anonymous page is filled in, and so on.  No kernel version or processor is
assumed.

What it cannot do to itself it cannot learn: swapping, NUMA migration.  Such
faults stay of unknown kind.  What time was spent *on* (zeroing, say) shows in
the innermost function, which is not returned to, and stays unknown too.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from .classify import Classifier, NoKernelSymbolsError, default_rules
from .sampler import Sampler, chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_RATE_HZ = 4999.0
_LEN = 8 << 20
_PAGE = mmap.PAGESIZE
# Of each thing to be done: until so many chains are there, or so much time.
_CHAINS, _BUDGET_S = 150, 0.25
_FEWEST_CHAINS = 20
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

# An address is typical of what it occurs in this often, and nearly never else.
_OFTEN, _RARELY = 0.5, 0.02
# The ways in are in every chain, and where zkprof itself calls ioctl().
_STRAYS = 0.1
# Where a page is filled in there are many paths: a few occurrences are enough.
_SEEN = 0.03

Chains = list[tuple[int, ...]]
Shares = dict[int, float]


@dataclass(frozen=True, slots=True)
class _Deed:
    """Something to be recognised: what is prepared, and what is sampled."""

    role: str
    """What it teaches; "" for deeds that only show what others are not."""
    do: Callable[[], Iterator[None]]
    """Yields twice: when prepared, and when done."""


def _touch(memory: mmap.mmap) -> None:
    for i in range(0, len(memory), _PAGE):
        memory[i] = 1


def _read(memory: mmap.mmap) -> None:
    for i in range(0, len(memory), _PAGE):
        memory[i]


def _small_pages(flags: int = 0) -> mmap.mmap:
    memory = mmap.mmap(-1, _LEN, flags=_PRIVATE | flags)
    with suppress(OSError):  # a kernel that has none
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _anon() -> Iterator[None]:
    with closing(_small_pages()) as memory:
        yield
        _touch(memory)
        yield


def _cow() -> Iterator[None]:
    """Write what was read before: reading maps the one page of zeros."""
    with closing(_small_pages()) as memory:
        _read(memory)
        yield
        _touch(memory)
        yield


def _file() -> Iterator[None]:
    fd = os.memfd_create("zkprof", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, _LEN)
        with closing(mmap.mmap(fd, _LEN, flags=mmap.MAP_SHARED)) as memory:
            memory.madvise(mmap.MADV_RANDOM)
            yield
            _read(memory)
            yield
    finally:
        os.close(fd)


def _populate() -> Iterator[None]:
    yield
    memory = _small_pages(mmap.MAP_POPULATE)
    yield
    memory.close()


def _unmap() -> Iterator[None]:
    memory = _small_pages()
    _touch(memory)
    yield
    memory.close()
    yield


def _madvise() -> Iterator[None]:
    with closing(_small_pages()) as memory:
        _touch(memory)
        yield
        memory.madvise(mmap.MADV_DONTNEED)
        yield


def _mmap() -> Iterator[None]:
    yield
    memories = [mmap.mmap(-1, _PAGE, flags=_PRIVATE) for _ in range(500)]
    yield
    for memory in memories:
        memory.close()


def _mprotect() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    with closing(_small_pages()) as memory:
        _touch(memory)
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        del view
        yield
        for protection in (1, 3) * 100:
            libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_LEN), protection)
        yield


def _other() -> Iterator[None]:
    fd = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
    buffer = bytearray(1 << 16)
    os.readv(fd, [buffer])
    yield
    for _ in range(500):
        os.readv(fd, [buffer])
        os.getppid()
    yield
    os.close(fd)


_FAULTS = (_Deed("anon", _anon), _Deed("cow", _cow), _Deed("file", _file))
_CALLS = (
    _Deed("populate", _populate),
    _Deed("unmap", _unmap),
    _Deed("madvise", _madvise),
    _Deed("mmap", _mmap),
    _Deed("mmap", _mprotect),
    _Deed("", _other),
)


@cache
def learned_classifier() -> Classifier:
    """Learn where this kernel's functions are (takes a second or two, once).

    Raises
    ------
    PerfUnavailableError
        This user may not sample the kernel.
    NoKernelSymbolsError
        Too little was seen to learn from.
    """
    chains = [(deed.role, _chains(deed)) for deed in (*_FAULTS, *_CALLS)]
    if any(role and len(found) < _FEWEST_CHAINS for role, found in chains):
        msg = "the kernel's symbols are hidden, and sampling zkprof itself showed too little"
        raise NoKernelSymbolsError(msg)
    roles = learn_roles(chains[: len(_FAULTS)], chains[len(_FAULTS) :])
    return Classifier.from_calls(roles)


def _chains(deed: _Deed) -> Chains:
    """Return the kernel's call chains while this thread does something."""
    tid = threading.get_native_id()
    found: Chains = []
    end = time.thread_time() + _BUDGET_S
    with Sampler(os.getpid(), _RATE_HZ, learn=True) as sampler:
        sampler.enable(on=False)
        while len(found) < _CHAINS and time.thread_time() < end:
            doing = deed.do()
            next(doing)
            sampler.enable(on=True)
            next(doing)
            sampler.enable(on=False)
            for _ in doing:
                raise AssertionError
            sampler.drain()
            nodes = sampler.nodes()
            found = []
            for stack in sampler.stacks():
                if stack.tid == tid and stack.node:
                    # The innermost address is where the CPU was: no call returns there.
                    found += [chain(nodes, stack.node)[1:]] * stack.count
    return found


def learn_roles(
    faults: Iterable[tuple[str, Chains]], calls: Iterable[tuple[str, Chains]]
) -> dict[int, int]:
    """Return the roles of addresses, from chains of page faults and of system calls.

    Parameters
    ----------
    faults, calls
        What was done, as the role that it has, and its chains without their
        innermost address.
    """
    bit = default_rules().roles
    fault_shares = [(role, _shares(chains)) for role, chains in faults]
    call_shares = [(role, _shares(chains)) for role, chains in calls]
    learned: defaultdict[int, int] = defaultdict(int)

    def most(address: int, others: Iterable[tuple[str, Shares]]) -> float:
        return max((shares.get(address, 0.0) for _, shares in others), default=0.0)

    for address in {a for _, shares in fault_shares for a in shares}:
        everywhere = min(shares.get(address, 0.0) for _, shares in fault_shares)
        if everywhere > _OFTEN and most(address, call_shares) < _STRAYS:
            learned[address] |= bit["fault"]
    for address in {a for _, shares in call_shares for a in shares}:
        everywhere = min(shares.get(address, 0.0) for _, shares in call_shares)
        if everywhere > _OFTEN and most(address, fault_shares) < _STRAYS:
            learned[address] |= bit["entry"]

    for role, shares in fault_shares:
        others = [other for other in fault_shares if other[0] != role]
        for address, share in shares.items():
            if share >= _SEEN and not most(address, others):
                learned[address] |= bit[role]
    for role, shares in call_shares:
        # What populates has also been mapped.
        others = [
            other
            for other in (*fault_shares, *call_shares)
            if other[0] != role and not (role == "mmap" and other[0] == "populate")
        ]
        for address, share in shares.items() if role else ():
            if share > _OFTEN and most(address, others) < _RARELY:
                learned[address] |= bit[role]
    return dict(learned)


def _shares(chains: Chains) -> Shares:
    """Return in which share of the chains each address is."""
    counts = Counter(address for one in chains for address in set(one))
    return {address: n / len(chains) for address, n in counts.items()}
