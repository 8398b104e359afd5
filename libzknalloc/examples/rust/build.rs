// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ask pkg-config where the installed library lies.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let found = Command::new("pkg-config")
        .args(["--variable=libdir", "zknalloc"])
        .output()
        .expect("pkg-config is not installed");
    assert!(
        found.status.success(),
        "pkg-config does not know zknalloc; set PKG_CONFIG_PATH=PREFIX/lib/pkgconfig\n{}",
        String::from_utf8_lossy(&found.stderr),
    );
    let folder = String::from_utf8(found.stdout).expect("a path");
    let folder = folder.trim();
    println!("cargo:rustc-link-search=native={folder}");
    println!("cargo:rustc-link-lib=dylib=zknalloc");
    // For programs of this package; others name the folder themselves, or
    // install the library where the loader looks.
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{folder}");
}
