# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.zkprof.cost`: what watching a program costs it, said and measured.

By kernel stacks, at zkprof's own rate. One process makes its batches, and zkprof attaches to it
for every second five of them; before the others there is a pause of the same length. Two that
do the same differ by more than what is looked for (four copies of `file` by up to 7 %, with nobody
watching), for their memory lies elsewhere.
Eight minutes for the targets below.

Exit codes: 0 it is 1 % or less for all, 1 for some it is more, 2 bad usage, 3 no sampling here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from zkprof.model import Tier

from .judge import spread
from .race import SYSTEM, allocators, watched_or_not
from .targets import TARGETS, build

RATE_HZ = 199.0
ROUNDS, BATCHES = 10, 5
AIM = 0.01
NAMES = ("compute", "faults-65", "file", "pool", "lock")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    names = list(sys.argv[1:] if argv is None else argv) or list(NAMES)
    known = {target.name: target for target in TARGETS}
    if unknown := [name for name in names if name not in known]:
        print(f"unknown target {', '.join(unknown)}: choose from {', '.join(known)}")
        return 2
    environment = allocators(os.environ)[SYSTEM]
    met = True
    with tempfile.TemporaryDirectory(prefix="zkprof-bench-") as folder:
        program = build(Path(folder))
        for name in names:
            plain, watched, reports = watched_or_not(
                known[name].command(program), environment, ROUNDS, BATCHES, Tier.KERNEL, RATE_HZ
            )
            cost = spread([b / a - 1 for a, b in zip(plain, watched, strict=True)])
            said = median(report.method.overhead for report in reports)
            print(
                f"{name:10s} said {said:.2%}, measured {cost.mid:.2%} "
                f"[{cost.low:.2%}, {cost.high:.2%}]",
                flush=True,
            )
            met = met and cost.mid <= AIM
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
