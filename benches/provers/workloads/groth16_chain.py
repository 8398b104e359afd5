# SPDX-License-Identifier: MIT OR Apache-2.0
# mypy: ignore-errors
"""groth16py (arkworks): a circom chain of SIZE squarings, proved with Groth16.

The prover is compute-bound (multi-scalar multiplication), so it is the control
on which no allocator can win anything.  Its circom source is written here and
compiled by the package; the keys come from its single-party set-up.
"""

from __future__ import annotations

from pathlib import Path

import groth16py
from meter import arguments, prove_loop

CIRCUIT = """pragma circom 2.0.0;
template Chain(n) {{
    signal input x;
    signal output y;
    signal state[n + 1];
    state[0] <== x;
    for (var i = 0; i < n; i++) {{
        state[i + 1] <== state[i] * state[i] + i;
    }}
    y <== state[n];
}}
component main = Chain({size});
"""
FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617
INPUT = 3


def output(size: int) -> int:
    """Compute the circuit's public output in plain integers."""
    state = INPUT
    for i in range(size):
        state = (state * state + i) % FIELD
    return state


def keys(data: Path, size: int) -> tuple[groth16py.ProvingKey, groth16py.VerifyingKey]:
    """Load the keys of the circuit, made and saved where they are missing."""
    proving, verifying = data / f"chain-{size}.pk", data / f"chain-{size}.vk"
    if not verifying.exists():
        source = data / f"chain-{size}.circom"
        source.write_text(CIRCUIT.format(size=size))
        proving_key, verifying_key = groth16py.setup_circom(str(source))
        proving_key.save(str(proving))
        whole = data / f"chain-{size}.vk.part"
        verifying_key.save(str(whole))
        whole.rename(verifying)  # last, so that a broken set-up is made again
    return (
        groth16py.ProvingKey.load(str(proving)),
        groth16py.VerifyingKey.load(str(verifying)),
    )


def main() -> None:
    """Load the keys, then prove and verify in a loop."""
    args = arguments("multiplications")
    proving_key, verifying_key = keys(args.data, args.size)
    verifier = groth16py.Verifier(verifying_key)
    expected = output(args.size)
    prove_loop(
        args.proofs,
        lambda: groth16py.prove(proving_key, {"x": INPUT}),
        lambda proof: (
            verifier.verify(proof, [expected])
            and not verifier.verify(proof, [(expected + 1) % FIELD])
        ),
        f"{args.size} multiplications, witness included",
    )


if __name__ == "__main__":
    main()
