// SPDX-License-Identifier: MIT OR Apache-2.0

//! plonky2: repeated squaring in a circuit of 2^SIZE rows.
//!
//! SIZE 17 is the row that zk-nalloc published (7.5 s and 4.7 GB on 16 cores);
//! a smaller one fits a smaller machine and has the same shape.

use meter::start;
use plonky2::field::ops::Square;
use plonky2::field::types::Field;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_builder::CircuitBuilder;
use plonky2::plonk::circuit_data::CircuitConfig;
use plonky2::plonk::config::{GenericConfig, PoseidonGoldilocksConfig};

const D: usize = 2;
type C = PoseidonGoldilocksConfig;
type F = <C as GenericConfig<D>>::F;

/// Multiplications that one arithmetic gate of the standard configuration holds.
const PER_ROW: usize = 20;

fn main() {
    let (arguments, bench) = start();
    let rows = 1usize << arguments.size;
    let squarings = rows * PER_ROW * 9 / 10;
    let mut builder = CircuitBuilder::<F, D>::new(CircuitConfig::standard_recursion_config());
    let input = builder.add_virtual_target();
    let mut value = input;
    for _ in 0..squarings {
        value = builder.square(value);
    }
    builder.register_public_input(input);
    builder.register_public_input(value);
    let circuit = builder.build::<C>();
    assert_eq!(circuit.common.degree(), rows, "the circuit must fill its rows");

    let base = F::from_canonical_u64(3);
    let expected = (0..squarings).fold(base, |value, _| value.square());
    bench.prove_loop(
        arguments.proofs,
        || {
            let mut witness = PartialWitness::new();
            witness.set_target(input, base).expect("the input is free");
            circuit.prove(witness).expect("the witness satisfies the circuit")
        },
        |proof| {
            proof.public_inputs == [base, expected] && circuit.verify(proof.clone()).is_ok()
        },
        &format!("2^{} rows, {squarings} squarings", arguments.size),
    );
}
