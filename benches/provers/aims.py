# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is to hold for every prover, checked on the figures, missed aims included.

* Proving is never slower than 1.01 times the best setting of the best other allocator.
  The ratio is the median of those of the rounds, each of two processes minutes apart.
  The best of a dozen is a hard judge of noisy times, so it comes with its 95 % interval,
  by resampling rounds and the proofs within them; where the interval reaches down to
  the limit the aim is *open*, no more and no less.
* Peak memory is at most 1.02 times that of glibc's defaults.
* At least 95 % of large requests are served from the cache once it is warm.
* zkprof's prediction of the CPU saving is within five points of what happened.
* Of a prover whose memory never comes from malloc, zkprof says that preloading
  cannot help.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benches.allocators import OWN
from benches.summary import is_own

from .pairs import Pair, Warm, pairs, ratio, wall, whole
from .profile import TOLERANCE, Prediction, Profile
from .registry import PROVERS
from .report import Case, groups, of_case, row_of, summarise
from .runner import Run

TIME, MEMORY, HITS = 1.01, 1.02, 0.95
_DRAWS = 2000

MET, OPEN, MISSED = "met", "open", "MISSED"


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim for one prover at one size."""

    prover: str
    size: int
    threads: int
    aim: str
    verdict: str
    figure: str

    @property
    def case(self) -> Case:
        """The group of rows that it is about."""
        return Case(self.prover, self.size, self.threads)


def check(
    runs: Sequence[Run], predictions: Iterable[Prediction], profiles: Iterable[Profile]
) -> list[Aim]:
    """Return every aim that the figures allow to check, case by case."""
    found: list[Aim] = []
    said = {one.case: one for one in predictions}
    seen = {one.case: one for one in profiles}
    for case, rows in groups(summarise(runs)).items():
        ours, glibc = row_of(rows, OWN), row_of(rows, "glibc")
        if ours is not None:
            found += _time(case, of_case(runs, case))
            if glibc is not None:
                peak = ours.peak_rss_kib / glibc.peak_rss_kib
                verdict = MET if peak <= MEMORY else MISSED
                found.append(Aim(*case, "peak memory", verdict, f"{peak:.3f} of glibc's"))
            if ours.hit_rate is not None and PROVERS[case.prover].preload_helps:
                verdict = MET if ours.hit_rate >= HITS else MISSED
                figure = f"{ours.hit_rate:.1%} of {ours.hit_rate_of}"
                found.append(Aim(*case, "hit rate", verdict, figure))
        if case in said:
            one = said[case]
            verdict = MET if one.holds else MISSED
            figure = f"{100 * one.off:.1f} points off, {100 * TOLERANCE:.0f} allowed"
            found.append(Aim(*case, "prediction", verdict, figure))
        if case in seen and not PROVERS[case.prover].preload_helps:
            verdict = MISSED if seen[case].preloadable else MET
            found.append(Aim(*case, "says no help", verdict, seen[case].preload_reason))
    return found


def _time(case: Case, runs: Sequence[Run]) -> list[Aim]:
    """Hold our time against the fastest other setting."""
    best = best_other(runs)
    if best is None:
        return []
    name, rounds = best
    slower = ratio(rounds, wall)
    low, high = interval(rounds)
    verdict = MET if slower <= TIME else OPEN if low <= TIME else MISSED
    figure = f"{slower:.3f} ({low:.3f}-{high:.3f}) of {name}'s"
    return [Aim(*case, "prove time", verdict, figure)]


def best_other(runs: Sequence[Run]) -> tuple[str, list[Pair]] | None:
    """Return the setting of another allocator that did best against ours, and the rounds.

    All runs are of one case; None where there is nothing to compare.
    """
    others = dict.fromkeys(run.allocator for run in runs if not is_own(run.allocator))
    against = {name: found for name in others if (found := pairs(runs, OWN, name))}
    if not against:  # ours alone was measured anew, say
        against = {name: found for name in others if (found := whole(runs, OWN, name))}
    return max(against.items(), key=lambda one: ratio(one[1], wall), default=None)


def interval(found: Sequence[Pair]) -> tuple[float, float]:
    """Return the 95 % interval of our time over the other's, by resampling."""
    draws = random.Random(1)

    def again(warm: Warm) -> Warm:
        return draws.choices(warm, k=len(warm))

    def draw() -> float:
        drawn = draws.choices(found, k=len(found))
        return ratio([(again(ours), again(theirs)) for ours, theirs in drawn], wall)

    ratios = sorted(draw() for _ in range(_DRAWS))
    return ratios[round(_DRAWS * 0.025)], ratios[round(_DRAWS * 0.975) - 1]


def text(aims: Sequence[Aim]) -> str:
    """Say how many hold, and name those that do not, a line each."""
    lines = ["Aims:"]
    for name in dict.fromkeys(one.aim for one in aims):
        own = [one for one in aims if one.aim == name]
        met = sum(one.verdict == MET for one in own)
        lines.append(f"  {name}: met {met} of {len(own)}")
        lines += [
            f"    {one.verdict:6}  {one.prover} {one.size}: {one.figure}"
            for one in own
            if one.verdict != MET
        ]
    return "\n".join(lines)
