// SPDX-License-Identifier: MIT OR Apache-2.0

//! Prove in a loop and print what each proof cost, one JSON line a proof.
//!
//! The protocol is that of `workloads/meter.py`: only proving is measured, and
//! a proof that its own verifier refuses ends the program with an error.
//!
//! The features `jemalloc` and `zk-alloc` make those crates the program's allocator;
//! at most one of them.

use std::ffi::{c_char, c_int};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use serde::Serialize;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "zk-alloc")]
#[global_allocator]
static GLOBAL: zk_alloc::ZkAllocator = zk_alloc::ZkAllocator;

/// What the runner passes to every workload.
#[derive(Parser)]
pub struct Arguments {
    /// How large the circuit is; each workload says in which unit
    #[arg(long)]
    pub size: u32,
    /// Proofs to make
    #[arg(long, default_value_t = 0)]
    pub proofs: u32,
    /// Threads; rayon takes them from RAYON_NUM_THREADS
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Folder for keys and inputs
    #[arg(long)]
    pub data: PathBuf,
}

/// Hits and misses of libzknalloc.
#[derive(Clone, Copy, Serialize, serde::Deserialize)]
struct Counters {
    hits: u64,
    misses: u64,
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: u32,
    setup_s: f64,
    what: &'a str,
}

#[derive(Serialize)]
struct Line {
    proof: u32,
    wall_s: f64,
    user_s: f64,
    sys_s: f64,
    minor_faults: i64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    counters: Option<Counters>,
    verified: bool,
    peak_rss_kib: i64,
}

/// Parse the command line; `started` is for [`Bench::prove_loop`].
pub fn start() -> (Arguments, Bench) {
    let started = Instant::now();
    (Arguments::parse(), Bench { started })
}

/// The clock that set-up time is taken from.
pub struct Bench {
    started: Instant,
}

impl Bench {
    /// Prove and verify `proofs` times, or stop at the first refused proof.
    pub fn prove_loop<P>(
        &self,
        proofs: u32,
        mut prove: impl FnMut() -> P,
        mut verify: impl FnMut(&P) -> bool,
        what: &str,
    ) {
        say(&Ready {
            ready: std::process::id(),
            setup_s: self.started.elapsed().as_secs_f64(),
            what,
        });
        for number in 0..proofs {
            let library = library_counters();
            let before = usage();
            let start = Instant::now();
            let proof = in_phase(number, &mut prove);
            let wall_s = start.elapsed().as_secs_f64();
            let after = usage();
            let counters = library.zip(library_counters()).map(|(old, new)| Counters {
                hits: new.hits - old.hits,
                misses: new.misses - old.misses,
            });
            let verified = verify(&proof);
            say(&Line {
                proof: number,
                wall_s,
                user_s: seconds(after.ru_utime) - seconds(before.ru_utime),
                sys_s: seconds(after.ru_stime) - seconds(before.ru_stime),
                minor_faults: after.ru_minflt - before.ru_minflt,
                counters,
                verified,
                peak_rss_kib: usage().ru_maxrss,
            });
            if !verified {
                eprintln!("proof {number} was refused by the prover's own verifier");
                std::process::exit(1);
            }
        }
    }
}

/// Prove within a phase of zk-alloc, which reuses the memory of the phase before.
///
/// Its documentation wants all that outlives a phase to be made before the first one:
/// thread pools, and the tables that provers keep from the first proof on. So the first
/// proof, the cold one, is made outside. The proof itself lives until the next phase.
#[cfg(feature = "zk-alloc")]
fn in_phase<P>(number: u32, prove: impl FnOnce() -> P) -> P {
    if number == 0 {
        prove()
    } else {
        zk_alloc::phase(prove)
    }
}

#[cfg(not(feature = "zk-alloc"))]
fn in_phase<P>(_number: u32, prove: impl FnOnce() -> P) -> P {
    prove()
}

fn say(line: &impl Serialize) {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line).expect("a line is plain data");
    out.write_all(b"\n").and_then(|()| out.flush()).expect("the runner reads our output");
}

fn usage() -> libc::rusage {
    // SAFETY: getrusage only writes to the struct, for which all zeroes are valid.
    unsafe {
        let mut usage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 * 1e-6
}

/// Ask the preloaded library for its counters; None where it is not loaded.
fn library_counters() -> Option<Counters> {
    type StatsJson = unsafe extern "C" fn(*mut c_char, usize) -> c_int;
    // SAFETY: the symbol, where it exists, is zknalloc.h's zkn_stats_json, which
    // writes at most that many bytes and returns the length of the text.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"zkn_stats_json".as_ptr());
        if symbol.is_null() {
            return None;
        }
        let stats_json: StatsJson = std::mem::transmute(symbol);
        let mut text = [0u8; 16 * 1024];
        let length = stats_json(text.as_mut_ptr().cast(), text.len()) as usize;
        serde_json::from_slice(text.get(..length)?).ok()
    }
}
