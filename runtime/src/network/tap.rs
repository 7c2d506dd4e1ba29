//! A tap: a link whose other end is a file descriptor, which a virtual machine monitor reads and writes
//! ([tun(4)](https://www.kernel.org/doc/html/latest/networking/tuntap.html)).

use super::{Netlink, NetworkError};
use crate::system;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};

/// Which frames the reader of a tap takes. What it does not take, the kernel makes into frames that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Only whole and summed frames of the link's size, as on a wire.
    None,
    /// Also frames whose checksum is still to be filled in.
    Checksum,
    /// Also TCP segments of up to 64 KiB over IPv4.
    Segmentation,
}

impl Offload {
    /// The bits of `TUNSETOFFLOAD` (include/uapi/linux/if_tun.h).
    const fn bits(self) -> u32 {
        const TUN_F_CSUM: u32 = 1;
        const TUN_F_TSO4: u32 = 2;
        match self {
            Self::None => 0,
            Self::Checksum => TUN_F_CSUM,
            Self::Segmentation => TUN_F_CSUM | TUN_F_TSO4,
        }
    }
}

/// A tap that is not persistent: the link goes when the last copy of its descriptor is closed.
#[derive(Debug)]
pub struct Tap {
    descriptor: OwnedFd,
    name: String,
    index: u32,
}

impl Tap {
    /// Bytes before each frame: `struct virtio_net_hdr_v1`, which has the field `num_buffers`
    /// ([VIRTIO 1.2](https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html), 5.1.6).
    pub const HEADER: usize = 12;

    /// Creates a tap in the socket's namespace, a port of the bridge and up. The descriptor is to be read and written
    /// without blocking.
    ///
    /// # Errors
    /// If `/dev/net/tun` is absent or closed to the caller, or there is a link of that name.
    pub fn create(netlink: &mut Netlink, name: &str, bridge: u32, offload: Offload) -> Result<Self, NetworkError> {
        const DEVICE: &str = "/dev/net/tun";
        super::link::check_name(name)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // The device remembers the namespace of the thread that opens it.
        let descriptor = netlink.namespace().enter(|| open(DEVICE, flags, Mode::empty()))?;
        let descriptor = descriptor.map_err(|source| NetworkError::system("open", DEVICE, source))?;
        let failed = |source| NetworkError::system("create tap", name, source);
        system::become_tap(descriptor.as_fd(), name, Self::HEADER as i32).map_err(failed)?;
        system::set_tap_offload(descriptor.as_fd(), offload.bits()).map_err(failed)?;
        let index = netlink.index(name)?;
        netlink.enslave(index, bridge)?;
        Ok(Self { descriptor, name: name.into(), index })
    }

    /// The link's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The link's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Changes which frames its reader takes.
    pub fn set_offload(&self, offload: Offload) -> Result<(), NetworkError> {
        system::set_tap_offload(self.descriptor.as_fd(), offload.bits())
            .map_err(|source| NetworkError::system("set the offload of tap", &self.name, source))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.descriptor
    }
}
