# What people do often. `just` lists it.

_default:
    @just --list

# measure and write the report
run *arguments:
    scripts/run {{arguments}}

# every test, the rig included
test *arguments:
    scripts/test {{arguments}}

# format and lints, as the gate wants them
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings

# criterion's micro-benchmarks
bench *arguments:
    cargo bench --workspace {{arguments}}

# the speeds that the project promises, each beside its peer
figures *names:
    scripts/figures {{names}}

# licences, advisories and sources of the dependencies
deny:
    cargo deny check

# the crates' documentation
doc:
    cargo doc --workspace --no-deps --open

# the whole gate
ci:
    .ci/run
