# SPDX-License-Identifier: MIT OR Apache-2.0
"""The work: each case prepares its input and returns a round, which it then checks.

NumPy makes a new array for every operator, so a line such as `(a * b + c) % p`
takes and gives back three of them: that, and nothing of ours, is what a round
allocates.  Everything is exact and checked against another way to compute it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CASES", "Case", "Round"]

Round = Callable[[], Any]
Array = np.ndarray[Any, np.dtype[Any]]

#: BabyBear: 15 * 2^27 + 1.  31 is a generator, products of two fit 64 bits.
P = 15 * 2**27 + 1
GENERATOR = 31
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes
    ----------
    name, what
        As the table shows it.
    temporaries
        The bytes of the largest arrays that a round makes again and again.
    prepare
        Makes the input; returns the round.
    check
        Raises AssertionError if a round's result is wrong.
    needs
        A module beyond NumPy.
    prepare_limit
        As `prepare`, for the same work on arrays that are there already: no
        allocator can be faster.  Where the code is ours and short enough.
    """

    name: str
    what: str
    temporaries: int
    prepare: Callable[[], Round]
    check: Callable[[Any], None]
    needs: str = ""
    prepare_limit: Callable[[], Round] | None = None


def field_elements(count: int, seed: int) -> Array:
    """Return `count` residues, always the same."""
    return np.random.default_rng(seed).integers(0, P, count, dtype=np.uint64)


# ------------------------------------------------------------ element-wise


