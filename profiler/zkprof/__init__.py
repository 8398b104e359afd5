# SPDX-License-Identifier: MIT OR Apache-2.0
"""Measure a running prover and predict what a recycling allocator would save.

`measure` watches a running process, `Report.of` judges what was measured:

>>> from zkprof import Report, measure
>>> report = Report.of(measure(pid, duration_s=10))     # doctest: +SKIP
>>> report.estimate.verdict, report.estimate.saving_wall.mid  # doctest: +SKIP
(<Verdict.BOUND: 'allocation-bound'>, 0.18)

On the command line: ``zkprof PID``.  Everything not named here is internal.
"""

from .errors import ZkprofError
from .estimate import Estimate, Verdict
from .measure import measure
from .model import Measurement
from .report import Report

__all__ = ["Estimate", "Measurement", "Report", "Verdict", "ZkprofError", "measure"]
