# SPDX-License-Identifier: MIT OR Apache-2.0
"""What zkprof said beside what was true, target by target."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from zkprof.advice import advise
from zkprof.estimate import BOUND, HEAVY, Range, Verdict, estimate
from zkprof.model import Measurement, Tier

from .race import HUGE, KEPT, OURS, WATCHED, Batch, Outcome
from .targets import CLASSES, Target

CLASS_POINTS = 0.03
CPU_POINTS = 0.05
TIER_POINTS = 0.10
VERDICT_POINTS = 0.02
"""A measured saving so near a threshold allows the verdicts of both sides."""
_NEGATIVE = (Verdict.NOT_BOUND, Verdict.GROWTH)
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class of CPU time: the target's own count and zkprof's, as shares."""

    name: str
    truth: float
    said: float

    @property
    def right(self) -> bool:
        """Whether zkprof is near enough."""
        return abs(self.said - self.truth) <= CLASS_POINTS


@dataclass(frozen=True, slots=True)
class Saving:
    """What one allocator saved, by rounds: the median and its 95 % interval."""

    cpu: Range
    wall: Range


@dataclass(frozen=True, slots=True)
class Said:
    """What zkprof predicted."""

    verdict: Verdict
    saving_cpu: Range
    saving_wall: Range
    growth: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """One target."""

    target: Target
    classes: tuple[ClassRow, ...]
    said: Said
    savings: dict[str, Saving]
    tiers: dict[Tier, float | None]
    """The CPU saving that each way of measuring predicts; None where not possible here."""
    samples: int
    advice: tuple[str, ...]
    """The stable names of what zkprof advises."""
    cost_said: float
    """What measuring in all these ways at once cost the target, as zkprof says."""
    cost: Range
    """What it did cost: CPU time of the watched copy over that of one alone, less 1."""
    when: str
    """When its run ended, in UTC."""

    def cpu_right(self, allocator: str) -> bool:
        """Whether the CPU saving was predicted well enough."""
        return abs(self.said.saving_cpu.mid - self.savings[allocator].cpu.mid) <= CPU_POINTS

    def wall_right(self, allocator: str) -> bool:
        """Whether the measured saving, as far as it is known, lies in the stated interval."""
        measured, stated = self.savings[allocator].wall, self.said.saving_wall
        return measured.high >= stated.low and measured.low <= stated.high

    @property
    def verdict_right(self) -> bool:
        """Whether the verdict is what the measured saving (of libzknalloc) calls for."""
        verdict = self.said.verdict
        if self.target.negative:
            return verdict in _NEGATIVE
        if not self.target.reached:
            return verdict is not Verdict.INCONCLUSIVE
        saved = self.savings[OURS].wall.mid
        return any(
            verdict is allowed
            for allowed, low, high in (
                (Verdict.BOUND, BOUND, 1.0),
                (Verdict.HEAVY, HEAVY, BOUND),
                (Verdict.NOT_BOUND, -1.0, HEAVY),
                (Verdict.GROWTH, -1.0, HEAVY),
            )
            if low - VERDICT_POINTS <= saved <= high + VERDICT_POINTS
        )

    @property
    def warned(self) -> bool:
        """Whether preloading is advised just where it reaches the memory."""
        return ("own-mappings" in self.advice) is not self.target.reached

    @property
    def tiers_right(self) -> bool:
        """Whether the less privileged ways of measuring agree with the full one."""
        full = self.said.saving_cpu.mid
        return all(
            other is None or abs(other - full) <= TIER_POINTS for other in self.tiers.values()
        )


def judge(target: Target, outcome: Outcome) -> Judgement:
    """Put the two sides of one target together."""
    m = outcome.reports[Tier.KERNEL]
    e = estimate(m)
    said = Said(e.verdict, e.saving_cpu, e.saving_wall, e.growth.share)
    tiers: dict[Tier, float | None] = {
        tier: estimate(outcome.reports[tier]).saving_cpu.mid if tier in outcome.reports else None
        for tier in (Tier.USER, Tier.PROC)
    }
    return Judgement(
        target=target,
        classes=_classes(target, outcome, m),
        said=said,
        savings={
            name: Saving(spread(outcome.savings(name, _cpu)), spread(outcome.savings(name, _wall)))
            for name in (OURS, KEPT, HUGE)
        },
        tiers=tiers,
        samples=m.method.samples,
        advice=tuple(item.id for item in advise(m, e)),
        cost_said=sum(report.method.overhead for report in outcome.reports.values()),
        cost=spread([-saved for saved in outcome.savings(WATCHED, _cpu)]),
        when=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    )


def _cpu(batch: Batch) -> float:
    return batch.cpu_s


def _wall(batch: Batch) -> float:
    return batch.wall_s


def _classes(target: Target, outcome: Outcome, m: Measurement) -> tuple[ClassRow, ...]:
    parts = outcome.parts_s()
    whole = sum(batch.cpu_s for batch in outcome.batches[WATCHED])
    rows = []
    for name, (kinds, of) in CLASSES.items():
        truth = sum(parts[part] for part in of)
        if target.kind == "cow":
            # Pages that a child shared until it ended are faults on copying, too.
            truth = {"copying": parts["copy_s"] + parts["touch_s"], "page faults": 0.0}.get(
                name, truth
            )
        said = sum(m.classes[kind].seconds for kind in kinds)
        rows.append(ClassRow(name, truth / whole, said / m.cpu_s if m.cpu_s else 0.0))
    return tuple(rows)


def spread(values: Sequence[float]) -> Range:
    """Return the median and its 95 % interval, by resampling."""
    draws = random.Random(1)
    medians = sorted(median(draws.choices(values, k=len(values))) for _ in range(_DRAWS))
    return Range(medians[round(_DRAWS * 0.025)], median(values), medians[round(_DRAWS * 0.975)])


def share_right(rows: Sequence[bool]) -> float:
    """Return the share of true values; 1 where there are none."""
    return sum(rows) / len(rows) if rows else 1.0


__all__ = [
    "KEPT",
    "OURS",
    "ClassRow",
    "Judgement",
    "Said",
    "Saving",
    "judge",
    "share_right",
    "spread",
]
