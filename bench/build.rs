//! Builds the small programs that travel inside `isobench`, so that the one file does the whole job on another machine.
//!
//! A nested cargo with a target directory of its own builds them in the profile `embedded`: few pages and a fast exec,
//! whatever profile `isobench` itself is built in, for the target that it is built for.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Package, program, and the variable that tells `programs.rs` where it is.
const PROGRAMS: [(&str, &str, &str); 2] =
    [("isobench-workload", "isobench-agent", "ISOBENCH_AGENT"), ("isobench-microvm", "isobench-vmm", "ISOBENCH_VMM")];

fn main() {
    let workspace = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    for source in ["workload", "microvm", "Cargo.toml", "Cargo.lock", ".cargo/config.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    tell_version(&workspace);
    let target_directory = PathBuf::from(variable("OUT_DIR")).join("embedded");
    let target = variable("TARGET");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(&workspace).args(["build", "--profile", "embedded", "--target", &target]);
    cargo.arg("--target-dir").arg(&target_directory);
    for (package, program, _) in PROGRAMS {
        cargo.args(["--package", package, "--bin", program]);
    }
    // What the outer cargo sets must not reach the nested one: flags would change the embedded programs, and the outer
    // target directory is locked.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let outer =
            ["CARGO_", "RUSTFLAGS", "RUSTC", "RUSTDOC", "CLIPPY_"].iter().any(|prefix| text.starts_with(prefix));
        if outer && !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{cargo:?} ended with {status}"),
        Err(error) => panic!("start {cargo:?}: {error}"),
    }
    let built = target_directory.join(&target).join("embedded");
    for (_, program, name) in PROGRAMS {
        println!("cargo::rustc-env={name}={}", built.join(program).display());
    }
}

/// The version that the program tells: with the git revision, where it is built from a checkout, and with the C library, which is
/// part of how long a program takes to start.
fn tell_version(workspace: &Path) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(workspace).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let (version, library) = (variable("CARGO_PKG_VERSION"), variable("CARGO_CFG_TARGET_ENV"));
    let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        println!("cargo::rustc-env=ISOBENCH_VERSION={version} ({library})");
        return;
    };
    println!("cargo::rustc-env=ISOBENCH_VERSION={version} ({revision}, {library})");
    // Every commit and every switch of branches writes a line there.
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
