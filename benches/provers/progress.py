# SPDX-License-Identifier: MIT OR Apache-2.0
"""How long it will take, and how far it is.

What a process of each prover, size and thread count took is remembered in the
cache (`durations.json`), so that the next invocation can say beforehand how
long it needs.  It says what it has never run as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .report import Case, case_of
from .runner import Run


@dataclass(frozen=True, slots=True)
class Step:
    """One process that is to run."""

    case: Case
    allocator: str
    number: int
    """Of the row's processes, from 0."""
    proofs: int


@dataclass(slots=True)
class Durations:
    """Seconds of set-up and of each proof, verified, as last seen."""

    path: Path
    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def load(cls, cache: Path) -> Durations:
        """Read what earlier invocations left in the cache."""
        path = cache / "durations.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        return cls(path, {key: (setup, proof) for key, (setup, proof) in known.items()})

    def note(self, run: Run) -> None:
        """Remember how long a process took."""
        proofs = (run.elapsed_s - run.setup_s) / len(run.proofs)
        self.known[_key(case_of(run))] = (run.setup_s, proofs)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.known, indent=1, sort_keys=True) + "\n")

    def seconds(self, steps: Iterable[Step]) -> tuple[float, list[Case]]:
        """Return how long these steps take, and the cases of which that is not known."""
        total = 0.0
        unknown: dict[Case, None] = {}
        for step in steps:
            times = self.known.get(_key(step.case))
            if times is None:
                unknown[step.case] = None
            else:
                total += times[0] + step.proofs * times[1]
        return total, list(unknown)

    def text(self, steps: Iterable[Step]) -> str:
        """Say how long these steps take."""
        total, unknown = self.seconds(steps)
        parts = [f"about {clock(total)}"] if total or not unknown else []
        if unknown:
            names = ", ".join(f"{case.prover} {case.size}" for case in unknown)
            parts.append(f"not known yet: {names}")
        return "; ".join(parts)


def _key(case: Case) -> str:
    return "/".join(map(str, case))


def clock(seconds: float) -> str:
    """Write a duration so that people see at once how long it is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
