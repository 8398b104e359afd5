# SPDX-License-Identifier: MIT OR Apache-2.0
"""One step after another from a function to its caller, whatever the files say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_instruction_of_call_frame_information(native: Callable[..., str]) -> None:
    assert native("steps", "cfi") == ""


@pytest.fixture
def unwind_fuzz(native: Callable[..., str]) -> Callable[..., dict[str, int]]:
    def run(*arguments: str) -> dict[str, int]:
        parts = ("cfi", "space", "tally", "unwind")
        words = native("unwind_fuzz", *parts, arguments=arguments).split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))

    return run


def test_random_walks_stay_within_their_bounds(
    unwind_fuzz: Callable[..., dict[str, int]],
) -> None:
    counts = unwind_fuzz("60000")
    assert counts["walks"] == 120000
    assert all(n > 100 for n in counts.values()), counts


def test_a_long_program_is_not_run(unwind_fuzz: Callable[..., dict[str, int]]) -> None:
    """A file may hold 256 MiB of it, for each step: a walk has a limit."""
    plain = unwind_fuzz("long", "0")
    assert plain["frames"] > 2
    assert not plain["guessed"]
    assert unwind_fuzz("long", "4000") == plain
    assert unwind_fuzz("long", "600000")["guessed"]
