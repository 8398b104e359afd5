// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmark patterns on the mimalloc crate.

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    bench_harness::main(None)
}
