// SPDX-License-Identifier: MIT OR Apache-2.0

//! Vectors from the cache, round after round, with an allocator chosen in three
//! lines.

use zknalloc::ZkNalloc;

#[global_allocator]
static GLOBAL: ZkNalloc = ZkNalloc;

const ROWS: usize = 1 << 20;
const ROUNDS: usize = 5;

/// Proves, and says where the widest buffer was.
fn prove() -> (u64, *const u64) {
    let mut column: Vec<u64> = vec![0; ROWS]; // alloc_zeroed
    for (i, value) in column.iter_mut().enumerate() {
        *value = (i * i) as u64;
    }
    column.reserve_exact(ROWS); // realloc: grows without copying
    for i in 0..ROWS {
        column.push(column[i].wrapping_mul(3) + 1);
    }
    let place = column.as_ptr();
    assert!(zknalloc::owns(place), "the cache serves large vectors");
    while column.len() > 1 {
        let half = column.len() / 2;
        for i in 0..half {
            column[i] = column[i].wrapping_add(column[half + i]);
        }
        column.truncate(half);
    }
    (column[0], place)
}

#[repr(align(4096))]
struct Page(#[allow(dead_code)] [u8; 4096]);

fn main() {
    let first = prove();
    for _ in 1..ROUNDS {
        assert_eq!(prove(), first, "the same memory serves each round");
    }
    let pages: Vec<Page> = (0..100).map(|_| Page([7; 4096])).collect();
    assert_eq!(pages.as_ptr() as usize % 4096, 0);
    drop(pages);
    println!("{ROUNDS} rounds on zknalloc {}", zknalloc::version());
    zknalloc::stage_boundary(); // the proof is out: give the memory back
}
