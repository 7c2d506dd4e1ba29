//! The header before each frame, and what it says of checksums and segmentation (VIRTIO 1.2, 5.1.6).
//!
//! Both sides leave work undone for the other: a checksum holds only the sum over the pseudo-header, and one frame may be up to
//! 64 KiB of TCP payload that whoever needs smaller packets cuts up. On one host nobody ever does.

use core::num::{NonZeroU16, NonZeroUsize};
use smoltcp::phy::{Checksum, DeviceCapabilities, Medium};

/// Size of the header.
pub const HEADER: usize = 12;
/// Bytes of a receive or transmit buffer: header and the largest frame (VIRTIO 1.2, 5.1.6.3.1), rounded up to whole pages so
/// that no two buffers share one.
pub const BUFFER: usize = 17 * 4096;
/// Ethernet's header and its payload.
pub const LARGEST_PACKET: usize = ETHERNET + 1500;
/// TCP payload of the largest frame that is left to be segmented: whole segments of 1460 bytes, below 64 KiB with its Ethernet
/// header, since the kernel cuts up anything above that in software.
pub const LARGEST_PAYLOAD: usize = 44 * 1460;
/// That frame.
const LARGEST_SEGMENTABLE: usize = LARGEST_PAYLOAD + ETHERNET + IPV4 + TCP;

const _: () = assert!(LARGEST_SEGMENTABLE < 65_536 && HEADER + LARGEST_SEGMENTABLE <= BUFFER);

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_TCP: u8 = 6;
/// Where the checksum lies in a TCP header.
const CHECKSUM_OFFSET: usize = 16;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE` and `VIRTIO_NET_HDR_GSO_TCPV4`.
const SEGMENT_NONE: u8 = 0;
const SEGMENT_TCPV4: u8 = 1;

/// What a device with such headers can do, in smoltcp's terms; `segmentation` is whether it takes frames that are larger than
/// packets.
pub fn capabilities(segmentation: bool) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    capabilities.max_transmission_unit = LARGEST_PACKET;
    // Neither computed nor verified: frames come over memory of this host, and the kernel has verified those that came over
    // a wire.
    capabilities.checksum.tcp = Checksum::None;
    // The header asks for a TCP checksum alone, so that a datagram's own is computed here.
    capabilities.checksum.udp = Checksum::Tx;
    capabilities.segmentation.tcpv4 = NonZeroUsize::new(LARGEST_SEGMENTABLE).filter(|_| segmentation);
    capabilities
}

/// Fills in the header for a frame that is finished but for its TCP checksum, and that sum's pseudo-header part in the
/// frame. `segment` is the payload size of each packet that the frame stands for, where it is larger than one.
pub fn finish(header: &mut [u8; HEADER], frame: &mut [u8], segment: Option<NonZeroU16>) {
    header.fill(0);
    let Some(packet) = TcpPacket::parse(frame) else { return };
    let sum = packet.pseudo_header_sum;
    header[0] = NEEDS_CHECKSUM;
    header[6..8].copy_from_slice(&(packet.start as u16).to_le_bytes());
    header[8..10].copy_from_slice(&(CHECKSUM_OFFSET as u16).to_le_bytes());
    let (kind, size) = match segment {
        Some(size) => (SEGMENT_TCPV4, size.get()),
        None => (SEGMENT_NONE, 0),
    };
    header[1] = kind;
    header[2..4].copy_from_slice(&(packet.payload as u16).to_le_bytes());
    header[4..6].copy_from_slice(&size.to_le_bytes());
    let at = packet.start + CHECKSUM_OFFSET;
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Where the parts of a TCP packet over IPv4 lie in a frame.
struct TcpPacket {
    start: usize,
    payload: usize,
    pseudo_header_sum: u16,
}

impl TcpPacket {
    fn parse(frame: &[u8]) -> Option<Self> {
        if frame.len() < ETHERNET + IPV4 + TCP || frame[12..14] != ETHERTYPE_IPV4 || frame[ETHERNET + 9] != PROTOCOL_TCP
        {
            return None;
        }
        let start = ETHERNET + usize::from(frame[ETHERNET] & 0x0f) * 4;
        let payload = start + usize::from(*frame.get(start + 12)? >> 4) * 4;
        if payload > frame.len() {
            return None;
        }
        let length = frame.len() - start;
        let words = frame[ETHERNET + 12..ETHERNET + 20].chunks_exact(2);
        let addresses: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let mut sum = addresses + u32::from(PROTOCOL_TCP) + length as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        Some(Self { start, payload, pseudo_header_sum: sum as u16 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;

    fn tcp_frame(payload: usize) -> vec::Vec<u8> {
        let mut frame = vec![0_u8; ETHERNET + IPV4 + TCP + payload];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        frame[ETHERNET] = 0x45;
        frame[ETHERNET + 9] = PROTOCOL_TCP;
        frame[ETHERNET + 12..ETHERNET + 20].copy_from_slice(&[172, 17, 0, 5, 172, 17, 0, 1]);
        frame[ETHERNET + IPV4 + 12] = 0x50;
        frame
    }

    #[test]
    fn a_tcp_frame_asks_for_its_checksum() {
        let mut frame = tcp_frame(10);
        let mut header = [0xff; HEADER];
        finish(&mut header, &mut frame, None);
        assert_eq!(header, [1, 0, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        // RFC 9293, 3.1: the sum over source, destination, protocol and length, here 0xac11 + 5 + 0xac11 + 1 + 6 + 30.
        assert_eq!(frame[50..52], 0x584d_u16.to_be_bytes());
    }

    #[test]
    fn a_large_frame_says_how_to_cut_it() {
        let mut frame = tcp_frame(5000);
        let mut header = [0; HEADER];
        finish(&mut header, &mut frame, NonZeroU16::new(1460));
        assert_eq!(header[1], SEGMENT_TCPV4);
        assert_eq!(header[2..6], [54, 0, 0xb4, 0x05]);
    }

    #[test]
    fn other_frames_are_left_alone() {
        let mut frame = [0_u8; 42];
        let mut header = [0xff; HEADER];
        finish(&mut header, &mut frame, None);
        assert_eq!(header, [0; HEADER]);
        assert_eq!(frame, [0; 42]);
    }
}
