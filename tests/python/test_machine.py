# SPDX-License-Identifier: MIT OR Apache-2.0
"""All objects of zk_nalloc at once, in any order, against a model of each.

The other machines (`test_buffer.py`, `test_arena.py`, `test_numpy_handler.py`)
take one kind of object apart.  This one lets them share the cache: what a
secret's neighbour, an arena's phase or a resized array does must show in no
other object, and in the counters just as the model says.

The quick profile of hypothesis always tries the same histories;
`--hypothesis-profile=long` tries other and more of them and prints how to repeat
one that fails (`tests/conftest.py`).  Each history begins with an empty cache, or
what earlier ones left in memory would decide whether it fails.  What magazines of
which CPU remember cannot be reset: a failure called flaky is one all the same.
"""

from __future__ import annotations

import functools
import gc
import sys
import traceback
from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import errors, settings, stateful
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import zk_nalloc
from zk_nalloc import Arena, Buffer, SecretBuf

KIB = 1024
LARGE = 64 * KIB  # from here on the cache serves
sizes = st.one_of(
    st.integers(0, 200),
    st.integers(LARGE - 70, LARGE + 70),
    st.sampled_from([2 * LARGE, 3 * LARGE]),  # what was freed of that size is had again
    st.integers(LARGE, 700 * KIB),
)
capacities = st.integers(LARGE, 600 * KIB)
secret_sizes = st.integers(0, 9000)
indices = st.integers(0, 1 << 16)
fills = st.integers(1, 255)


tidy = functools.cache(gc.collect)  # once: what other tests left; histories leave nothing


