//! Builds the unikernel image, which the library embeds: a nested cargo, because the image wants its own profile and link.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = here.parent().expect("the crate lies in the workspace");
    let target_directory = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("unikernel");
    println!("cargo::rerun-if-changed={}", here.join("guest").display());
    for source in ["protocol.rs", "lib.rs", "datagram.rs", "connect.rs", "work"] {
        println!("cargo::rerun-if-changed={}", workspace.join("workload/src").join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--package", "isobench-guest", "--bin", "unikernel", "--features", "image"])
        .args(["--profile", "embedded", "--target", "x86_64-unknown-linux-gnu", "--target-dir"])
        .arg(&target_directory);
    // The outer build's flags, wrappers and directories are not meant for the image.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign =
            ["CARGO_", "RUSTFLAGS", "RUSTC", "RUSTDOC", "CLIPPY_"].iter().any(|prefix| text.starts_with(prefix));
        if foreign && !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    // A static image at fixed addresses, without the C runtime; given by this variable, which takes the place of the flags in
    // the workspace's configuration.
    let flags = [
        "-Crelocation-model=static",
        "-Ctarget-feature=+crt-static",
        "-Cforce-unwind-tables=no",
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-static",
        "-Clink-arg=-no-pie",
        "-Clink-arg=-Wl,--build-id=none",
        "-Clink-arg=-Wl,-z,max-page-size=4096",
        "-Clink-arg=-Wl,-z,norelro",
    ]
    .join("\x1f");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);

    let status = cargo.status().expect("start cargo for the unikernel image");
    assert!(status.success(), "building the unikernel image failed: {status}");
    let image = target_directory.join("x86_64-unknown-linux-gnu/embedded/unikernel");
    assert!(Path::new(&image).exists(), "cargo left no image at {}", image.display());
    println!("cargo::rustc-env=ISOBENCH_UNIKERNEL={}", image.display());
}
