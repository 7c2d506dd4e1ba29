//! A container runtime.
