# SPDX-License-Identifier: MIT OR Apache-2.0
"""Calibration yields costs that agree with what the kernel counts."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.zkprof.conftest import possible
from zkprof import calibrate
from zkprof._native import ffi, lib
from zkprof.bootstrap import shares
from zkprof.calibrate import SampleCost, page_cost, sample_cost
from zkprof.classify import Classifier, NoKernelSymbolsError
from zkprof.family import Family
from zkprof.model import Tier
from zkprof.procfs import Process
from zkprof.sampled import SampledWindow
from zkprof.sampler import Counts, Sampler, stack_bytes
from zkprof.skid import fault_skid_s


def test_page_cost_is_ordered_and_plausible() -> None:
    cost = page_cost()
    assert 0 < cost.touch_low <= cost.touch_ns <= cost.touch_high
    assert 0 < cost.unmap_low <= cost.unmap_ns <= cost.unmap_high
    # From a fast host to a slow emulation; more would be a wrong unit.
    assert 20 < cost.touch_ns < 200_000
    assert cost.unmap_ns < cost.touch_ns
    assert page_cost() is cost, "measured once"


def test_calibration_faults_once_a_page_and_keeps_nothing() -> None:
    out = ffi.new("zkp_page_cost_t *")
    before = resource.getrusage(resource.RUSAGE_SELF)
    assert lib.zkp_calibrate_pages(1000, out) == 0
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert 1000 <= after.ru_minflt - before.ru_minflt < 1100


@pytest.mark.parametrize("pages", [0, 2**64 - 1])
def test_impossible_numbers_of_pages(pages: int) -> None:
    assert lib.zkp_calibrate_pages(pages, ffi.new("zkp_page_cost_t *")) < 0


def test_a_sample_costs_between_nothing_and_a_millisecond() -> None:
    try:
        classifier: Classifier | None = Classifier()
    except NoKernelSymbolsError:
        classifier = None
    cost = sample_cost(classifier, 8192)
    assert 0 <= cost.user_s < 1e-3
    assert 0 <= cost.kernel_s < 1e-3


def test_samples_are_priced_with_the_stacks_that_they_bring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    seen: list[Counts] = []
    copied: list[int | None] = []

    class Watched(Sampler):
        def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401
            copied.append(named["copied"])
            super().__init__(*args, **named)

        drains = 0

        def drain(self, timeout_s: float = 0.0) -> None:
            super().drain(timeout_s)
            self.drains += 1

        def close(self) -> None:
            if self.handle:
                # A full ring takes no more samples, and those seem to cost less.
                assert self.drains == calibrate._PARTS
                seen.append(self.counts)
            super().close()

    monkeypatch.setattr(calibrate, "Sampler", Watched)
    with Process(os.getpid()) as process:
        # Of this window alone: its classifier is its own, and the cost cached by it.
        SampledWindow(Family(process, follow=False), 199.0).close()
    assert set(copied) == {stack_bytes(199.0)}
    assert stack_bytes(199.0) > stack_bytes(4999.0)
    assert sum(c.samples for c in seen) > 100


def test_samples_cost_what_they_hit() -> None:
    cost = SampleCost(user_s=10e-6, kernel_s=20e-6)
    assert cost.overhead(200.0, 1.0) == pytest.approx(0.002)
    assert cost.overhead(200.0, 0.0) == pytest.approx(0.004)
    assert cost.overhead(200.0, 0.5) == pytest.approx(0.003)


def test_skid_is_the_same_from_any_thread() -> None:
    """Faults end late in the samples of a thread that is not the first one, too."""
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    with ThreadPoolExecutor(1) as pool:
        # Not measured before: a classifier of its own.
        skid = pool.submit(lambda: fault_skid_s(Classifier())).result()
    assert skid > 0


def test_interval_of_blocks_that_agree_is_a_point() -> None:
    assert shares([[3.0, 7.0]] * 50, [10.0] * 50) == [
        pytest.approx((0.3, 0.3)),
        pytest.approx((0.7, 0.7)),
    ]


def test_interval_of_blocks_that_differ_has_the_known_width() -> None:
    # Half of 100 blocks are all of the class, half none: the share's standard
    # error is 0.05, so the interval is 0.5 -+ 0.098.
    low, high = shares([[1.0]] * 50 + [[0.0]] * 50, [1.0] * 100)[0]
    assert low == pytest.approx(0.402, abs=0.02)
    assert high == pytest.approx(0.598, abs=0.02)


def test_interval_does_not_change_between_runs() -> None:
    parts = [[float(i % 7)] for i in range(40)]
    assert shares(parts, [7.0] * 40) == shares(parts, [7.0] * 40)


def test_empty_blocks_change_nothing() -> None:
    assert shares([[0.0], [0.0]], [0.0, 0.0]) == [(0.0, 0.0)]
