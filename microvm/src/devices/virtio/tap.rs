//! A tap as source and sink of frames.

use crate::devices::virtio::net::{FrameIo, HEADER};
use crate::system;
use rustix::fs::OFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use vm_memory::VolatileSlice;

/// Offloads that the reader of a tap may understand (`linux/if_tun.h`).
const TUN_F_CSUM: u32 = 1;
const TUN_F_TSO4: u32 = 2;
const TUN_F_TSO6: u32 = 4;

/// Why a tap can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// It can't be opened.
    #[error("open a tap named {name}")]
    Open {
        /// The link's name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A call on it failed.
    #[error("{operation} of the tap (it must be opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)")]
    System {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Makes a tap of this name in the caller's network namespace. It is gone when the last descriptor of it is closed.
pub fn open(name: &str) -> Result<OwnedFd, TapError> {
    system::open_tap(name).map_err(|source| TapError::Open { name: name.into(), source })
}

/// Which kinds of unfinished frames the guest takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Frames whose checksum is not filled in.
    pub checksum: bool,
    /// TCP segments over IPv4 that are larger than the MTU.
    pub segmentation4: bool,
    /// TCP segments over IPv6 that are larger than the MTU.
    pub segmentation6: bool,
}

/// An attached tap with a header before each frame. Closing the last of its clones detaches it from its link.
#[derive(Clone, Debug)]
pub struct Tap(Arc<OwnedFd>);

impl Tap {
    /// Takes over a tap that is attached to its link already, so that no frame is lost at the start.
    pub fn new(fd: OwnedFd) -> Result<Self, TapError> {
        system::set_tap_header_size(fd.as_fd(), HEADER)
            .map_err(|source| TapError::System { operation: "set the header size", source })?;
        let flags = rustix::fs::fcntl_getfl(&fd);
        flags
            .and_then(|flags| rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK))
            .map_err(|errno| TapError::System { operation: "set the flags", source: errno.into() })?;
        Ok(Self(Arc::new(fd)))
    }

    /// Says which unfinished frames the reader takes. A persistent tap keeps what its last user set, so this is always
    /// called, also with none.
    pub fn set_offload(&self, offload: Offload) -> Result<(), TapError> {
        let mut flags = 0;
        if offload.checksum {
            flags |= TUN_F_CSUM;
            // The kernel takes segmentation with checksums alone.
            flags |= if offload.segmentation4 { TUN_F_TSO4 } else { 0 };
            flags |= if offload.segmentation6 { TUN_F_TSO6 } else { 0 };
        }
        system::set_tap_offload(self.0.as_fd(), flags)
            .map_err(|source| TapError::System { operation: "set the offloads", source })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl FrameIo for Tap {
    fn read_frame(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
        system::readv(self.0.as_fd(), into)
    }

    fn write_frame(&mut self, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
        system::writev(self.0.as_fd(), from)
    }
}
