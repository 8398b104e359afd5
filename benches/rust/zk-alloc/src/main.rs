// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmark patterns on the zk-alloc crate.
//!
//! Its arena works only inside a phase, whose beginning forgets every block of the one
//! before. So each round is a phase, except in patterns that keep blocks from round to
//! round: those run outside, on its other half, the C library's allocator.

#[global_allocator]
static GLOBAL: zk_alloc::ZkAllocator = zk_alloc::ZkAllocator;

fn main() {
    bench_harness::main(Some(bench_harness::Phases {
        begin: zk_alloc::begin_phase,
        end: zk_alloc::end_phase,
    }))
}
