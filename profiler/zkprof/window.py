# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the ways of measuring have in common.

`sampled.SampledWindow` and `counted.CountedWindow` turn a stretch of a
target's life into `Findings`; `measure` runs either of them without knowing
which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Bin, Frame, Kind, MemoryPoint, PythonJoin, Share, StackTime, ThreadTime, Tier
    from .procfs import Mapping


@dataclass(frozen=True, slots=True)
class Findings:
    """The part of a `Measurement` that depends on how it was made."""

    cpu_s: float
    classes: dict[Kind, Share]
    overlays: dict[str, float]
    threads: tuple[ThreadTime, ...]
    bins: tuple[Bin, ...]
    samples: int
    lost: int
    ns_per_fault: float
    overhead: float
    notes: tuple[str, ...]
    frames: tuple[Frame, ...] = ()
    stacks: tuple[StackTime, ...] = ()
    python: PythonJoin | None = None


class Window(Protocol):
    """A way of measuring, attached to its target from creation to `close`."""

    tier: Tier

    def wait(self, timeout_s: float) -> None:
        """Let up to `timeout_s` pass, gathering what cannot wait."""

    def look(self, mappings: Sequence[Mapping]) -> None:
        """Take note of what the target has mapped, now and again later."""

    def update(self) -> None:
        """Gather all that there is by now."""

    def pids(self) -> list[int]:
        """Return the processes that samples came from, as far as is known."""

    def findings(self, first: MemoryPoint, last: MemoryPoint) -> Findings:
        """Return what is known, between two readings of the target's counters."""

    def finish(self) -> None:
        """Gather what can be had at the end of the window only."""

    def close(self) -> None:
        """Detach from the target; a second call does nothing."""
