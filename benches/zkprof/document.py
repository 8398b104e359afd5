# SPDX-License-Identifier: MIT OR Apache-2.0
"""The run as JSON, and back: a long run can be made in pieces, a few targets at a time.

A quiet quarter of an hour is hard to have. `--json FILE --keep` keeps what FILE has of other
targets, as long as it was measured in the same way on the same machine, so that several short
runs make one table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zkprof.estimate import Range, Verdict
from zkprof.model import Tier

from .judge import ClassRow, Judgement, Said, Saving
from .race import BenchError
from .table import aims
from .targets import TARGETS

SCHEMA = "zkprof-validation/1"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How and where was measured: what all pieces of one table must have in common."""

    rounds: int
    rate_hz: float
    kernel: str
    machine: str

    @classmethod
    def here(cls, rounds: int, rate_hz: float) -> Conditions:
        """Return those of this machine."""
        return cls(rounds, rate_hz, f"Linux {platform.release()}", _machine())

    def __str__(self) -> str:
        """Say so in a line."""
        return (
            f"{self.rounds} rounds, {self.rate_hz:g} samples a second; "
            f"{self.machine}, {self.kernel}"
        )


def _machine() -> str:
    """Name the processor, as far as the kernel does."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} CPUs, {model}"


def document(judgements: Sequence[Judgement], conditions: Conditions) -> dict[str, Any]:
    """Return everything for `--json`."""
    return {
        "schema": SCHEMA,
        **dataclasses.asdict(conditions),
        "targets": [
            {
                "name": j.target.name,
                "what": j.target.what,
                "when": j.when,
                "negative": j.target.negative,
                "reached": j.target.reached,
                "samples": j.samples,
                "classes": {row.name: {"said": row.said, "truth": row.truth} for row in j.classes},
                "verdict": j.said.verdict.value,
                "verdict_right": j.verdict_right,
                "saving_cpu": dataclasses.asdict(j.said.saving_cpu),
                "saving_wall": dataclasses.asdict(j.said.saving_wall),
                "advice": list(j.advice),
                "growth": j.said.growth,
                "overhead": {"said": j.cost_said, "measured": dataclasses.asdict(j.cost)},
                "tiers": {tier.value: said for tier, said in j.tiers.items()},
                "measured": {
                    name: dataclasses.asdict(saving) for name, saving in j.savings.items()
                },
            }
            for j in judgements
        ],
        "aims": [
            {"aim": aim.text, "right": sum(aim.cases), "of": len(aim.cases), "met": aim.met}
            for aim in aims(judgements)
        ],
    }


def earlier(file: Path, conditions: Conditions) -> list[Judgement]:
    """Read what an earlier run wrote to `file`; nothing where there is none.

    Raises
    ------
    BenchError
        It is no such file, or was measured in another way or elsewhere.
    """
    if not file.exists():
        return []
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        theirs = Conditions(**{f.name: read[f.name] for f in dataclasses.fields(Conditions)})
        if read["schema"] != SCHEMA or theirs != conditions:
            msg = f"{file} was measured otherwise ({theirs}; now {conditions})"
            raise BenchError(msg)
        known = {target.name: target for target in TARGETS}
        return [
            Judgement(
                target=known[row["name"]],
                classes=tuple(
                    ClassRow(name, both["truth"], both["said"])
                    for name, both in row["classes"].items()
                ),
                said=Said(
                    Verdict(row["verdict"]),
                    Range(**row["saving_cpu"]),
                    Range(**row["saving_wall"]),
                    row["growth"],
                ),
                savings={
                    name: Saving(Range(**both["cpu"]), Range(**both["wall"]))
                    for name, both in row["measured"].items()
                },
                tiers={Tier(name): said for name, said in row["tiers"].items()},
                samples=row["samples"],
                advice=tuple(row["advice"]),
                cost_said=row["overhead"]["said"],
                cost=Range(**row["overhead"]["measured"]),
                when=row["when"],
            )
            for row in read["targets"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{file} is not a table of this command: {error!r}"
        raise BenchError(msg) from error


def together(old: Sequence[Judgement], new: Sequence[Judgement]) -> list[Judgement]:
    """Return both, the newer where there are two of a target, in the targets' order."""
    latest = {j.target.name: j for j in (*old, *new)}
    return [latest[target.name] for target in TARGETS if target.name in latest]
