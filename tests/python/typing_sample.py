# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a typed program may rely on; test_typing.py has mypy check it."""

from collections.abc import Buffer as HasBuffer
from pathlib import Path
from typing import Any, assert_type

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
assert_type(zk_nalloc.soften_cache() + zk_nalloc.stage_boundary(), int)
assert_type([option.value for option in zk_nalloc.options()], list[str])
assert_type(zk_nalloc.preload_path(), Path)
assert_type(zk_nalloc.version, str)
stats.hits = 1  # type: ignore[misc]  # frozen
zk_nalloc.alloc("10")  # type: ignore[arg-type]
