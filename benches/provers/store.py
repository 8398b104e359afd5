# SPDX-License-Identifier: MIT OR Apache-2.0
"""Results that grow: what was measured is kept in a folder and added to.

A table of all provers takes hours, so it is measured in slices.  A *slice* is
one invocation of the command; its command line, date, machine and settings are
kept, and every run names the slice that it comes from.  All the rest (medians,
predictions, aims, tables, plots) is worked out anew from the runs each time.
`results.json` is replaced as a whole, so that a run that is killed loses no
more than the process that was running.

Figures of different machines are never put into one folder: their ratios would
mean nothing.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benches.machine import describe

from . import aims, profile, report
from .profile import Profile
from .report import Case
from .runner import Run

SCHEMA_VERSION = 2

#: What two slices must have in common.
SAME = ("processor", "cpus", "kernel", "libc", "transparent_huge_pages")


class NotMergeable(ValueError):
    """The folder has results that these cannot be added to."""


def now() -> str:
    """Return the time, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class Slice:
    """One invocation: where its figures come from."""

    command: str
    machine: dict[str, Any]
    settings: dict[str, dict[str, str]]
    """The variables of each allocator, preloaded libraries by their names."""
    library: str | None
    """Which libzknalloc: the digest of its file, to tell builds apart."""
    started: str = field(default_factory=now)
    ended: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def _names(libraries: str) -> str:
    """Return what is preloaded without the folders, which are of no use elsewhere."""
    return ":".join(Path(one).name for one in libraries.split(":"))


@dataclass(slots=True)
class Results:
    """All that is known: of earlier slices and of this one."""

    slices: list[Slice] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path | None) -> Results:
        """Read what `folder` has; nothing where there is no folder or no results."""
        path = folder / "results.json" if folder else None
        if path is None or not path.exists():
            return cls()
        saved = json.loads(path.read_text())
        if saved.get("schema_version") != SCHEMA_VERSION:
            raise NotMergeable(
                f"{path} has schema version {saved.get('schema_version')!r}, "
                f"not {SCHEMA_VERSION}: choose another folder"
            )
        return cls(
            [Slice(**one) for one in saved["slices"]],
            [Run.parse(one) for one in saved["runs"]],
            [Profile(**one) for one in saved["profiles"]],
        )

    def begin(
        self, command: str, settings: Mapping[str, Mapping[str, str]], library: str | None
    ) -> Slice:
        """Begin a slice on this machine."""
        machine = describe()
        for earlier in self.slices:
            if differ := [name for name in SAME if earlier.machine[name] != machine[name]]:
                what = ", ".join(f"{earlier.machine[n]!r}, not {machine[n]!r}" for n in differ)
                raise NotMergeable(f"the results there are of another machine: {what}")
        plain = {
            name: {k: _names(v) if k == "LD_PRELOAD" else v for k, v in variables.items()}
            for name, variables in settings.items()
        }
        self.slices.append(Slice(command, machine, plain, library))
        return self.slices[-1]

    def processes(self, case: Case, allocator: str) -> int:
        """Return how many processes of a row there are."""
        return sum(run.allocator == allocator for run in report.of_case(self.runs, case))

    def forget(self, cases: Iterable[Case], allocators: Iterable[str]) -> None:
        """Drop rows, to measure them anew; with glibc's goes the profile of its run."""
        gone = {(case, name) for case in cases for name in allocators}
        self.runs = [r for r in self.runs if (report.case_of(r), r.allocator) not in gone]
        self.profiles = [p for p in self.profiles if (p.case, "glibc") not in gone]

    def add_profile(self, found: Profile) -> None:
        """Keep one profile for each case, the latest."""
        self.profiles = [one for one in self.profiles if one.case != found.case] + [found]

    def predictions(self) -> list[profile.Prediction]:
        """Hold every profile against the rows of its case."""
        made = (profile.compare(one, report.of_case(self.runs, one.case)) for one in self.profiles)
        return [one for one in made if one is not None]

    def document(self) -> dict[str, Any]:
        """Return everything as one JSON document."""
        predictions = self.predictions()
        checked = aims.check(self.runs, predictions, self.profiles)
        return {
            "schema_version": SCHEMA_VERSION,
            "slices": [asdict(one) for one in self.slices],
            "summary": [asdict(row) for row in report.summarise(self.runs)],
            "aims": [asdict(one) for one in checked],
            "predictions": [asdict(one) | {"holds": one.holds} for one in predictions],
            "profiles": [asdict(one) for one in self.profiles],
            "runs": [asdict(run) for run in self.runs],
        }

    def save(self, folder: Path) -> None:
        """Write JSON and CSV, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / "results.json.new"
        fresh.write_text(json.dumps(self.document(), indent=1) + "\n")
        fresh.replace(folder / "results.json")
        with (folder / "proofs.csv").open("w", newline="") as file:
            report.write_csv(self.runs, file)
        with (folder / "summary.csv").open("w", newline="") as file:
            report.write_rows(report.summarise(self.runs), report.Summary, file)
        with (folder / "predictions.csv").open("w", newline="") as file:
            report.write_rows(self.predictions(), profile.Prediction, file)
