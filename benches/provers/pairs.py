# SPDX-License-Identifier: MIT OR Apache-2.0
"""Two settings side by side: processes of the same round.

A round is one process of each setting, minutes apart at most.  A machine that is some
percent slower an hour later is so for both, so ratios are taken within rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from .runner import Proof, Run

Warm = Sequence[Proof]
"""The warm proofs of one process: all but the first."""
Pair = tuple[Warm, Warm]
"""Those of two settings in one round."""


def pairs(runs: Sequence[Run], one: str, other: str) -> list[Pair]:
    """Return the rounds of one case in which both settings ran."""

    def rounds(allocator: str) -> dict[tuple[int, int], Warm]:
        seen: Counter[int] = Counter()
        found: dict[tuple[int, int], Warm] = {}
        for run in runs:
            if run.allocator == allocator:
                found[run.slice, seen[run.slice]] = run.warm
                seen[run.slice] += 1
        return found

    first, second = rounds(one), rounds(other)
    return [(warm, second[key]) for key, warm in first.items() if key in second]


def whole(runs: Sequence[Run], one: str, other: str) -> list[Pair]:
    """Return all of both as one round: for what was measured at different times only."""

    def warm(allocator: str) -> Warm:
        return [proof for run in runs if run.allocator == allocator for proof in run.warm]

    pair = (warm(one), warm(other))
    return [pair] if all(pair) else []


def ratio(found: Iterable[Pair], cost: Callable[[Proof], float]) -> float:
    """Return how much of the second's cost the first has: the median of the rounds' ratios."""

    def typical(warm: Warm) -> float:
        return median(cost(proof) for proof in warm)

    return median(typical(one) / typical(other) for one, other in found)


def wall(proof: Proof) -> float:
    """Seconds that a proof took."""
    return proof.wall_s


def cpu(proof: Proof) -> float:
    """Seconds of CPU time that a proof took."""
    return proof.cpu_s