@dataclass
class Held:
    """A block, what fills it, and its views, innermost last."""

    block: Buffer | SecretBuf
    fill: int
    views: list[memoryview] = field(default_factory=list)

    def check(self) -> None:
        assert self.block.views == len(self.views)
        for view in self.views:
            assert bytes(view[:2]) == bytes([self.fill]) * min(2, len(view))
        if isinstance(self.block, SecretBuf) and self.block.protection == "no-access":
            return
        with memoryview(self.block) as view:
            if view:
                assert view[0] == view[len(view) // 2] == view[-1] == self.fill


@dataclass
class Level:
    """What was allocated since the arena's reset, or since a phase began."""

    mark: int
    """How much of the arena was in use then."""
    phase: zk_nalloc.Phase | None = None
    ended: bool = False
    columns: list[tuple[np.ndarray, int]] = field(default_factory=list)
    """Arrays that are alive, and what fills them."""


class Everything(RuleBasedStateMachine):
    """Buffers, secrets, one arena with phases, arrays, and the cache's controls."""

    def __init__(self) -> None:
        super().__init__()
        tidy()
        zk_nalloc.stage_boundary()
        self.buffers: list[Held] = []
        self.secrets: list[Held] = []
        self.arrays: list[tuple[np.ndarray, int]] = []
        self.arena: Arena | None = None
        # The arena's own, then phases that are open or were left under arrays.
        self.levels = [Level(0)]
        self.used = self.peak = 0
        self.before = zk_nalloc.stats()
        self.requests = 0

    @stateful.initialize(capacity=capacities, nbytes=secret_sizes, fill=fills)
    def start(self, capacity: int, nbytes: int, fill: int) -> None:
        """Have what most rules need: few histories would come to it by chance."""
        self.build(capacity)
        self.conceal(nbytes, fill)

    # ----------------------------------------------------------- buffers

    def made(self, nbytes: int, fill: int, *, zeroed: bool, alignment: int) -> Buffer:
        buffer = zk_nalloc.alloc(nbytes, zeroed=zeroed, alignment=alignment)
        self.requests += nbytes >= LARGE
        assert buffer.address % alignment == 0
        with memoryview(buffer) as view:
            assert not zeroed or bytes(view) == bytes(nbytes)
            view[:] = bytes([fill]) * nbytes
        return buffer

    @rule(nbytes=sizes, fill=fills, zeroed=st.booleans(), shift=st.integers(0, 16))
    def allocate(self, nbytes: int, fill: int, shift: int, *, zeroed: bool) -> None:
        buffer = self.made(nbytes, fill, zeroed=zeroed, alignment=1 << shift)
        self.buffers.append(Held(buffer, fill))

    @precondition(lambda self: self.buffers)
    @rule(which=indices, nbytes=sizes, first=st.booleans())
    def move(self, which: int, nbytes: int, *, first: bool) -> None:
        """Do what realloc does by hand, and free the old block first or last."""
        held = self.buffers[which % len(self.buffers)]
        content = bytes(memoryview(held.block)[:nbytes])
        if first and not held.views:
            held.block.close()
        new = self.made(nbytes, held.fill, zeroed=False, alignment=64)
        with memoryview(new) as view:
            view[: len(content)] = content
        held.block, old = new, held.block
        if held.views:
            with pytest.raises(BufferError, match=f"{len(held.views)} view"):
                old.close()
            held.views.pop().release()
            for view in held.views:
                assert bytes(view[:2]) == bytes([held.fill]) * min(2, len(view))
                view.release()
            held.views.clear()
        old.close()
        with pytest.raises(ValueError, match="closed"):
            memoryview(old)

    @precondition(lambda self: self.buffers or self.secrets)
    @rule(which=indices, part=st.booleans())
    def view(self, which: int, *, part: bool) -> None:
        everyone = self.buffers + self.secrets
        held = everyone[which % len(everyone)]
        if isinstance(held.block, SecretBuf) and held.block.protection == "no-access":
            with pytest.raises(BufferError, match="access"):
                memoryview(held.block)
            return
        view = memoryview(held.block)
        held.views.append(view[len(view) // 2 :] if part else view)
        if part:
            view.release()

    @precondition(lambda self: any(held.views for held in self.buffers + self.secrets))
    @rule(which=indices, inner=indices)
    def unview(self, which: int, inner: int) -> None:
        viewed = [held for held in self.buffers + self.secrets if held.views]
        views = viewed[which % len(viewed)].views
        views.pop(inner % len(views)).release()

    @precondition(lambda self: self.buffers or self.secrets)
    @rule(which=indices)
    def close(self, which: int) -> None:
        everyone = self.buffers + self.secrets
        held = everyone[which % len(everyone)]
        if held.views:
            with pytest.raises(BufferError, match=f"{len(held.views)} view"):
                held.block.close()
            return
        held.block.close()
        assert held.block.closed
        self.forget(held)

    @precondition(lambda self: self.buffers or self.secrets)
    @rule(which=indices)
    def drop(self, which: int) -> None:
        everyone = self.buffers + self.secrets
        self.forget(everyone[which % len(everyone)])

    def forget(self, held: Held) -> None:
        self.buffers = [other for other in self.buffers if other is not held]
        self.secrets = [other for other in self.secrets if other is not held]

    # ----------------------------------------------------------- secrets

    @precondition(lambda self: len(self.secrets) < 4)
    @rule(nbytes=secret_sizes, fill=fills)
    def conceal(self, nbytes: int, fill: int) -> None:
        secret = SecretBuf(nbytes)
        with memoryview(secret) as view:
            assert bytes(view) == bytes(nbytes)
            view[:] = bytes([fill]) * nbytes
        self.secrets.append(Held(secret, fill))

    @precondition(lambda self: self.secrets)
    @rule(which=indices, access=st.sampled_from(["no-access", "read-only", "read-write"]))
    def protect(self, which: int, access: str) -> None:
        held = self.secrets[which % len(self.secrets)]
        ranks = {"no-access": 0, "read-only": 1, "read-write": 2}
        if held.views and ranks[access] < ranks[held.block.protection]:
            with pytest.raises(BufferError, match=f"{len(held.views)} view"):
                held.block.protect(access)
            return
        held.block.protect(access)
        if access != "no-access":
            with memoryview(held.block) as view:
                assert view.readonly == (access == "read-only")

    @precondition(lambda self: self.secrets)
    @rule(which=indices, other=sizes)
    def compare(self, which: int, other: int) -> None:
        held = self.secrets[which % len(self.secrets)]
        if held.block.protection != "no-access":
            content = bytes([held.fill]) * held.block.nbytes
            assert held.block.compare(content)
            assert held.block.compare(bytes(other)) == (content == bytes(other))
            if content:
                assert not held.block.compare(content[:-1] + bytes([held.fill ^ 1]))

    @precondition(lambda self: self.secrets)
    @rule(which=indices)
    def wipe(self, which: int) -> None:
        held = self.secrets[which % len(self.secrets)]
        held.block.wipe()
        held.fill = 0

    # ------------------------------------------------------------- arena

    @precondition(lambda self: self.arena is None)
    @rule(capacity=capacities)
    def build(self, capacity: int) -> None:
        self.arena = Arena(capacity)
        self.requests += 1
        self.peak = 0

    def settle(self) -> None:
        """Model: phases that have ended give their memory back once no array is in it."""
        while self.levels[-1].ended and not self.levels[-1].columns:
            self.used = self.levels.pop().mark

    def left(self, level: Level) -> int:
        """Return how many arrays are alive in a phase and those inside of it."""
        return sum(len(inner.columns) for inner in self.levels[self.levels.index(level) :])

    @precondition(lambda self: self.arena is not None)
    @rule(
        shape=st.tuples(st.integers(0, 6), st.integers(0, 4000)), fill=fills, zeroed=st.booleans()
    )
    def column(self, shape: tuple[int, int], fill: int, *, zeroed: bool) -> None:
        start = -(-self.used // 64) * 64
        end = start + max(2 * shape[0] * shape[1], 1)
        while self.levels[-1].ended:  # it would lie under what is new
            dissolved = self.levels.pop().columns
            self.levels[-1].columns += dissolved
        try:
            array = self.arena.alloc_array("u2", shape, zeroed=zeroed)
        except MemoryError:
            assert end > self.arena.capacity
            return
        assert end <= self.arena.capacity
        self.used, self.peak = end, max(self.peak, end)
        assert array.ctypes.data % 64 == 0
        assert not zeroed or not array.any()
        array[...] = 257 * fill
        if array.size:
            self.levels[-1].columns.append((array, 257 * fill))

    @precondition(lambda self: any(level.columns for level in self.levels))
    @rule(which=indices)
    def drop_column(self, which: int) -> None:
        filled = [level.columns for level in self.levels if level.columns]
        chosen = filled[which % len(filled)]
        del chosen[which % len(chosen)]
        self.settle()

    @precondition(lambda self: self.arena is not None and len(self.levels) < 6)
    @rule()
    def begin(self) -> None:
        level = Level(self.used, self.arena.phase())
        level.phase.__enter__()
        self.levels.append(level)

    @precondition(lambda self: not all(level.ended for level in self.levels[1:]))
    @rule(tidy=st.booleans())
    def end(self, *, tidy: bool) -> None:
        """End the innermost phase; arrays left in it are refused, and stay whole."""
        level = [level for level in self.levels[1:] if not level.ended][-1]
        if tidy:
            level.columns.clear()
        if left := self.left(level):
            with pytest.raises(BufferError, match=f"{left} view"):
                level.phase.__exit__(None, None, None)
        else:
            level.phase.__exit__(None, None, None)
        level.ended = True
        self.settle()

    @precondition(lambda self: self.arena is not None)
    @rule(close=st.booleans())
    def reset(self, *, close: bool) -> None:
        act = self.arena.close if close else self.arena.reset
        if views := self.left(self.levels[0]):
            with pytest.raises(BufferError, match=f"{views} view"):
                act()
            return
        regions = zk_nalloc.stats().regions_now
        act()
        assert zk_nalloc.stats().regions_now == regions - close
        self.levels, self.used = [Level(0)], 0
        if close:
            self.arena = None

    # ------------------------------------------------- arrays, and controls

    @rule(nbytes=sizes, fill=fills, zeroed=st.booleans(), shift=st.integers(0, 13))
    def array(self, nbytes: int, fill: int, shift: int, *, zeroed: bool) -> None:
        make = zk_nalloc.zeros if zeroed else zk_nalloc.empty
        array = make(nbytes, "u1", align=1 << shift)
        assert array.ctypes.data % (1 << shift) == 0
        assert not zeroed or not array.any()
        self.requests += zk_nalloc.numpy.owns(array)
        array[:] = fill
        self.arrays.append((array, fill))

    @precondition(lambda self: self.arrays)
    @rule(which=indices)
    def drop_array(self, which: int) -> None:
        del self.arrays[which % len(self.arrays)]

    @rule(
        act=st.sampled_from(
            [zk_nalloc.soften_cache, zk_nalloc.release_cache, zk_nalloc.stage_boundary]
        )
    )
    def control(self, act: object) -> None:
        assert act() >= 0
        now = zk_nalloc.stats()
        if act is zk_nalloc.soften_cache:
            assert now.soft_now == now.cached_now
        else:
            assert now.cached_now == 0

    # ----------------------------------------------------------- invariants

    @invariant()
    def contents_stay(self) -> None:
        for held in self.buffers + self.secrets:
            held.check()
        columns = [column for level in self.levels for column in level.columns]
        for array, fill in self.arrays + columns:
            assert array.size == 0 or array.min() == array.max() == fill

    @invariant()
    def the_arena_is_as_full_as_it_must_be(self) -> None:
        if self.arena is not None:
            assert self.arena.used == self.used
            assert self.arena.peak == self.peak
            assert self.arena.views == self.left(self.levels[0])

    @invariant()
    def the_books_balance(self) -> None:
        now = zk_nalloc.stats()
        owned = sum(held.block.nbytes >= LARGE for held in self.buffers)
        owned += sum(zk_nalloc.numpy.owns(array) for array, _ in self.arrays)
        owned += self.arena is not None
        assert now.regions_now == self.before.regions_now + owned
        assert now.live_now + now.cached_now == now.committed_now
        assert now.hits + now.misses == now.frees + now.regions_now
        since = now - self.before
        assert since.hits + since.misses == self.requests
        assert sum(row.hits for row in since.classes) == since.hits
        assert sum(row.misses for row in since.classes) == since.misses
        assert now.live_peak >= now.live_now
        assert now.cached_now <= now.live_peak + now.live_peak // 24 + (8 << 20)

    def teardown(self) -> None:
        if (failure := sys.exception()) and not isinstance(failure, errors.StopTest):
            # Its frames hold arrays, as does what NumPy leaves behind after showing one.
            traceback.clear_frames(failure.__traceback__)
            gc.collect()
        for held in self.buffers + self.secrets:
            for view in held.views:
                view.release()
            held.block.close()
        self.buffers.clear()
        self.arrays.clear()
        self.levels.clear()
        if self.arena is not None:
            self.arena.close()
        self.arena = None
        assert zk_nalloc.stats().regions_now == self.before.regions_now


Everything.TestCase.settings = settings(stateful_step_count=80)
test_everything = Everything.TestCase
