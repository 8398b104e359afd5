// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compiles the C patterns, all but main.c, to call the functions of lib.rs.

fn main() {
    let folder = "../../c";
    let sources = [
        "harness.c", "crew.c", "fill.c", "zero.c", "size.c", "rows.c", "pairs.c", "threads.c",
        "replay.c",
    ];
    let mut build = cc::Build::new();
    build.std("gnu11").opt_level(2).warnings(true).extra_warnings(true);
    build.define("_GNU_SOURCE", None).define("BENCH_SIZED", None);
    for source in sources {
        build.file(format!("{folder}/{source}"));
    }
    println!("cargo:rerun-if-changed={folder}");
    build.compile("bench_patterns");
}
