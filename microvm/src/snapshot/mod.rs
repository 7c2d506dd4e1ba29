//! Snapshots: a running guest as files, from which as many clones as wanted go on.
//!
//! A snapshot is a directory:
//!
//! | file | what |
//! |---|---|
//! | `manifest.json` | what the guest is, and length and SHA-256 of the other two ([`manifest`]) |
//! | `state` | the virtual machine, its processors and devices ([`MachineState`]) |
//! | `memory` | guest memory, one region after the other; pages of zeros are holes ([`memory`]) |
//!
//! It is **taken** by the launcher ([`take::take`]), since a monitor can open no file: the launcher opens the files under temporary names and
//! hands their descriptors over on the [control socket](crate::control). The monitor ([`keeper`]) lets every processor come to where
//! nothing that it asked for is under way, stops the devices' threads, writes, and lets all go on. The launcher then writes
//! the manifest, has all written to the disk, and gives the directory its name: there is a whole snapshot of that name or none.
//!
//! It is **restored** from a directory that the launcher has verified ([`open::Snapshot`]) by a monitor that is handed the two
//! files. Memory is a private mapping of its file: nothing is read before it is touched, clones share what none of them has written, and the file is
//! never changed. *What is checked when*: [`open::Snapshot::open`] checks everything, the manifest's own digest, formats, versions and the processor,
//! lengths, and the digest of both files, once for all clones that are launched from it, on the descriptors that these are
//! handed. The monitor checks that the state is one that the guest's devices can have. Nothing is checked later: whoever changes
//! the file of a running clone changes what it has not touched yet.
//!
//! No list of pages is kept that a clone is known to touch, to be mapped before it begins
//! ([REAP](https://doi.org/10.1145/3445814.3446714), [FaaSnap](https://doi.org/10.1145/3492321.3524270)). What it saves there are reads of a
//! disk, and who verifies a snapshot has read all of it already. What is left is a fault for each page that the processor has to be shown, which
//! populating the monitor's own mapping does not spare (`KVM_PRE_FAULT_MEMORY` would, since Linux 6.12): of 1071 such faults of a
//! Linux clone, at most the 218 that copied a page would have come cheaper. To copy all of its memory beforehand took four times as long as the
//! guest needs until it serves (`scripts/rig`, emulated), and takes from the clones what they share.
//!
//! A clone is **told who it is**: a generation number in its boot parameters (unikernel), or what its agent reads in memory that the kernel keeps for it (Linux), with its
//! addresses, its host name, the time, and fresh random bytes that are stirred into its random numbers before it serves anybody. Its connections are
//! those of the guest that was saved, who has them still: a clone drops them. A Linux guest can be saved once its agent waits for
//! that, and until it has become somebody else no frame of it leaves the card, since each is from the Ethernet address of the one that was saved.
//! Random numbers that a program keeps for itself it keeps: only the kernel's are new.
//!
//! What a Linux guest **reads from disks** it goes on reading: a clone must be given the same disks, whose sizes and, where they are files, times of
//! change are compared: none has a digest, since that would be to read all of it. One that it writes to cannot be shared, and a
//! guest that has such a disk cannot be saved.

pub mod devices;
mod extended;
pub mod keeper;
pub mod manifest;
pub mod memory;
pub mod open;
pub mod processor;
pub mod take;

use crate::devices::virtio::disk::{Disk, SECTOR};
use crate::linux::BalloonKind;
use devices::DeviceState;
use processor::{ProcessorState, VmState};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// The manifest's name in a snapshot's directory.
pub const MANIFEST: &str = "manifest.json";
/// The state's.
pub const STATE: &str = "state";
/// The memory's.
pub const MEMORY: &str = "memory";
/// The largest state that is read, in bytes: thirty-two processors have a tenth of it.
pub const LARGEST_STATE: u64 = 64 << 20;

/// Why a snapshot could not be taken or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file of it could not be read or written.
    #[error("{operation} {}", path.display())]
    File {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is something of that name.
    #[error("{} is there already: give the snapshot another name", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// No snapshot, or one that is damaged, or one for another program or machine.
    #[error("the snapshot's file {}: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The machine could not be asked.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
}

/// What a guest is, as far as it must be known to start a monitor for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Guest {
    /// Its kind: `unikernel` or `linux`.
    pub kind: GuestKind,
    /// What it does, for people.
    pub workload: String,
    /// The digest of the unikernel's image, or the Linux kernel's release; for people, but that a unikernel must be the same.
    pub program: String,
    /// Guest-physical start and length of each region of its memory, in bytes.
    pub regions: Vec<(u64, u64)>,
    /// How many processors it has.
    pub processors: u8,
    /// Whether it has a network card.
    pub network: bool,
    /// Whether its standard streams are those of a program in it.
    pub session: bool,
    /// What a Linux guest is made of besides; no other kind has it.
    pub linux: Option<LinuxGuest>,
}

/// What only a Linux guest has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinuxGuest {
    /// What the kernel file that it was booted from says of itself: release, builder, number and time of the build; for people.
    pub kernel: String,
    /// Size of that file in bytes.
    pub kernel_bytes: u64,
    /// The SHA-256 of that file, as `sha256sum` tells it: several can say the same of themselves. Nothing where the file was written to
    /// after the guest was booted from it.
    pub kernel_sha256: Option<String>,
    /// Size of the initramfs in bytes: the agent, modules, and a root where it has one.
    pub initramfs_bytes: u64,
    /// Its disks. None is ever written to.
    pub disks: Vec<GuestDisk>,
    /// Whether it has a device that gives random numbers.
    pub entropy: bool,
    /// Its balloon, where it has one.
    pub balloon: Option<BalloonKind>,
}

/// A disk that a guest reads, as it was when the guest was booted: it keeps some of what it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GuestDisk {
    /// Its size in bytes.
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970; nobody knows that of a block device. A copy that is to serve in its place must
    /// have the same (`cp --preserve=timestamps`).
    pub modified: Option<i64>,
}

impl GuestDisk {
    /// That of a disk that was opened.
    pub fn of(disk: &Disk) -> Self {
        Self { bytes: disk.sectors() * SECTOR, modified: disk.modified() }
    }
}

impl Guest {
    /// Size of its memory in bytes.
    pub fn memory(&self) -> u64 {
        self.regions.iter().map(|(_, length)| length).sum()
    }
}

/// The kinds of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestKind {
    /// The unikernel.
    Unikernel,
    /// Linux.
    Linux,
}

/// All of a machine but its memory: the file `state`. It is [postcard](https://postcard.jamesmunns.com/wire-format)'s, for a clone waits while
/// it is read, and as JSON it took a third of the time that a monitor needs until its guest goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineState {
    /// What it is.
    pub guest: Guest,
    /// What its processors share.
    pub vm: VmState,
    /// Its processors.
    pub processors: Vec<ProcessorState>,
    /// Its devices at ports, each with its first port.
    pub ports: Vec<(u64, DeviceState)>,
    /// Its devices with registers in memory, each with their address.
    pub registers: Vec<(u64, DeviceState)>,
}
