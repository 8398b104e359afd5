# SPDX-License-Identifier: MIT OR Apache-2.0
"""Who gives memory back: an allocator, or the program itself.

A program that maps its buffers by itself never asks malloc for them, so no
preloaded allocator can keep them for it, however much could be saved.  The
stacks of munmap and madvise tell: below an allocator's call there is a function
of libc or of an allocator's library, below the program's own there is none.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .model import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .model import Frame, Measurement

_GIVING = (Kind.UNMAP, Kind.MADVISE)
_SYSCALL = re.compile(r"_*(?:libc_)?(?:munmap|madvise|mmap|mmap64|mremap|syscall)")
_ALLOCATOR_MODULE = re.compile(
    r"(?:libc[.-]|ld-(?:linux|musl)|lib(?:zknalloc|jemalloc|mimalloc|tcmalloc|snmalloc|rpmalloc))"
)
# Linked into the program.
_ALLOCATOR_NAME = re.compile(
    r"(?:_rjem_|je_|_?mi_|tc_|tcmalloc::|sn_|zkn_)|"
    r"(?:free|cfree|malloc|calloc|realloc|operator delete|operator new)\b"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """How much of the time for giving memory back is the program's own calls."""

    own: float
    """0 to 1."""
    function: str
    """The function that makes most of them."""


def origin_of(m: Measurement) -> Origin | None:
    """Return who gives memory back; None where no stacks tell."""
    seconds = own = 0.0
    functions: Counter[str] = Counter()
    for stack in m.stacks:
        caller = _caller(m.frames[i] for i in reversed(stack.frames))
        if stack.kind not in _GIVING or caller is None:
            continue
        seconds += stack.seconds
        if not _is_allocator(caller):
            own += stack.seconds
            functions[caller.name] += stack.samples
    if not seconds:
        return None
    return Origin(own / seconds, functions.most_common(1)[0][0] if functions else "")


def _caller(innermost_first: Iterable[Frame]) -> Frame | None:
    """Return the function that made the system call."""
    return next((f for f in innermost_first if not _SYSCALL.fullmatch(f.name)), None)


def _is_allocator(frame: Frame) -> bool:
    return bool(_ALLOCATOR_MODULE.match(frame.module) or _ALLOCATOR_NAME.match(frame.name))
