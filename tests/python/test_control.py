# SPDX-License-Identifier: MIT OR Apache-2.0
"""Statistics, options and cache control."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

import pytest

import zk_nalloc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Python = Callable[..., CompletedProcess[str]]

MIB = 1 << 20


def rows_of_header(root: Path) -> list[tuple[str, str]]:
    """Return (name, meaning) of each row of ZKN_STATS_LIST."""
    header = (root / "libzknalloc/include/zknalloc.h").read_text()
    return re.findall(r'X\((?:COUNTER|GAUGE|PEAK), (\w+),[\s\\]*"(.*?)"\)', header)


def test_stats_has_the_rows_of_the_header(root: Path) -> None:
    rows = rows_of_header(root)
    assert len(rows) > 20
    names = [field.name for field in dataclasses.fields(zk_nalloc.Stats)]
    assert names == [name for name, _ in rows] + ["cache_bytes", "classes"]


def test_stats_documents_the_rows_in_the_words_of_the_header(root: Path) -> None:
    source = (root / "zk_nalloc/_stats.py").read_text()
    for name, meaning in rows_of_header(root):
        assert f'    {name}: int\n    """{meaning[0].upper()}{meaning[1:]}."""\n' in source


def test_stats_is_a_value() -> None:
    stats = zk_nalloc.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.hits = 1  # type: ignore[misc]
    plain = stats.to_dict()
    assert json.loads(json.dumps(plain)) == {
        **plain,
        "classes": [dict(row) for row in plain["classes"]],
    }
    assert plain["hits"] == stats.hits
    plain["hits"] = -1
    assert stats.hits >= 0


def test_stats_counts_this_process() -> None:
    zk_nalloc.release_cache()
    before = zk_nalloc.stats()
    row = next(i for i, row in enumerate(before.classes) if row.size == 8 * MIB)
    for _ in range(10):
        with zk_nalloc.alloc(9 * MIB) as buffer:
            live = zk_nalloc.stats().live_now
            memoryview(buffer)[::4096] = bytes(9 * MIB // 4096)
    after = zk_nalloc.stats()
    assert live >= before.live_now + 9 * MIB
    assert after.live_now == before.live_now
    assert after.frees - before.frees == 10
    served = after.hits + after.misses - before.hits - before.misses
    assert served == 10
    assert after.hits - before.hits == 9
    in_class = after.classes[row].hits - before.classes[row].hits
    assert in_class == 9


def test_hit_rate() -> None:
    row = zk_nalloc.ClassStats(size=64 * 1024, hits=3, misses=1)
    assert row.hit_rate == 0.75
    assert zk_nalloc.ClassStats(size=64 * 1024, hits=0, misses=0).hit_rate is None


def test_hit_rate_without_requests(python: Python) -> None:
    done = python(code="import zk_nalloc; print(zk_nalloc.stats().hit_rate)")
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_release_and_soften() -> None:
    zk_nalloc.release_cache()
    with zk_nalloc.alloc(16 * MIB) as buffer:
        memoryview(buffer)[::4096] = b"\1" * (16 * MIB // 4096)
    before = zk_nalloc.stats()
    assert before.cached_now >= 16 * MIB
    softened = zk_nalloc.soften_cache()
    assert softened >= 16 * MIB
    assert zk_nalloc.stats().bytes_softened - before.bytes_softened == softened
    released = zk_nalloc.release_cache()
    after = zk_nalloc.stats()
    assert released >= 16 * MIB
    assert after.bytes_released - before.bytes_released == released
    assert after.cached_now == 0


def test_stage_boundary() -> None:
    with zk_nalloc.alloc(16 * MIB):
        pass
    assert zk_nalloc.stats().cached_now >= 16 * MIB
    assert zk_nalloc.stage_boundary() >= 16 * MIB
    assert zk_nalloc.stats().cached_now == 0


def beyond_the_budget() -> int:
    """Have holes that are of no use; return the bytes kept beyond this stage's budget."""
    small = [zk_nalloc.alloc(MIB // 4) for _ in range(160)]
    del small[::2]
    large = [zk_nalloc.alloc(MIB) for _ in range(20)]
    now = zk_nalloc.stats()
    small.clear()
    large.clear()
    return now.committed_now - (now.live_now + now.live_now // 24 + 8 * MIB)


def test_stage_boundary_forgets_the_high_water_mark() -> None:
    zk_nalloc.alloc(256 * MIB).close()
    zk_nalloc.release_cache()
    assert beyond_the_budget() > 0
    zk_nalloc.stage_boundary()
    assert beyond_the_budget() <= 0


def test_what_is_live_at_a_stage_boundary_may_be_kept() -> None:
    live = [zk_nalloc.alloc(16 * MIB) for _ in range(4)]
    zk_nalloc.stage_boundary()
    live.clear()
    assert zk_nalloc.stats().cached_now >= 64 * MIB
    zk_nalloc.release_cache()


def test_options(python: Python) -> None:
    options = {option.name: option for option in zk_nalloc.options()}
    assert options["ZK_NALLOC_CACHE_BYTES"].value == "auto"
    assert all(option.help for option in options.values())
    code = """if True:
        import zk_nalloc
        print({option.name: option.value for option in zk_nalloc.options()}[
            "ZK_NALLOC_CACHE_BYTES"], zk_nalloc.alloc(1 << 20).closed,
            zk_nalloc.stats().cache_bytes)
    """
    done = python(code=code, ZK_NALLOC_CACHE_BYTES="3M")
    assert (done.stdout, done.stderr) == (f"{3 * MIB} False {3 * MIB}\n", "")


def test_options_lists_every_row_of_the_table(root: Path) -> None:
    table = (root / "libzknalloc/src/options.h").read_text()
    assert [option.name for option in zk_nalloc.options()] == re.findall(
        r'"(ZK_NALLOC_\w+)"', table
    )


def test_version(root: Path) -> None:
    header = (root / "libzknalloc/include/zknalloc.h").read_text()
    parts = re.findall(r"#define ZKN_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header)
    assert zk_nalloc.version == zk_nalloc.__version__ == ".".join(parts)


def test_a_title_over_the_environment_spares_the_stats_file(
    python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """Redis and PostgreSQL write their title over the memory that getenv() pointed to."""
    path = tmp_path / "stats"
    code = """
import ctypes, os, zk_nalloc
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_void_p
name = "ZK_NALLOC_STATS_FILE"
ctypes.memset(getenv(name.encode()), ord("x"), len(os.environ[name]))
"""
    done = python(code=code, ZK_NALLOC_STATS_FILE=str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert '"hits":' in path.read_text()
