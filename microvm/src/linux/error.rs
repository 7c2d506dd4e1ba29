//! What can go wrong with a Linux guest before it runs.

use super::kernel::KernelError;
use super::modules::ModulesError;
use super::{boot_parameters, layout};
use crate::bus::Overlap;
use crate::confinement::ConfinementError;
use crate::devices::virtio::card::CardError;
use crate::devices::virtio::tap::TapError;
use crate::machine::MachineError;
use crate::memory::MemoryError;
use crate::snapshot::devices::StateError;
use crate::vcpu::VcpuError;
use std::io;
use std::path::PathBuf;

/// Why a Linux guest could not be booted or run.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// Its kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's modules.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The virtual machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A call on the virtual machine.
    #[error("{operation} of the virtual machine")]
    System {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The virtual processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// A number of processors that no guest can have here.
    #[error("a guest with {wanted} processors: it must have at least 1, and can have {most} on this machine")]
    Processors {
        /// What was asked for.
        wanted: u8,
        /// The most.
        most: usize,
    },
    /// A kernel for one processor.
    #[error(
        "the kernel {kernel} runs one processor alone: give the guest one, or another kernel (`isobench vm kernel build --smp` makes one)"
    )]
    OneProcessor {
        /// The kernel file.
        kernel: PathBuf,
    },
    /// The network card.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A device could not be made.
    #[error("make the guest's devices")]
    Devices(#[source] io::Error),
    /// Requests can't be taken.
    #[error("take requests on the machine's control socket")]
    Control(#[source] io::Error),
    /// Two devices at one address.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// More devices than lines.
    #[error(
        "the guest would have more virtio devices than the {} that have an interrupt line: give it fewer disks",
        layout::LAST_DEVICE_LINE - layout::FIRST_DEVICE_LINE + 1
    )]
    TooManyDevices,
    /// The initramfs does not fit.
    #[error(
        "the initramfs of {initramfs} bytes does not fit into {memory} bytes of memory beside the kernel, which ends at {kernel:#x}: give the guest more memory"
    )]
    InitramfsTooLarge {
        /// Size of the initramfs.
        initramfs: u64,
        /// Where the kernel ends.
        kernel: u64,
        /// Memory below 4 GiB.
        memory: u64,
    },
    /// The command line is too long.
    #[error(
        "the kernel's command line would have {length} bytes, more than the {} that it takes",
        boot_parameters::LONGEST_COMMAND_LINE
    )]
    CommandLineTooLong {
        /// Its length.
        length: usize,
    },
    /// A snapshot's state does not fit.
    #[error("the snapshot's state: {0}")]
    State(StateError),
    /// A snapshot is of another kind of guest.
    #[error("the snapshot's state is not that of a Linux guest's machine: {0}")]
    Foreign(&'static str),
    /// A clone needs what the guest had that was saved, and can have nothing else.
    #[error("the snapshot's guest {0}")]
    Lacking(String),
    /// What the agent is told is too long.
    #[error(
        "tell the clone who it is: its files in /etc are too large for the {} bytes that it is told",
        isobench_workload::guest::LONGEST_IDENTITY
    )]
    IdentityTooLong,
    /// The thread could not be confined.
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    /// The zero page could not be written.
    #[error("write the boot parameters")]
    BootParameters(#[source] linux_loader::configurator::Error),
}
