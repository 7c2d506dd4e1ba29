//! Links the program at a fixed address. A static program that can lie anywhere relocates itself when it starts: 80 pages
//! more that are touched, a tenth of a millisecond of every launch that is measured.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The linker driver takes the last of -static-pie and -no-pie.
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rustc-link-arg-bins=-static");
}
