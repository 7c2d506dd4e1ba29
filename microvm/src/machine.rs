//! The virtual machine: KVM's object with its memory.

use crate::system;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::io;
use vm_memory::GuestMemoryMmap;

/// Why a virtual machine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// There is no KVM for us.
    #[error("open /dev/kvm: {remedy}")]
    Open {
        /// What mends it.
        remedy: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A call failed.
    #[error("{operation}")]
    System {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl MachineError {
    fn open(source: kvm_ioctls::Error) -> Self {
        let remedy = match source.errno() {
            libc::ENOENT => {
                "this kernel has no KVM; load the module kvm_intel or kvm_amd, or switch virtualisation on in the firmware"
            }
            libc::EACCES | libc::EPERM => "permission is missing; add this user to the group kvm, or run as root",
            libc::ENODEV | libc::ENXIO => "the device is there but no KVM module; load kvm_intel or kvm_amd",
            _ => "KVM can't be used",
        };
        Self::Open { remedy, source: source.into() }
    }
}

/// A virtual machine. The order of the fields is the order in which they go: KVM's object before the memory that it maps.
#[derive(Debug)]
pub struct Machine {
    vm: VmFd,
    memory: GuestMemoryMmap,
    kvm: Kvm,
}

impl Machine {
    /// Makes a virtual machine with this memory.
    pub fn new(memory: GuestMemoryMmap) -> Result<Self, MachineError> {
        let kvm = Kvm::new().map_err(MachineError::open)?;
        let vm = loop {
            match kvm.create_vm() {
                // KVM_CREATE_VM fails with EINTR where a signal is pending while it sets up MMU notifiers.
                Err(error) if error.errno() == libc::EINTR => {}
                other => {
                    break other.map_err(|error| MachineError::System {
                        operation: "create a virtual machine",
                        source: error.into(),
                    })?;
                }
            }
        };
        system::register_memory(&vm, &memory)
            .map_err(|source| MachineError::System { operation: "give memory to the virtual machine", source })?;
        Ok(Self { vm, memory, kvm })
    }

    /// Makes a virtual processor.
    pub fn create_vcpu(&self, number: u64) -> Result<VcpuFd, MachineError> {
        self.vm
            .create_vcpu(number)
            .map_err(|error| MachineError::System { operation: "create a virtual processor", source: error.into() })
    }

    /// KVM's interface to the virtual machine.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// KVM itself.
    pub fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }
}
