# SPDX-License-Identifier: MIT OR Apache-2.0
"""The provers: what to install, what to run, at which sizes."""

from __future__ import annotations

from dataclasses import dataclass

from .tools import HERE, Cargo, CSources, Go, Npm, Pip, Tool


@dataclass(frozen=True, slots=True)
class Prover:
    """A published prover and the workload that drives it."""

    name: str
    title: str
    tool: Tool
    script: str | None
    """The workload in `workloads/`; None where the tool is the workload itself."""
    unit: str
    sizes: dict[str, int]
    """`quick` for CI, `default`, `large`; the user may give any number."""
    proofs: int
    """Proofs in one process by default, the cold first one included."""
    in_child: bool = False
    """The allocator's variables are for a process that the workload starts."""
    preload_helps: bool = True
    """Whether the memory comes from malloc at all; False for the negative controls."""
    note: str = ""
    """What a reader of the table has to know about this row."""

    def size(self, wanted: str) -> int:
        """Turn `quick`, `default`, `large` or a number into a size."""
        if wanted in self.sizes:
            return self.sizes[wanted]
        if not wanted.isdecimal() or int(wanted) == 0:
            choices = ", ".join(self.sizes)
            raise ValueError(f"size {wanted!r} is neither a positive number nor one of {choices}")
        return int(wanted)

    def script_path(self) -> tuple[str, ...]:
        """Return the script as an argument of the tool's command."""
        return () if self.script is None else (str(HERE / "workloads" / self.script),)


PROVERS = {
    prover.name: prover
    for prover in (
        Prover(
            name="lean-multisig",
            title="leanVM (py-lean-multisig 0.4.0: zkVM STARK, Rust)",
            tool=Pip(("py-lean-multisig==0.4.0",)),
            script="lean_multisig.py",
            unit="signatures",
            sizes={"quick": 64, "default": 64, "large": 256},
            proofs=6,
        ),
        Prover(
            name="ezkl",
            title="ezkl 23.0.5 (halo2 with KZG, Rust)",
            tool=Pip(("ezkl==23.0.5", "onnx==1.23.2", "numpy==2.4.6")),
            script="ezkl_mlp.py",
            unit="k, 2^k rows",
            sizes={"quick": 14, "default": 16, "large": 18},
            proofs=4,
            note="reference string made here by ezkl's gen_srs",
        ),
        Prover(
            name="groth16",
            title="groth16py 0.2.0 (Groth16 on arkworks, Rust)",
            tool=Pip(("groth16py==0.2.0",)),
            script="groth16_chain.py",
            unit="multiplications",
            sizes={"quick": 30_000, "default": 30_000, "large": 100_000},
            proofs=6,
            note="keys from the package's single-party set-up",
        ),
        Prover(
            name="barretenberg",
            title="Barretenberg 5.0.0 (bb.js: UltraHonk, C++)",
            tool=Npm(
                (
                    "@aztec/bb.js@5.0.0",
                    "@noir-lang/noir_wasm@1.0.0-beta.26",
                    "@noir-lang/noir_js@1.0.0-beta.26",
                )
            ),
            script="barretenberg.mjs",
            unit="k, 2^k gates",
            sizes={"quick": 15, "default": 18, "large": 20},
            proofs=4,
            in_child=True,
            note="own reference string; verified by a bb with that string's G2 point",
        ),
        Prover(
            name="plonky2",
            title="plonky2 1.1.0 (repeated squaring, Rust)",
            tool=Cargo("rust", "prove-plonky2"),
            script=None,
            unit="k, 2^k rows",
            sizes={"quick": 12, "default": 15, "large": 17},
            proofs=4,
        ),
        Prover(
            name="plonky3",
            title="Plonky3 0.8.0 (Keccak-f AIR over BabyBear, Rust)",
            tool=Cargo("rust", "prove-plonky3"),
            script=None,
            unit="k, 2^k rows",
            sizes={"quick": 13, "default": 15, "large": 17},
            proofs=5,
        ),
        Prover(
            name="triton",
            title="Triton VM 9.0.1 (zkVM STARK, Rust)",
            tool=Cargo("rust", "prove-triton"),
            script=None,
            unit="k, 2^k rows",
            sizes={"quick": 10, "default": 14, "large": 16},
            proofs=4,
            note="without its feature jemalloc, which is the row rust-jemalloc-tuned",
        ),
        Prover(
            name="halo2",
            title="halo2_proofs 0.4.1 (PLONK with inner products, Rust)",
            tool=Cargo("rust", "prove-halo2"),
            script=None,
            unit="k, 2^k rows",
            sizes={"quick": 11, "default": 14, "large": 17},
            proofs=4,
            note="control: multi-exponentiation, hardly any allocation",
        ),
        Prover(
            name="kzg",
            title="c-kzg 2.1.8 (KZG cell proofs, C)",
            tool=CSources(
                "c",
                (("CKZG", "c-kzg"), ("BLST", "blst")),
                "kzg",
                (("--setup", "c-kzg", "src/trusted_setup.txt"),),
            ),
            script=None,
            unit="blobs of 128 KiB",
            sizes={"quick": 1, "default": 8, "large": 32},
            proofs=5,
            note="zknalloc is linked into the program, not preloaded",
        ),
        Prover(
            name="snarkjs",
            title="snarkjs 0.7.6 (Groth16 in WebAssembly)",
            tool=Npm(("snarkjs@0.7.6", "circom2@0.2.23")),
            script="snarkjs.mjs",
            unit="multiplications",
            sizes={"quick": 500, "default": 4000, "large": 30_000},
            proofs=4,
            preload_helps=False,
            note="negative control: WebAssembly memory never comes from malloc",
        ),
        Prover(
            name="gnark",
            title="gnark 0.14.0 (Groth16, Go)",
            tool=Go("go"),
            script=None,
            unit="multiplications",
            sizes={"quick": 10_000, "default": 100_000, "large": 300_000},
            proofs=4,
            preload_helps=False,
            note="negative control: the Go runtime never calls malloc",
        ),
    )
}
