// SPDX-License-Identifier: MIT OR Apache-2.0

//! halo2_proofs: repeated squaring in PLONK with inner-product commitments
//! over the Pasta curves, 2^SIZE rows.
//!
//! A control: nearly all of its time is multi-exponentiation, so no allocator
//! can do much for it.

use halo2_proofs::circuit::{Layouter, SimpleFloorPlanner, Value};
use halo2_proofs::pasta::{EqAffine, Fp};
use halo2_proofs::plonk::{
    create_proof, keygen_pk, keygen_vk, verify_proof, Advice, Circuit, Column, ConstraintSystem,
    Error, Instance, Selector, SingleVerifier,
};
use halo2_proofs::poly::commitment::Params;
use halo2_proofs::poly::Rotation;
use halo2_proofs::transcript::{Blake2bRead, Blake2bWrite, Challenge255};
use meter::start;
use rand::rngs::StdRng;
use rand::SeedableRng;

/// Squares `base` once for each row but the last few, which blinding needs.
#[derive(Clone, Copy)]
struct Squarings {
    base: Value<Fp>,
    count: usize,
}

#[derive(Clone, Copy)]
struct Columns {
    value: Column<Advice>,
    result: Column<Instance>,
    square: Selector,
}

impl Circuit<Fp> for Squarings {
    type Config = Columns;
    type FloorPlanner = SimpleFloorPlanner;

    fn without_witnesses(&self) -> Self {
        Self { base: Value::unknown(), count: self.count }
    }

    fn configure(meta: &mut ConstraintSystem<Fp>) -> Columns {
        let columns = Columns {
            value: meta.advice_column(),
            result: meta.instance_column(),
            square: meta.selector(),
        };
        meta.enable_equality(columns.value);
        meta.enable_equality(columns.result);
        meta.create_gate("square", |meta| {
            let here = meta.query_advice(columns.value, Rotation::cur());
            let next = meta.query_advice(columns.value, Rotation::next());
            vec![meta.query_selector(columns.square) * (here.clone() * here - next)]
        });
        columns
    }

    fn synthesize(
        &self,
        columns: Columns,
        mut layouter: impl Layouter<Fp>,
    ) -> Result<(), Error> {
        let last = layouter.assign_region(
            || "squarings",
            |mut region| {
                let mut value = self.base;
                let mut cell = region.assign_advice(|| "base", columns.value, 0, || value)?;
                for row in 0..self.count {
                    columns.square.enable(&mut region, row)?;
                    value = value.map(|v| v * v);
                    cell = region.assign_advice(|| "next", columns.value, row + 1, || value)?;
                }
                Ok(cell.cell())
            },
        )?;
        layouter.constrain_instance(last, columns.result, 0)
    }
}

fn main() {
    let (arguments, bench) = start();
    let count = (1usize << arguments.size) * 9 / 10;
    let base = Fp::from(3);
    let result = [(0..count).fold(base, |value, _| value * value)];
    let circuit = Squarings { base: Value::known(base), count };
    let params = Params::<EqAffine>::new(arguments.size);
    let key = keygen_vk(&params, &circuit).expect("the circuit fits");
    let key = keygen_pk(&params, key, &circuit).expect("the circuit fits");
    bench.prove_loop(
        arguments.proofs,
        || {
            let random = StdRng::seed_from_u64(1); // its secrets need not be secret
            let mut transcript = Blake2bWrite::<_, _, Challenge255<_>>::init(Vec::new());
            create_proof(&params, &key, &[circuit], &[&[&result]], random, &mut transcript)
                .expect("the witness satisfies the circuit");
            transcript.finalize()
        },
        |proof| {
            let strategy = SingleVerifier::new(&params);
            let mut transcript = Blake2bRead::<_, _, Challenge255<_>>::init(&proof[..]);
            verify_proof(&params, key.get_vk(), strategy, &[&[&result]], &mut transcript).is_ok()
        },
        &format!("2^{} rows, {count} squarings", arguments.size),
    );
}
