// SPDX-License-Identifier: MIT OR Apache-2.0

//! Triton VM: repeated squaring in a zkVM, a STARK whose tables have 2^SIZE rows.
//!
//! One loop turn takes eleven cycles, a cycle is a row of the widest table.

use meter::start;
use triton_vm::prelude::*;

const CYCLES_PER_TURN: u64 = 11;

fn main() {
    let (arguments, bench) = start();
    let turns = (1u64 << arguments.size) * 9 / 10 / CYCLES_PER_TURN;
    let program = triton_program!(
        read_io 2               // base, turns (on top)
        call square
        pop 1 write_io 1 halt

        square:                 // value, turns left (on top)
            dup 0 push 0 eq skiz return
            push -1 add
            swap 1 dup 0 mul swap 1
            recurse
    );
    let base = BFieldElement::new(3);
    let input = PublicInput::new(vec![base, BFieldElement::new(turns)]);
    let expected = (0..turns).fold(base, |value, _| value * value);
    bench.prove_loop(
        arguments.proofs,
        || {
            triton_vm::prove_program(program.clone(), input.clone(), NonDeterminism::default())
                .expect("the program halts")
        },
        |(stark, claim, proof)| {
            claim.output == [expected] && triton_vm::verify(*stark, claim, proof)
        },
        &format!("2^{} rows, {turns} squarings", arguments.size),
    );
}
