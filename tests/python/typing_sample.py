# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a typed program may rely on; test_typing.py has mypy check it."""

from collections.abc import Buffer as HasBuffer
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import zk_nalloc


def reads(data: HasBuffer) -> int:
    """Take anything with the buffer protocol."""
    return memoryview(data).nbytes


with zk_nalloc.alloc(1 << 20, zeroed=True, alignment=4096) as buffer:
    assert_type(buffer, zk_nalloc.Buffer)
    assert_type(reads(buffer), int)
    assert_type(buffer.address, int)
    assert_type(buffer.closed, bool)


class Trace(zk_nalloc.Buffer):
    """Somebody's own."""


with Trace(10) as trace:
    assert_type(trace, Trace)

stats = zk_nalloc.stats()
assert_type(stats.hits, int)
assert_type(stats.hit_rate, float | None)
assert_type(stats.classes[0].hit_rate, float | None)
assert_type(stats.to_dict(), dict[str, Any])
with zk_nalloc.stats_delta() as phase:
    assert_type(phase, zk_nalloc.StatsDelta)
assert_type(phase.stats, zk_nalloc.Stats)
assert_type(stats - stats, zk_nalloc.Stats)
assert_type(zk_nalloc.soften_cache() + zk_nalloc.stage_boundary(), int)
assert_type([option.value for option in zk_nalloc.options()], list[str])
assert_type(zk_nalloc.preload_path(), Path)
assert_type(zk_nalloc.version, str)
column = zk_nalloc.empty((2, 3), np.uint64, align=4096)
assert_type(column, npt.NDArray[np.uint64])
assert_type(zk_nalloc.empty(3), npt.NDArray[np.float64])
assert_type(zk_nalloc.zeros(3, np.dtype(np.int32), "F"), npt.NDArray[np.int32])
assert_type(zk_nalloc.zeros(3, "u8"), npt.NDArray[Any])
assert_type(zk_nalloc.full(3, 7, np.uint8), npt.NDArray[np.uint8])
assert_type(zk_nalloc.full(3, 7), npt.NDArray[Any])
assert_type(zk_nalloc.empty_like(column), npt.NDArray[np.uint64])
assert_type(zk_nalloc.empty_like(column, np.int8, shape=5), npt.NDArray[np.int8])
assert_type(zk_nalloc.empty_like([1, 2], "u8"), npt.NDArray[Any])
with zk_nalloc.numpy.allocator():
    assert_type(zk_nalloc.numpy.owns(column), bool)
zk_nalloc.numpy.install()
assert_type(zk_nalloc.numpy.installed(), bool)
zk_nalloc.numpy.uninstall()

stats.hits = 1  # type: ignore[misc]  # frozen
zk_nalloc.empty(3, order="K")  # type: ignore[call-overload]
zk_nalloc.numpy.owns([1])  # type: ignore[arg-type]
zk_nalloc.alloc("10")  # type: ignore[arg-type]
