# SPDX-License-Identifier: MIT OR Apache-2.0
"""How long it will take, from durations that are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from benches.provers.progress import Step
    from benches.provers.runner import Run


def run(size: int, setup: float, elapsed: float, *, threads: int = 1, proofs: int = 4) -> Run:
    """Return a run of which nothing but its duration counts."""
    from benches.provers.runner import Proof, Run

    made = tuple(Proof(i, 0.0, 0.0, 0.0, 0, True, 0) for i in range(proofs))
    return Run("fake", size, threads, "glibc", "", setup, made, None, elapsed)


def step(size: int, proofs: int, *, threads: int = 1) -> Step:
    from benches.provers.progress import Step
    from benches.provers.report import Case

    return Step(Case("fake", size, threads), "zknalloc", 0, proofs)


def test_what_processes_took_is_added_up(tmp_path: Path) -> None:
    from benches.provers.progress import Durations

    cache = tmp_path / "cache"
    assert Durations.load(cache).text([step(8, 2)]) == "not known yet: fake 8"
    Durations.load(cache).note(run(8, setup=3.0, elapsed=500.0))
    Durations.load(cache).note(run(8, setup=10.0, elapsed=30.0))  # the latest counts
    Durations.load(cache).note(run(16, setup=1.0, elapsed=29.0))
    found = Durations.load(cache)
    assert found.seconds([step(8, 2)]) == (10 + 2 * 5, [])
    assert found.seconds([step(8, 2), step(8, 6), step(16, 3)]) == (20 + 40 + 22, [])
    assert found.text([step(8, 2), step(16, 3)]) == "about 42 s"
    assert found.text([]) == "about 0 s"


def test_what_is_not_known_is_named_once(tmp_path: Path) -> None:
    from benches.provers.progress import Durations

    found = Durations.load(tmp_path)
    found.note(run(8, setup=10.0, elapsed=30.0))
    steps = [step(8, 2), step(32, 2), step(16, 2), step(32, 2)]
    assert found.text(steps) == "about 20 s; not known yet: fake 32, fake 16"
    assert found.text([step(8, 2, threads=2)]) == "not known yet: fake 8"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (89.4, "89 s"),
        (91.0, "2 min"),
        (5340.0, "89 min"),
        (5400.0, "1 h 30 min"),
        (2 * 3600 + 240.0, "2 h 04 min"),
        (30 * 3600 + 59 * 60.0, "30 h 59 min"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    from benches.provers.progress import clock

    assert clock(seconds) == text
