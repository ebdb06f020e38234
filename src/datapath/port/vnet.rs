//! `struct virtio_net_hdr` (VIRTIO 1.2 §5.1.6, `linux/virtio_net.h`): what TAPs and packet sockets say beside a frame.
//!
//! The ten octets without `num_buffers`; numbers are in the machine's order, as legacy devices have them.

use super::{FRAME_LIMIT, PortDrop};
use crate::datapath::{Checksum, Offload, SegmentKind, Segmentation};

/// Octets of the header.
pub(super) const HEADER_LEN: usize = 10;

const FLAG_NEEDS_CSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What the header says of a frame of `length` octets. Nothing is believed that the frame's length contradicts: the
/// other side may be a virtual machine.
pub(super) fn decode(header: [u8; HEADER_LEN], length: usize) -> Result<Offload, PortDrop> {
    let [flags, gso, a, b, c, d, e, f, g, h] = header;
    let [header_len, size, start, offset] = [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes);
    let checksum = if flags & FLAG_NEEDS_CSUM != 0 {
        if usize::from(start) + usize::from(offset) + 2 > length {
            return Err(PortDrop::BadOffload);
        }
        Checksum::Partial { start, offset }
    } else if flags & FLAG_DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Complete
    };
    let ecn = gso & GSO_ECN != 0;
    let kind = match gso & !GSO_ECN {
        GSO_NONE => return Ok(Offload { checksum, segmentation: None, header_len: 0 }),
        GSO_TCPV4 => SegmentKind::TcpV4,
        GSO_TCPV6 => SegmentKind::TcpV6,
        GSO_UDP_L4 => SegmentKind::Udp,
        _ => return Err(PortDrop::BadOffload),
    };
    if size == 0 || length > FRAME_LIMIT {
        return Err(PortDrop::BadOffload);
    }
    let header_len = if usize::from(header_len) <= length { header_len } else { 0 };
    Ok(Offload { checksum, segmentation: Some(Segmentation { kind, size, ecn, fixed_id: false }), header_len })
}

/// The header that says this.
pub(super) fn encode(offload: &Offload) -> [u8; HEADER_LEN] {
    let (flags, start, offset) = match offload.checksum {
        Checksum::Complete => (0, 0, 0),
        Checksum::Verified => (FLAG_DATA_VALID, 0, 0),
        Checksum::Partial { start, offset } => (FLAG_NEEDS_CSUM, start, offset),
    };
    let (gso, size) = match offload.segmentation {
        None => (GSO_NONE, 0),
        // The header has no word for `fixed_id`: who cuts the frame next counts identification up (RFC 6864 §4.1: of no
        // meaning with DF).
        Some(Segmentation { kind, size, ecn, fixed_id: _ }) => {
            let kind = match kind {
                SegmentKind::TcpV4 => GSO_TCPV4,
                SegmentKind::TcpV6 => GSO_TCPV6,
                SegmentKind::Udp => GSO_UDP_L4,
            };
            (if ecn { kind | GSO_ECN } else { kind }, size)
        }
    };
    let header_len = if gso == GSO_NONE { 0 } else { offload.header_len };
    let [a, b] = header_len.to_ne_bytes();
    let [c, d] = size.to_ne_bytes();
    let [e, f] = start.to_ne_bytes();
    let [g, h] = offset.to_ne_bytes();
    [flags, gso, a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_super_frame_as_the_kernel_says_it() {
        let header = [1, 0x81, 66, 0, 0x76, 5, 34, 0, 16, 0];
        if cfg!(target_endian = "little") {
            let offload = decode(header, 9000).expect("consistent");
            assert_eq!(offload.checksum, Checksum::Partial { start: 34, offset: 16 });
            assert_eq!(
                offload.segmentation,
                Some(Segmentation { kind: SegmentKind::TcpV4, size: 1398, ecn: true, fixed_id: false })
            );
            assert_eq!(encode(&offload), header);
        }
    }

    proptest! {
        #[test]
        fn what_is_believed_lies_inside_the_frame_and_is_said_again(header in any::<[u8; 10]>(), length in 14_usize..70_000) {
            if let Ok(offload) = decode(header, length) {
                if let Checksum::Partial { start, offset } = offload.checksum {
                    prop_assert!(usize::from(start) + usize::from(offset) + 2 <= length);
                }
                if let Some(segmentation) = offload.segmentation {
                    prop_assert!(segmentation.size > 0 && length <= FRAME_LIMIT);
                }
                prop_assert!(usize::from(offload.header_len) <= length);
                prop_assert_eq!(decode(encode(&offload), length), Ok(offload));
            }
        }
    }
}
