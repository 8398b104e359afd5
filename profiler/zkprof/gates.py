# SPDX-License-Identifier: MIT OR Apache-2.0
"""Conditions for scripts: `--fail-on` turns a result into exit code 10.

A condition is the name of a verdict, or a comparison with a quantity that is
shown as well: ``allocation-bound``, ``saving>5``, ``hit-rate<90``.  Shares are
written in per cent; a quantity that is not known meets no requirement, and
trips.  A result that carries no verdict trips no comparison: it
ends with its own exit code, which a script does not take for success either.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .estimate import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .report import Report

VERDICTS = {verdict.value.replace(" ", "-"): verdict for verdict in Verdict}

QUANTITIES: dict[str, tuple[str, Callable[[Report], float | None]]] = {
    "saving": ("wall time to be saved", lambda r: r.estimate.saving_wall.mid),
    "saving-cpu": ("CPU time to be saved", lambda r: r.estimate.saving_cpu.mid),
    "memory": ("CPU time spent in memory management", lambda r: r.estimate.mm_share),
    "growth": ("share of the memory that was new", lambda r: r.estimate.growth.share),
    "hit-rate": (
        "libzknalloc's hit rate",
        lambda r: r.measurement.library.hit_rate if r.measurement.library else None,
    ),
}
"""What a report can be asked for, as shares of 1."""

_COMPARISON = re.compile(r"\s*([a-z-]+)\s*([<>])\s*([0-9]+(?:\.[0-9]*)?)\s*%?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A quantity and the limit that it must not cross."""

    name: str
    above: bool
    limit: float
    """In per cent."""

    def trips(self, percent: float) -> bool:
        """Say whether a value lies beyond the limit."""
        return percent > self.limit if self.above else percent < self.limit

    def __str__(self) -> str:
        return f"{self.name}{'>' if self.above else '<'}{self.limit:g}"


def comparison(text: str, names: Iterable[str]) -> Comparison | None:
    """Return the comparison that `text` is, or None."""
    match = _COMPARISON.fullmatch(text)
    if not match or match[1] not in names:
        return None
    return Comparison(match[1], match[2] == ">", float(match[3]))


def condition(text: str) -> Verdict | Comparison:
    """Return a condition on a report: an argument type."""
    if text in VERDICTS:
        return VERDICTS[text]
    found = comparison(text, QUANTITIES)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no condition: give a verdict ({', '.join(VERDICTS)}) "
            f"or a comparison like 'saving>5' ({', '.join(QUANTITIES)}; in per cent)"
        )
    return found


def tripped(report: Report, conditions: Iterable[Verdict | Comparison]) -> str:
    """Say which condition a report meets, and by how much; "" for none."""
    verdict = report.estimate.verdict
    for wanted in conditions:
        if isinstance(wanted, Verdict):
            if wanted is verdict:
                return f"the verdict is {verdict}"
        elif verdict is not Verdict.INCONCLUSIVE:
            meaning, value_of = QUANTITIES[wanted.name]
            value = value_of(report)
            if value is None:
                return f"{wanted}: {meaning} is unknown"
            if wanted.trips(100 * value):
                return f"{wanted}: {meaning} is {value:.1%}"
    return ""
