// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmark patterns on the C library's allocator, through Rust.

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() {
    bench_harness::main(None)
}
