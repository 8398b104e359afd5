// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C benchmark patterns on Rust's global allocator.
//!
//! A Rust allocator is told the size and the alignment of what it frees, so a
//! preloaded `malloc` would not do it justice: it would need a header. Instead the
//! patterns are compiled to call the four functions below, which pass everything on to
//! `std::alloc`, as `Vec` does. The price of that is one call more than in C; the
//! program with the `System` allocator shows it.
//!
//! An allocator that works in phases gets a phase for each round, through [`Phases`].

use std::alloc::{alloc, alloc_zeroed, dealloc, realloc, Layout};
use std::ffi::{c_char, c_int, CString};
use std::os::unix::ffi::OsStringExt;
use std::process::exit;
use std::sync::OnceLock;

/// What to call around each round, on the main thread, with the clock running.
#[derive(Clone, Copy)]
pub struct Phases {
    pub begin: fn(),
    pub end: fn(),
}

static PHASES: OnceLock<Phases> = OnceLock::new();

extern "C" {
    fn bench_main(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

/// Runs the command line of this process, then ends it.
pub fn main(phases: Option<Phases>) -> ! {
    if let Some(phases) = phases {
        // The cell is empty: nobody else fills it.
        let _ = PHASES.set(phases);
    }
    let arguments: Vec<CString> = std::env::args_os()
        .map(|argument| CString::new(argument.into_vec()).expect("arguments have no NUL"))
        .collect();
    let mut pointers: Vec<*mut c_char> =
        arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    let count = c_int::try_from(pointers.len()).expect("few arguments");
    pointers.push(std::ptr::null_mut());
    // SAFETY: pointers is a NULL-terminated array of `count` C strings that outlive the call.
    exit(unsafe { bench_main(count, pointers.as_mut_ptr()) })
}

fn layout(size: usize, alignment: usize) -> Layout {
    debug_assert!(size > 0 && alignment.is_power_of_two());
    // SAFETY: the patterns ask for at least one byte, far below isize::MAX, at a power of two.
    unsafe { Layout::from_size_align_unchecked(size, alignment) }
}

const PLAIN: usize = 16;

#[no_mangle]
extern "C" fn bench_alloc(size: usize, alignment: usize) -> *mut u8 {
    // SAFETY: the layout has a size.
    unsafe { alloc(layout(size, alignment)) }
}

#[no_mangle]
extern "C" fn bench_alloc_zeroed(size: usize) -> *mut u8 {
    // SAFETY: the layout has a size.
    unsafe { alloc_zeroed(layout(size, PLAIN)) }
}

/// # Safety
/// `p` is a live block of that size and alignment.
#[no_mangle]
unsafe extern "C" fn bench_realloc(
    p: *mut u8,
    old_size: usize,
    alignment: usize,
    new_size: usize,
) -> *mut u8 {
    realloc(p, layout(old_size, alignment), new_size)
}

/// # Safety
/// `p` is a live block of that size and alignment.
#[no_mangle]
unsafe extern "C" fn bench_free(p: *mut u8, size: usize, alignment: usize) {
    dealloc(p, layout(size, alignment));
}

#[no_mangle]
extern "C" fn bench_phase_begin() {
    if let Some(phases) = PHASES.get() {
        (phases.begin)();
    }
}

#[no_mangle]
extern "C" fn bench_phase_end() {
    if let Some(phases) = PHASES.get() {
        (phases.end)();
    }
}
