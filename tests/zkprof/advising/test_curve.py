# SPDX-License-Identifier: MIT OR Apache-2.0
"""The cache-size curve that is read off the rise and fall of memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkprof.curve import MIB, CachePoint, enough, fluid_curve, sizes_up_to
from zkprof.model import MemoryPoint


def series(*anon_mib: int, hwm_mib: int | None = None) -> tuple[MemoryPoint, ...]:
    peak = 0
    points = []
    for t, size in enumerate(anon_mib):
        peak = max(peak, size if hwm_mib is None else hwm_mib)
        points.append(MemoryPoint(float(t), size * MIB, size * MIB, peak * MIB, 0, 0, 0.0, 0.0, 1))
    return tuple(points)


def rates(curve: tuple[CachePoint, ...]) -> dict[int, float]:
    return {point.bytes // MIB: point.hit_rate for point in curve}


def test_a_sawtooth_needs_its_swing() -> None:
    # 512 MiB come and go; the process had had them before.
    curve = fluid_curve(series(*[100, 612] * 9, 100, hwm_mib=612), 9 * 512 * MIB)
    assert rates(curve) == {
        0: 0.0,
        64: pytest.approx(1 / 8),
        128: pytest.approx(1 / 4),
        256: pytest.approx(1 / 2),
        512: 1.0,
    }
    assert [point.bytes_missed // MIB for point in curve] == [4608, 4032, 3456, 2304, 0]
    best = enough(curve)
    assert best is not None
    assert best.bytes == 512 * MIB


def test_the_first_rise_is_growth() -> None:
    # Nothing was given back before it, and 1 of 4 rises is the first.
    curve = fluid_curve(series(*[100, 612] * 4, 100), 4 * 512 * MIB)
    assert rates(curve)[512] == pytest.approx(3 / 4)


@pytest.mark.parametrize("shape", [(), (100,), (100, 100, 100), (100, 500, 900), (900, 500, 100)])
def test_nothing_comes_back(shape: tuple[int, ...]) -> None:
    assert fluid_curve(series(*shape), 1 << 30) == ()


def test_no_curve_no_size() -> None:
    assert enough(()) is None


@pytest.mark.parametrize(("most", "last"), [(0, 64), (1, 64), (64, 64), (65, 128), (5000, 8192)])
def test_sizes_cover_what_is_asked_for(most: int, last: int) -> None:
    sizes = sizes_up_to(most * MIB)
    assert sizes[0] == 0
    assert sizes[-1] == last * MIB


@given(st.lists(st.integers(0, 2000), min_size=2, max_size=40), st.integers(0, 3000))
def test_more_cache_never_serves_less(sizes: list[int], hwm: int) -> None:
    curve = fluid_curve(series(*sizes, hwm_mib=max(hwm, *sizes)), 1 << 32)
    served = [point.hit_rate for point in curve]
    assert served == sorted(served)
    assert all(0 <= rate <= 1 + 1e-9 for rate in served)
    assert not curve or served[0] == 0.0
