# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a reader must know about the machine to judge a figure."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["describe"]


def _first_line(path: str, prefix: str = "") -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "unknown"
    found = (line for line in lines if line.startswith(prefix))
    return next(found, "unknown").partition(":")[2].strip() if prefix else lines[0]


def _huge_pages() -> str:
    setting = _first_line("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.partition("[")[2].partition("]")[0] or setting


def describe() -> dict[str, str | int | bool]:
    """Return the processor, memory, kernel and huge-page setting of this machine."""
    cpuinfo = "/proc/cpuinfo"
    flags = _first_line(cpuinfo, "flags").split()
    return {
        "processor": _first_line(cpuinfo, "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "transparent_huge_pages": _huge_pages(),
        "virtual_machine": "hypervisor" in flags,
    }
