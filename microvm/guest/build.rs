//! Links the unikernel image by its own script. What else its link wants is for the whole program, and is given by
//! isobench-microvm's build script.

fn main() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("unikernel.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rustc-link-arg-bin=unikernel=-Wl,-T,{}", script.display());
}
