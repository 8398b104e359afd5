# SPDX-License-Identifier: MIT OR Apache-2.0
"""The validation tables, on the screen and as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from zkprof.estimate import Range
from zkprof.model import Tier

from .judge import (
    CLASS_POINTS,
    CPU_POINTS,
    KEPT,
    OURS,
    TIER_POINTS,
    Judgement,
    share_right,
)
from .race import HUGE

CPU_SHARE = WALL_SHARE = 0.9
"""The share of cases in which the prediction is to be right."""


@dataclasses.dataclass(frozen=True, slots=True)
class Aim:
    """One thing that is to hold, and in how many cases it does."""

    text: str
    cases: Sequence[bool]
    needed: float

    @property
    def met(self) -> bool:
        """Whether it holds often enough."""
        return share_right(self.cases) >= self.needed

    def __str__(self) -> str:
        """Say so in a line."""
        met = "met" if self.met else "MISSED"
        return f"{met:6s}  {self.text}: {sum(self.cases)} of {len(self.cases)}"


def aims(judgements: Sequence[Judgement]) -> list[Aim]:
    """Return what is to hold, with the cases."""
    reached = [j for j in judgements if j.target.reached]
    caches = [(j, name) for j in reached for name in (OURS, KEPT)]
    return [
        Aim(
            f"classes within {CLASS_POINTS * 100:.0f} points of the truth",
            [row.right for j in judgements for row in j.classes],
            1.0,
        ),
        Aim(
            f"CPU saving predicted within {CPU_POINTS * 100:.0f} points",
            [j.cpu_right(name) for j, name in caches],
            CPU_SHARE,
        ),
        Aim(
            "wall saving inside of the stated interval",
            [j.wall_right(name) for j, name in caches],
            WALL_SHARE,
        ),
        Aim(
            "verdict right on negative controls",
            [j.verdict_right for j in judgements if j.target.negative],
            1.0,
        ),
        Aim(
            "verdict right on the others",
            [j.verdict_right for j in judgements if not j.target.negative],
            CPU_SHARE,
        ),
        Aim(
            "memory that no preloaded allocator reaches recognised",
            [j.warned for j in judgements if not j.target.negative],
            1.0,
        ),
        Aim(
            f"other tiers within {TIER_POINTS * 100:.0f} points of the full one",
            [j.tiers_right for j in judgements],
            1.0,
        ),
    ]


def all_met(judgements: Sequence[Judgement]) -> bool:
    """Whether every aim was met."""
    return all(aim.met for aim in aims(judgements))


def summary_text(judgements: Sequence[Judgement]) -> str:
    """Return the aims, a line each."""
    return "\n".join(str(aim) for aim in aims(judgements))


def _points(share: float) -> str:
    return f"{share * 100:.1f}"


def _range(r: Range) -> str:
    return f"{_points(r.mid)} [{_points(r.low)}, {_points(r.high)}]"


def lines(j: Judgement) -> str:
    """Return one target in a few short lines, for those who wait."""
    ours, kept, huge = (j.savings[name] for name in (OURS, KEPT, HUGE))
    rows = [
        ("CPU", j.said.saving_cpu, ours.cpu, kept.cpu, huge.cpu),
        ("wall", j.said.saving_wall, ours.wall, kept.wall, huge.wall),
    ]
    wrong = "" if j.verdict_right else " (WRONG)"
    cost = f"watching cost {_range(j.cost)}, {_points(j.cost_said)} said"
    text = [f"    {j.said.verdict}{wrong}, {j.samples} samples; {cost}"]
    text += [
        f"    {name:4s} said {_range(said):20s} saved {_range(saved):20s} kept "
        f"{_points(kept_.mid):5s} huge {_points(huge_.mid)}"
        for name, said, saved, kept_, huge_ in rows
    ]
    text += [
        f"    {row.name}: {_points(row.said)} % said, {_points(row.truth)} % true"
        for row in j.classes
        if not row.right
    ]
    if not j.tiers_right:
        said = {tier: "-" if x is None else _points(x) for tier, x in j.tiers.items()}
        text.append(f"    CPU saving in other tiers: {said[Tier.USER]}, {said[Tier.PROC]}")
    return "\n".join(text)


CLASS_HEADS = ("target", "faults", "giving back", "file faults", "copying", "own work")
GAIN_HEADS = (
    "target",
    "verdict",
    "CPU said",
    "CPU saved",
    "kept glibc",
    "wall said",
    "wall saved",
    "kept glibc",
    "user tier",
    "proc tier",
    "cost of watching, said / true",
)


def _class_rows(judgements: Iterable[Judgement]) -> list[list[str]]:
    return [
        [
            j.target.name,
            *(
                f"{_points(row.said)} / {_points(row.truth)}{'' if row.right else ' !'}"
                for row in j.classes
            ),
        ]
        for j in judgements
    ]


def _gain_rows(judgements: Iterable[Judgement]) -> list[list[str]]:
    rows = []
    for j in judgements:
        ours, kept = j.savings[OURS], j.savings[KEPT]
        reached = j.target.reached

        def mark(*, right: bool, reached: bool = reached) -> str:
            return "" if right or not reached else " !"

        rows.append(
            [
                j.target.name,
                str(j.said.verdict) + ("" if j.verdict_right else " !"),
                _range(j.said.saving_cpu),
                _points(ours.cpu.mid) + mark(right=j.cpu_right(OURS)),
                _points(kept.cpu.mid) + mark(right=j.cpu_right(KEPT)),
                _range(j.said.saving_wall),
                _range(ours.wall) + mark(right=j.wall_right(OURS)),
                _range(kept.wall) + mark(right=j.wall_right(KEPT)),
                *(
                    "-" if (said := j.tiers[tier]) is None else _points(said)
                    for tier in (Tier.USER, Tier.PROC)
                ),
                f"{_points(j.cost_said)} / {_range(j.cost)}",
            ]
        )
    return rows


def markdown(judgements: Sequence[Judgement], conditions: str) -> str:
    """Return the tables as Markdown; `conditions` says how they were made."""
    days = sorted({j.when[:10] for j in judgements})
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    parts = [f"{conditions}; {when}.\n"]
    for heads, rows in (
        (CLASS_HEADS, _class_rows(judgements)),
        (GAIN_HEADS, _gain_rows(judgements)),
    ):
        parts.append("| " + " | ".join(heads) + " |")
        parts.append("|---|" + "---:|" * (len(heads) - 1))
        parts += ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("")
    parts += [f"* {aim}" for aim in aims(judgements)]
    return "\n".join(parts) + "\n"
