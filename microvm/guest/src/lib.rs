//! The unikernel guest.
#![no_std]
