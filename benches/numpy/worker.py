# SPDX-License-Identifier: MIT OR Apache-2.0
"""The process that is measured: one case, on whatever allocator it finds.

It prints one line of JSON.  Its input is made, and compiled what is compiled,
before the first round; the first round is the cold one.  The peak of resident
memory is that of the whole process, since an allocator may keep what making the
input took.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time

from benches.numpy.workloads import CASES


def main() -> int:
    """Run rounds until the time is up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--min-rounds", type=int, required=True)
    parser.add_argument("--install", action="store_true", help="zk_nalloc.numpy.install()")
    parser.add_argument("--limit", action="store_true", help="arrays that are there already")
    options = parser.parse_args()
    if options.install:
        import zk_nalloc.numpy  # noqa: PLC0415 - others run without it

        zk_nalloc.numpy.install()
    case = CASES[options.case]
    prepare = case.prepare_limit if options.limit else case.prepare
    if prepare is None:
        parser.error(f"{case.name} has no limit")
    one_round = prepare()
    gc.collect()
    gc.disable()
    wall: list[int] = []
    cpu: list[int] = []
    faults: list[int] = []
    end = time.monotonic() + options.seconds
    result = None
    while len(wall) < options.min_rounds or time.monotonic() < end:
        del result
        faults_before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        wall_before, cpu_before = time.perf_counter_ns(), time.process_time_ns()
        result = one_round()
        cpu.append(time.process_time_ns() - cpu_before)
        wall.append(time.perf_counter_ns() - wall_before)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults_before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case.check(result)
    print(json.dumps({"wall_ns": wall, "cpu_ns": cpu, "faults": faults, "peak_kib": peak}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
