# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a program may tell the cache, and what its environment told it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from zk_nalloc._lib import lib

__all__ = ["Option", "options", "release_cache", "soften_cache", "stage_boundary"]

_OPTION: Final = re.compile(
    r"(?P<name>\w+)=(?P<value>.*) \(default (?P<default>[^()]*)\): (?P<help>.*)"
)


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of the library, read from the environment when it starts."""

    name: str
    """The environment variable."""
    value: str
    """The value in force."""
    default: str
    """The value without the variable."""
    help: str
    """What it does."""


def options() -> tuple[Option, ...]:
    """List the library's options with the values in force.

    Returns
    -------
    tuple of Option
        One for each environment variable that the library knows.

    Examples
    --------
    >>> [option.name for option in options()][0]
    'ZK_NALLOC_CACHE_BYTES'
    """
    with os.fdopen(os.memfd_create("zk-nalloc-options"), "w+b") as file:
        error = lib.zkn_options_print(file.fileno())
        if error:
            raise OSError(-error, os.strerror(-error))
        file.seek(0)
        lines = file.read().decode(errors="surrogateescape").splitlines()
    return tuple(
        Option(**match.groupdict()) for line in lines if (match := _OPTION.fullmatch(line))
    )


def soften_cache() -> int:
    """Offer the cached memory to the kernel, and keep it warm until it is taken.

    The kernel takes it (`MADV_FREE`) only when memory runs short; what it has
    not taken costs nothing to use again.

    Returns
    -------
    int
        The bytes offered.
    """
    return lib.zkn_soften_cache()


def release_cache() -> int:
    """Give the cached memory back to the kernel now.

    Resident memory is that of live buffers afterwards.

    Returns
    -------
    int
        The bytes given back.
    """
    return lib.zkn_release_cache()


def stage_boundary() -> int:
    """Say that a stage of the program has ended.

    Gives the cached memory back, as `release_cache` does, and forgets the
    high-water mark of live bytes, which bounds what the cache may keep: what
    comes next sets its own. For a node that waits for its next block, or
    between a prover's set-up and its proofs.

    Returns
    -------
    int
        The bytes given back.
    """
    return lib.zkn_stage_boundary()
