# SPDX-License-Identifier: MIT OR Apache-2.0
"""A Python program that faults in commit_trace() and computes in compute()."""

import sys
import threading


def allocate(n: int) -> bytearray:
    return bytearray(n)


def commit_trace() -> None:
    for _ in range(2):
        allocate(40 << 20)


def compute() -> int:
    total = 0
    for i in range(500_000):
        total += i * i
    return total


def prove() -> None:
    while True:
        commit_trace()
        compute()


if __name__ == "__main__":
    print("ready", flush=True)
    if sys.argv[1:] == ["thread"]:
        threading.Thread(target=prove, daemon=True).start()
    prove()
