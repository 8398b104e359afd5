// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plonky3: Keccak-f permutations in a STARK of 2^SIZE rows over BabyBear.
//!
//! The trace is one buffer of 2633 columns: 10 KiB a row, 172 MB at SIZE 14,
//! and twice that again once extended.  FRI commitments use Poseidon2.

use meter::start;
use p3_baby_bear::{default_babybear_poseidon2_16, BabyBear, Poseidon2BabyBear};
use p3_challenger::DuplexChallenger;
use p3_commit::ExtensionMmcs;
use p3_dft::Radix2DitParallel;
use p3_field::extension::BinomialExtensionField;
use p3_field::Field;
use p3_fri::{FriParameters, TwoAdicFriPcs};
use p3_keccak_air::{generate_trace_rows, KeccakAir, NUM_ROUNDS};
use p3_merkle_tree::MerkleTreeMmcs;
use p3_symmetric::{PaddingFreeSponge, TruncatedPermutation};
use p3_uni_stark::{prove, verify, Proof, StarkConfig};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type Val = BabyBear;
type Packed = <Val as Field>::Packing;
type Challenge = BinomialExtensionField<Val, 4>;
type Permutation = Poseidon2BabyBear<16>;
type Hash = PaddingFreeSponge<Permutation, 16, 8, 8>;
type Compress = TruncatedPermutation<Permutation, 2, 8, 16>;
type ValMmcs = MerkleTreeMmcs<Packed, Packed, Hash, Compress, 2, 8>;
type ChallengeMmcs = ExtensionMmcs<Val, Challenge, ValMmcs>;
type Dft = Radix2DitParallel<Val>;
type Pcs = TwoAdicFriPcs<Val, Dft, ValMmcs, ChallengeMmcs>;
type Challenger = DuplexChallenger<Val, Permutation, 16, 8>;
type Config = StarkConfig<Pcs, Challenge, Challenger>;

fn main() {
    let (arguments, bench) = start();
    let permutations = (1usize << arguments.size) / NUM_ROUNDS;
    let permutation = default_babybear_poseidon2_16();
    let values = ValMmcs::new(
        Hash::new(permutation.clone()),
        Compress::new(permutation.clone()),
        0,
    );
    let parameters = FriParameters::new_benchmark(ChallengeMmcs::new(values.clone()));
    let spare = parameters.log_blowup;
    let pcs = Pcs::new(Dft::default(), values, parameters);
    let config = Config::new(pcs, Challenger::new(permutation));

    let mut random = StdRng::seed_from_u64(1);
    let inputs: Vec<[u64; 25]> = (0..permutations).map(|_| random.random()).collect();
    bench.prove_loop(
        arguments.proofs,
        || {
            let trace = generate_trace_rows::<Val>(inputs.clone(), spare);
            prove(&config, &KeccakAir {}, trace, &[]).expect("the trace satisfies the AIR")
        },
        |proof: &Proof<Config>| verify(&config, &KeccakAir {}, proof, &[]).is_ok(),
        &format!("2^{} rows, {permutations} Keccak-f permutations", arguments.size),
    );
}
