# SPDX-License-Identifier: MIT OR Apache-2.0
"""Counters of many processes for Prometheus, in its text format or OpenMetrics.

Processes are read when Prometheus asks, so nothing runs in between.  They are
given by number or by name; names are looked up anew each time, so that a
fleet of provers may come and go.  Counters keep the names that zknalloc.h
explains, after ``zknalloc_``; what /proc says comes after ``zkprof_``.

What a process costs in page faults is, in seconds of CPU time a second,
``rate(zkprof_minor_faults_total[1m]) * on() group_left zkprof_fault_seconds``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from .calibrate import page_cost
from .counters import Watched, class_rows
from .errors import ZkprofError
from .library import counter_rows
from .text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from .counters import Reading
    from .model import MemoryPoint

_LABELS = ("pid", "comm")

_OF_PROCESS: tuple[
    tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[MemoryPoint], float]],
    ...,
] = (
    (CounterMetricFamily, "minor_faults", "Page faults without I/O", lambda p: p.minor_faults),
    (CounterMetricFamily, "major_faults", "Page faults with I/O", lambda p: p.major_faults),
    (CounterMetricFamily, "user_seconds", "CPU time in user mode", lambda p: p.utime_s),
    (CounterMetricFamily, "system_seconds", "CPU time in the kernel", lambda p: p.stime_s),
    (GaugeMetricFamily, "resident_bytes", "Resident memory", lambda p: p.rss),
    (GaugeMetricFamily, "resident_peak_bytes", "Its high-water mark", lambda p: p.hwm),
    (GaugeMetricFamily, "threads", "Threads", lambda p: p.threads),
)


class Fleet(Collector):
    """The processes that are exported.

    Parameters
    ----------
    pids
        By number; one that has ended is reported with ``zkprof_up`` 0.
    names
        By the name that the kernel shows (``comm``, 15 letters).
    """

    def __init__(self, pids: Iterable[int], names: Iterable[str]) -> None:
        self._pids = tuple(dict.fromkeys(pids))
        self._names = frozenset(names)
        self._fault_s = page_cost().touch_ns / 1e9

    def collect(self) -> Iterator[Metric]:
        """Read all processes and yield the metrics."""
        up = GaugeMetricFamily("zkprof_up", "Whether the process could be read", labels=_LABELS)
        readings: list[tuple[list[str], Reading]] = []
        for pid in self.found():
            labels = [str(pid), _comm(pid)]
            try:
                with Watched(pid) as process:
                    reading = process.read()
            except ZkprofError:
                up.add_metric(labels, 0)
            else:
                up.add_metric(labels, 1)
                readings.append((labels, reading))
        yield up
        yield GaugeMetricFamily(
            "zkprof_fault_seconds",
            "CPU time of one anonymous page fault on this machine",
            value=self._fault_s,
        )
        caches = GaugeMetricFamily(
            "zkprof_caches", "Copies of libzknalloc found, 0 where memory is hidden", labels=_LABELS
        )
        for labels, reading in readings:
            caches.add_metric(labels, len(reading.snapshots))
        yield caches
        yield from _processes(readings)
        yield from _libraries(readings)

    def found(self) -> list[int]:
        """Return the numbers of the processes as of now."""
        by_name = []
        if self._names:
            own = os.getpid()
            pids = sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
            by_name = [pid for pid in pids if pid != own and _comm(pid) in self._names]
        return list(dict.fromkeys((*self._pids, *by_name)))


def _processes(readings: list[tuple[list[str], Reading]]) -> Iterator[Metric]:
    for family, name, text, value_of in _OF_PROCESS:
        metric = family(f"zkprof_{name}", text, labels=_LABELS)
        for labels, reading in readings:
            metric.add_metric(labels, value_of(reading.point))
        yield metric


def _libraries(readings: list[tuple[list[str], Reading]]) -> Iterator[Metric]:
    found = [(labels, library) for labels, r in readings if (library := r.library)]
    for name, kind in counter_rows():
        family = CounterMetricFamily if kind == "c" else GaugeMetricFamily
        metric = family(f"zknalloc_{name}", f"{name} of zknalloc.h", labels=_LABELS)
        for labels, library in found:
            metric.add_metric(labels, library.counters[name])
        yield metric
    ceiling = GaugeMetricFamily(
        "zknalloc_cache_ceiling_bytes", "The most that the cache keeps", labels=_LABELS
    )
    requests = CounterMetricFamily(
        "zknalloc_class_requests",
        "Large requests by size class, named by its smallest size in bytes",
        labels=(*_LABELS, "size", "result"),
    )
    for labels, library in found:
        ceiling.add_metric(labels, library.cache_bytes)
        for size, hits, misses in class_rows(library):
            requests.add_metric([*labels, str(size), "hit"], hits)
            requests.add_metric([*labels, str(size), "miss"], misses)
    yield ceiling
    yield requests


def _comm(pid: int) -> str:
    with suppress(OSError):
        return clean(Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").rstrip("\n"))
    return ""
