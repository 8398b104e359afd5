# SPDX-License-Identifier: MIT OR Apache-2.0
# mypy: ignore-errors
"""ezkl (halo2 with KZG commitments): prove one inference of a small network.

SIZE is halo2's k: the circuit has 2^k rows.  The network is a chain of square
linear layers with ReLU, built here with fixed weights and as many layers as
fill more than half of the rows, so that k cannot be smaller.  ezkl makes the
structured reference string itself (`gen_srs`: its secret is not destroyed by
any ceremony, which is fine for a measurement and nothing else).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import ezkl
import numpy as np
import onnx
from meter import arguments, prove_loop
from onnx import TensorProto, helper, numpy_helper

WIDTH = 128
ROWS_PER_LAYER = 12_656
"""Measured with ezkl 23.0.5 at WIDTH, two inner columns and scale 2^7."""
SCALE = 7


@dataclass(frozen=True)
class Files:
    """Where the circuit of one size lies."""

    folder: Path
    k: int

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def srs(self) -> str:
        """The reference string, which depends on k alone."""
        return str(self.folder / f"kzg-{self.k}.srs")


def network(layers: int) -> onnx.ModelProto:
    """Build the ONNX model: LAYERS times MatMul and ReLU, weights from a seed."""
    random = np.random.default_rng(1)
    nodes, weights, value = [], [], "x"
    for i in range(layers):
        matrix = random.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"product{i}"]))
        value = "y" if i == layers - 1 else f"layer{i}"
        nodes.append(helper.make_node("Relu", [f"product{i}"], [value]))
    vector = [1, WIDTH]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, vector)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, vector)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def set_up(files: Files) -> None:
    """Make model, witness, reference string and keys; the stamp comes last."""
    layers = (1 << files.k) * 8 // 10 // ROWS_PER_LAYER
    if layers < 1:
        sys.exit(f"size {files.k} is too small for one layer: use 14 or more")
    files.folder.mkdir(parents=True, exist_ok=True)
    onnx.save(network(layers), files["model.onnx"])
    sample = np.random.default_rng(2).standard_normal(WIDTH)
    Path(files["input.json"]).write_text(json.dumps({"input_data": [sample.tolist()]}))
    options = ezkl.PyRunArgs()
    options.logrows = files.k
    options.input_scale = options.param_scale = SCALE
    ezkl.gen_settings(files["model.onnx"], files["settings.json"], options)
    ezkl.compile_circuit(files["model.onnx"], files["model.ezkl"], files["settings.json"])
    ezkl.gen_witness(files["input.json"], files["model.ezkl"], files["witness.json"])
    ezkl.gen_srs(files.srs, files.k)
    ezkl.setup(files["model.ezkl"], files["vk"], files["pk"], files.srs)
    rows = json.loads(Path(files["settings.json"]).read_text())["num_rows"]
    Path(files["complete"]).write_text(f"2^{files.k} rows, {rows} used, {layers} layers\n")


def main() -> None:
    """Set up where needed, then prove and verify in a loop."""
    args = arguments("k: log2 of the rows")
    files = Files(args.data / f"mlp-{args.size}", args.size)
    if not Path(files["complete"]).exists():
        set_up(files)
    proof = files["proof.json"]
    prove_loop(
        args.proofs,
        lambda: ezkl.prove(
            files["witness.json"], files["model.ezkl"], files["pk"], proof, files.srs
        ),
        lambda _: ezkl.verify(proof, files["settings.json"], files["vk"], files.srs),
        Path(files["complete"]).read_text().strip(),
    )


if __name__ == "__main__":
    main()
