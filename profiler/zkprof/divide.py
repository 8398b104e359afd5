# SPDX-License-Identifier: MIT OR Apache-2.0
"""From samples to seconds: how CPU time divides into kinds, with intervals."""

from __future__ import annotations

from collections import Counter, defaultdict

from .bootstrap import shares
from .classify import ATTRIBUTED_FAULTS
from .model import Bin, Kind, Share
from .sampler import BIN_S

Seconds = dict[Kind, float]
Bins = defaultdict[int, defaultdict[int, Counter[Kind]]]
"""Samples by time slice, thread and kind."""


def first_touches(bins: Bins) -> Bins:
    """Count copies on writing as anonymous faults."""
    result: Bins = defaultdict(lambda: defaultdict(Counter))
    for index, threads in bins.items():
        for tid, kinds in threads.items():
            for kind, n in kinds.items():
                result[index][tid][Kind.FAULT_ANON if kind is Kind.FAULT_COW else kind] += n
    return result


def fault_split(bins: Bins) -> Seconds:
    """Return how faults divide into kinds, by those samples that show it."""
    seen: Counter[Kind] = Counter()
    for threads in bins.values():
        for kinds in threads.values():
            for kind in ATTRIBUTED_FAULTS:
                seen[kind] += kinds[kind]
    total = sum(seen.values())
    return {kind: n / total for kind, n in seen.items() if n} if total else {}


def seconds_of(samples: Counter[Kind], scale: float, split: Seconds, factors: Seconds) -> Seconds:
    """Turn samples into seconds, dividing faults of no visible kind by `split`."""
    result = {kind: n * scale * factors.get(kind, 1.0) for kind, n in samples.items()}
    if split and (unknown := result.pop(Kind.FAULT_OTHER, 0.0)):
        add(result, {kind: unknown * share for kind, share in split.items()})
    return result


def add(total: Seconds, part: Seconds) -> None:
    """Add `part` to `total`, kind by kind."""
    for kind, seconds in part.items():
        total[kind] = total.get(kind, 0.0) + seconds


def anon_share(split: Seconds) -> float:
    """Return how much of what is unmapped is anonymous, going by what is mapped.

    A call chain of munmap does not show what it unmaps, and a mapped file is
    none of an allocator's business.
    """
    anon, file = split.get(Kind.FAULT_ANON, 0.0), split.get(Kind.FAULT_FILE, 0.0)
    return anon / (anon + file) if anon + file else 1.0


def bin_of(t: float, seconds: dict[int, Seconds], block: Seconds, anon: float) -> Bin:
    """Make one slice of time from what its threads did; see `anon_share`."""

    def avoidable(kinds: Seconds) -> float:
        first = sum(kinds.get(k, 0.0) for k in (Kind.FAULT_ANON, Kind.PREFAULT, Kind.MMAP))
        return first + anon * (kinds.get(Kind.UNMAP, 0.0) + kinds.get(Kind.MADVISE, 0.0))

    return Bin(
        t=t,
        width_s=BIN_S,
        cpu_s={tid: sum(kinds.values()) for tid, kinds in seconds.items()},
        mm_s={tid: avoidable(kinds) for tid, kinds in seconds.items()},
        by_kind={kind: s for kind, s in block.items() if s},
    )


def classes_of(blocks: list[Seconds], cpu_s: float) -> dict[Kind, Share]:
    """Return each class's time with its interval."""
    if not blocks:
        # Not one sample: whatever CPU time there was may be of any class.
        return {kind: Share(0.0, 0.0, cpu_s) for kind in Kind}
    intervals = shares(
        [[block.get(kind, 0.0) for kind in Kind] for block in blocks],
        [sum(block.values()) for block in blocks],
    )
    result = {}
    for kind, (low, high) in zip(Kind, intervals, strict=True):
        mid = sum(block.get(kind, 0.0) for block in blocks)
        result[kind] = Share(mid, min(mid, low * cpu_s), max(mid, high * cpu_s))
    return result