def multiply_add(nbytes: int, *, modular: bool) -> Case:
    """Make the case of one line on arrays of `nbytes` bytes."""
    count = nbytes // 8
    repeat = max(1, 16 * MIB // nbytes)  # a round is some milliseconds at least

    def inputs() -> list[Array]:
        arrays = [field_elements(count, seed) for seed in range(3)]
        return arrays if modular else [array.astype(np.float64) for array in arrays]

    def prepare() -> Round:
        a, b, c = inputs()

        def one_round() -> Array:
            for _ in range(repeat):
                result = (a * b + c) % P if modular else a * b + c
            return result

        return one_round

    def prepare_limit() -> Round:
        a, b, c = inputs()
        result = np.zeros_like(a)

        def one_round() -> Array:
            for _ in range(repeat):
                np.multiply(a, b, out=result)
                np.add(result, c, out=result)
                if modular:
                    np.remainder(result, P, out=result)
            return result

        return one_round

    def check(result: Array) -> None:
        picks = [0, count // 2, count - 1]
        a, b, c = ([int(field_elements(count, seed)[i]) for i in picks] for seed in range(3))
        exact = [x * y + z for x, y, z in zip(a, b, c, strict=True)]
        if modular:
            assert [int(result[i]) for i in picks] == [value % P for value in exact]
        else:
            np.testing.assert_allclose(result[picks], exact)

    size = f"{nbytes // MIB}M" if nbytes >= MIB else f"{nbytes // 1024}K"
    kind, line = ("modular", "(a * b + c) % p") if modular else ("float", "a * b + c")
    what = f"{line} on arrays of {size}iB"
    return Case(f"{kind}-{size}", what, nbytes, prepare, check, prepare_limit=prepare_limit)


# --------------------------------------------------------------------- NTT


@functools.cache
def powers(root: int, count: int) -> Array:
    """Return the first `count` powers of `root` modulo P."""
    result = np.ones(1, np.uint64)
    while len(result) < count:
        step = np.uint64(pow(root, len(result), P))
        result = np.concatenate([result, result * step % P])
    return result[:count]


def ntt(values: Array) -> Array:
    """Transform each row of `values`, of length 2^k, from its order to its order.

    Stockham's: each stage reads one array and writes another, no bit reversal.
    """
    rows, length = values.shape
    root = pow(GENERATOR, (P - 1) // length, P)
    half, groups = length // 2, 1
    while half:
        pairs = values.reshape(rows, 2, half, groups)
        twiddles = powers(root, length // 2)[: half * groups : groups][:, None]
        even, odd = pairs[:, 0], pairs[:, 1]
        values = np.stack([(even + odd) % P, (even + (P - odd)) * twiddles % P], axis=2)
        values = values.reshape(rows, length)
        half, groups = half // 2, groups * 2
    return values


def numpy_ntt(log: int, rows: int) -> Case:
    """Make the case of the transform above."""
    length = 1 << log

    def prepare() -> Round:
        columns = field_elements(rows * length, 7).reshape(rows, length)
        powers(pow(GENERATOR, (P - 1) // length, P), length // 2)
        return lambda: ntt(columns)

    def check(result: Array) -> None:
        columns = field_elements(rows * length, 7).reshape(rows, length)
        root = pow(GENERATOR, (P - 1) // length, P)
        for index in (0, 1, length - 3):
            weights = powers(pow(root, index, P), length)
            for row in (0, rows - 1):
                assert int((columns[row] * weights % P).sum()) % P == int(result[row, index])

    nbytes = rows * length * 8
    what = f"number-theoretic transform of {rows} x 2^{log}, in NumPy"
    return Case(f"ntt-{rows}x2^{log}", what, nbytes // 2, prepare, check)


# --------------------------------------------------------------------- MSM


def msm(log: int, window: int = 16) -> Case:
    """Make the case of Pippenger's method, buckets and all, over a field's additive group.

    A point is one residue, so that sums are exact in one NumPy call; what is
    allocated is as for a curve, a few times smaller.
    """
    count = 1 << log

    def inputs() -> tuple[Array, Array]:
        scalars = np.random.default_rng(1).integers(0, 2**64, count, dtype=np.uint64)
        return scalars, field_elements(count, 2)

    def prepare() -> Round:
        scalars, points = inputs()

        def one_round() -> int:
            total = 0
            for shift in reversed(range(0, 64, window)):
                digits = (scalars >> np.uint64(shift)) & np.uint64((1 << window) - 1)
                # Sums stay below 2^53, where doubles are exact.
                buckets = np.bincount(digits.astype(np.int64), points, 1 << window)
                sums = np.cumsum(buckets[:0:-1].astype(np.uint64) % P)
                total = (total * (1 << window) + int((sums % P).sum())) % P
            return total

        return one_round

    def check(result: int) -> None:
        scalars, points = inputs()
        exact = sum(s * p for s, p in zip(scalars.tolist(), points.tolist(), strict=True))
        assert result == exact % P

    what = f"multi-scalar multiplication of 2^{log} points by buckets, in NumPy"
    return Case(f"msm-2^{log}", what, count * 8, prepare, check)


# ------------------------------------------------------------------- galois


def galois_ntt(log: int) -> Case:
    """Make the case of galois's own transform."""
    length = 1 << log

    def prepare() -> Round:
        import galois  # noqa: PLC0415 - of the extra "bench"; seconds to import

        values = field_elements(length, 3).astype(np.int64)
        galois.ntt(values[:16], modulus=P)  # compiles
        return lambda: np.asarray(galois.ntt(values, modulus=P))

    def check(result: Array) -> None:
        values = field_elements(length, 3)
        assert int(result[0]) == int(values.sum()) % P
        # Whatever root of unity was taken: the transform is sum over all i.
        back = sum(int(value) for value in result.astype(np.uint64).tolist()) % P
        assert back == int(values[0]) * length % P

    what = f"galois.ntt of 2^{log} elements"
    return Case(f"galois-ntt-2^{log}", what, length * 8, prepare, check, "galois")


def galois_rs(log: int) -> Case:
    """Make the case of galois's Reed-Solomon encoder, RS(255, 223) over bytes."""
    words = (1 << log) // 223

    def message() -> Array:
        return np.random.default_rng(4).integers(0, 256, (words, 223), dtype=np.uint8)

    def code() -> Any:
        import galois  # noqa: PLC0415 - of the extra "bench"; seconds to import

        return galois.ReedSolomon(255, 223)

    def prepare() -> Round:
        rs, data = code(), message()
        rs.encode(data[:2])  # compiles
        return lambda: np.asarray(rs.encode(data))

    def check(result: Array) -> None:
        data = message()
        assert (result[:, :223] == data).all()
        damaged = result[:3].copy()
        damaged[:, 5:9] ^= 0x5A
        assert (np.asarray(code().decode(damaged)) == data[:3]).all()

    what = f"galois.ReedSolomon(255, 223).encode of 2^{log} bytes"
    return Case(f"galois-rs-2^{log}", what, 1 << log, prepare, check, "galois")


CASES = {
    case.name: case
    for case in (
        *(multiply_add(size << 10, modular=False) for size in (16, 64, 256)),
        *(multiply_add(size * MIB, modular=False) for size in (1, 8, 32, 64, 128)),
        *(multiply_add(size * MIB, modular=True) for size in (8, 32, 64, 128)),
        numpy_ntt(20, 1),
        numpy_ntt(20, 8),
        msm(20),
        msm(23),
        galois_ntt(20),
        galois_ntt(22),
        galois_rs(20),
        galois_rs(25),
    )
}
"""Every case by name, in the order of the table."""
