# SPDX-License-Identifier: MIT OR Apache-2.0
# mypy: ignore-errors
"""leanVM (py-lean-multisig): aggregate SIZE hash-based signatures in one STARK.

The zkVM executes the verification of every signature and proves that it did;
its traces are a few buffers of up to 320 MB, given back after each proof.
"""

from __future__ import annotations

import py_lean_multisig as lm
from meter import arguments, prove_loop

MESSAGE = b"\x42" * 32
SLOT = 3


def main() -> None:
    """Sign once, then aggregate and verify in a loop."""
    args = arguments("signatures")
    keys = [lm.keygen(i.to_bytes(32, "little"), 0, 7) for i in range(1, args.size + 1)]
    public = [key.public_key for key, _ in keys]
    signatures = [
        lm.sign(key, MESSAGE, SLOT, rng_seed=i.to_bytes(32, "big"))
        for i, (key, _) in enumerate(keys)
    ]
    prover, verifier = lm.Prover(log_inv_rate=1), lm.Verifier()

    def verify(proof: tuple[list[lm.PublicKey], lm.AggregatedSignature]) -> bool:
        signers, aggregate = proof
        try:
            verifier.verify(signers, MESSAGE, aggregate, SLOT)
        except lm.LeanMultisigError:
            return False
        return len(signers) == args.size

    prove_loop(
        args.proofs,
        lambda: prover.aggregate(public, signatures, MESSAGE, SLOT),
        verify,
        f"{args.size} XMSS signatures aggregated",
    )


if __name__ == "__main__":
    main()
