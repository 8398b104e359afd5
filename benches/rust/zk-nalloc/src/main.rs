// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmark patterns on the zk-nalloc crate.

#[global_allocator]
static GLOBAL: zk_nalloc::NAlloc = zk_nalloc::NAlloc::new();

fn main() {
    bench_harness::main(None)
}
