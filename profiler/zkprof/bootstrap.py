# SPDX-License-Identifier: MIT OR Apache-2.0
"""95 % intervals of shares, by drawing blocks of time again and again."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from ._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 1000


def shares(parts: Sequence[Sequence[float]], whole: Sequence[float]) -> list[tuple[float, float]]:
    """Return a 95 % interval for sum(part) / sum(whole), for each column.

    Parameters
    ----------
    parts
        One row per block of time, one column per part.
    whole
        What each block's parts are parts of.
    """
    n_blocks, n_cols = len(parts), len(parts[0])
    low, high = ffi.new("double[]", n_cols), ffi.new("double[]", n_cols)
    rc = lib.zkp_bootstrap(
        ffi.new("double[]", list(chain.from_iterable(parts))),
        ffi.new("double[]", list(whole)),
        n_blocks,
        n_cols,
        RESAMPLES,
        low,
        high,
    )
    if rc:
        raise MemoryError
    return [(low[i], high[i]) for i in range(n_cols)]
