//! The virtual machine: KVM's object with its memory.

use crate::system;
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
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

    /// Has KVM keep the interrupt controller that is a part of each processor, and no other one
    /// ([KVM_CAP_SPLIT_IRQCHIP](https://docs.kernel.org/virt/kvm/api.html#kvm-cap-split-irqchip)), before there are processors. Not
    /// for what halts: KVM then waits inside for an interrupt.
    ///
    /// This is for speed alone. While any processor on the host is without one, KVM asks at each entry into a guest, and to ask or not
    /// to ask it rewrites its own code, which stops every CPU of the host and takes a tenth of a unikernel's launch. A KVM that can't
    /// do this goes on without.
    pub fn keep_local_interrupt_controllers(&self) {
        /// Numbers of interrupts that are set aside for a controller that nobody provides: as many as one has.
        const INPUTS: u64 = 24;
        let mut capability = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
        capability.args[0] = INPUTS;
        let _ = self.vm.enable_cap(&capability);
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
