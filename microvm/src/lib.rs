//! A minimal KVM microVM.
