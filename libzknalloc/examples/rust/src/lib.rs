// SPDX-License-Identifier: MIT OR Apache-2.0

//! libzknalloc as a program's global allocator.
//!
//! ```ignore
//! #[global_allocator]
//! static GLOBAL: zknalloc::ZkNalloc = zknalloc::ZkNalloc;
//! ```
//!
//! The final program chooses; a library never does.  Requests below 64 KiB go
//! on to the system allocator inside of the C library.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_char, c_void, CStr};

extern "C" {
    fn zkn_alloc(size: usize) -> *mut c_void;
    fn zkn_calloc(count: usize, size: usize) -> *mut c_void;
    fn zkn_aligned_alloc(alignment: usize, size: usize) -> *mut c_void;
    fn zkn_realloc(ptr: *mut c_void, size: usize) -> *mut c_void;
    fn zkn_free_sized(ptr: *mut c_void, size: usize);
    fn zkn_owns(ptr: *const c_void) -> bool;
    fn zkn_stage_boundary() -> usize;
    fn zkn_version() -> *const c_char;
}

/// What `zkn_alloc` and `zkn_realloc` align to, whatever the size.
const NATURAL: usize = 16;

/// The allocator; it has no state of its own.
pub struct ZkNalloc;

// SAFETY: the C functions have malloc's contract, are thread-safe and never
// unwind; alignments beyond NATURAL go to the function that takes one.
unsafe impl GlobalAlloc for ZkNalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            zkn_alloc(layout.size()).cast()
        } else {
            zkn_aligned_alloc(layout.align(), layout.size()).cast()
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            return zkn_calloc(1, layout.size()).cast();
        }
        let ptr = self.alloc(layout);
        if !ptr.is_null() {
            ptr.write_bytes(0, layout.size());
        }
        ptr
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        zkn_free_sized(ptr.cast(), layout.size());
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= NATURAL {
            return zkn_realloc(ptr.cast(), size).cast();
        }
        // SAFETY: the caller vouches for size, as for alloc.
        let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
        if !moved.is_null() {
            moved.copy_from_nonoverlapping(ptr, layout.size().min(size));
            self.dealloc(ptr, layout);
        }
        moved
    }
}

/// Whether the cache serves the memory at `ptr`.
pub fn owns<T>(ptr: *const T) -> bool {
    // SAFETY: compares the address, reads nothing.
    unsafe { zkn_owns(ptr.cast()) }
}

/// Give cached memory back; the next stage sets its own peak.
pub fn stage_boundary() -> usize {
    // SAFETY: touches free memory alone.
    unsafe { zkn_stage_boundary() }
}

/// The version of the library that was loaded.
pub fn version() -> &'static str {
    // SAFETY: a static string.
    unsafe { CStr::from_ptr(zkn_version()) }.to_str().expect("digits and dots")
}
