// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmark patterns on the tikv-jemallocator crate.

#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    bench_harness::main(None)
}
