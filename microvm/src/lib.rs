//! A minimal KVM microVM.
//!
//! A guest is started by one linear recipe, whose steps have the same names in the code:
//!
//! 1. **memory** ([`memory`]): map guest memory.
//! 2. **kvm** ([`machine`]): make the virtual machine and give it the memory.
//! 3. **vCPU** ([`vcpu`]): make the virtual processor.
//! 4. **devices** ([`devices`], [`bus`]): make the network card on a tap that was handed in, and the ports.
//! 5. **kernel** ([`unikernel`]): put the guest's image and boot parameters into memory, where [`layout`] says.
//! 6. **registers**: put the processor into the state in which the guest expects to be entered.
//! 7. **run** ([`vcpu::Vcpu::run`]): run until the guest ends; [`outcome`] says how.
//!
//! Memory, buses, transport, card and run loop know nothing of what guest they serve. The process that serves one is [jailed](jail)
//! as soon as it has opened its files, after step 2, and its threads are [confined](confinement) before it runs. [`control`] is how
//! a running machine is asked for something, and [`snapshot`] how one becomes files and files become one again. [`sandbox`] is the seam to the rest of the workspace, and [`judge`] says what this
//! machine's KVM is good for.
#![deny(unsafe_code)]

pub mod bus;
pub mod confinement;
pub mod control;
pub mod counter;
pub mod devices;
mod enclosure;
pub mod files;
pub mod jail;
pub mod judge;
pub mod layout;
pub mod linux;
pub mod machine;
pub mod memory;
pub mod operation;
pub mod outcome;
pub mod output;
mod processors;
pub mod sandbox;
pub mod snapshot;
pub mod system;
pub mod unikernel;
pub mod unikernel_process;
pub mod vcpu;

/// An error with its causes in one sentence.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
