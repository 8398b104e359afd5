# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prove in a loop and print what each proof cost, one JSON line a proof.

Every Python workload is a program of its own: it runs in the virtual
environment of its prover, so it may import nothing but the standard library,
that prover and this module.  The protocol on standard output, which
`benches.provers.runner` reads and which the workloads in other languages
speak too, is

    {"ready": PID, "setup_s": SECONDS, "what": TEXT}          once, then
    {"proof": 0, "wall_s": …, "user_s": …, "sys_s": …, "minor_faults": …,
     "verified": true, "peak_rss_kib": …}                     for each proof

where PID is the process that proves.  Only proving is measured: making the
inputs comes before "ready", verification after the clock has stopped.  Where
libzknalloc is loaded, a line also has "hits" and "misses", which the prover's
process asks of the library itself.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STARTED = time.monotonic()


def arguments(size: str) -> argparse.Namespace:
    """Parse what the runner passes to every workload; `size` says its unit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, required=True, help=size)
    parser.add_argument("--proofs", type=int, default=0, help="proofs to make")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True, help="folder for keys and inputs")
    return parser.parse_args()


def say(**line: object) -> None:
    """Print one line of the protocol."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def peak_rss_kib() -> int:
    """Return this process's high-water mark of resident memory, VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status has no VmHWM line")


def library_counters() -> dict[str, int] | None:
    """Return libzknalloc's own counters, or None where it is not loaded."""
    try:
        stats_json = ctypes.CDLL(None).zkn_stats_json
    except AttributeError:
        return None
    stats_json.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    text = ctypes.create_string_buffer(16 * 1024)
    if stats_json(text, len(text)) >= len(text):
        raise OSError("the statistics of libzknalloc are longer than 16 KiB")
    counters: dict[str, int] = json.loads(text.value)
    return counters


def prove_loop(proofs: int, prove: Callable[[], T], verify: Callable[[T], bool], what: str) -> None:
    """Prove and verify `proofs` times; the first failed verification ends it."""
    say(ready=os.getpid(), setup_s=time.monotonic() - _STARTED, what=what)
    for number in range(proofs):
        library = library_counters()
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        proof = prove()
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        line: dict[str, object] = {
            "proof": number,
            "wall_s": wall,
            "user_s": after.ru_utime - before.ru_utime,
            "sys_s": after.ru_stime - before.ru_stime,
            "minor_faults": after.ru_minflt - before.ru_minflt,
        }
        if library is not None and (now := library_counters()) is not None:
            line |= {name: now[name] - library[name] for name in ("hits", "misses")}
        line["verified"] = verify(proof)
        line["peak_rss_kib"] = peak_rss_kib()
        say(**line)
        if not line["verified"]:
            sys.exit(f"proof {number} was refused by the prover's own verifier")
