//! `struct virtio_net_hdr` (VIRTIO 1.2 §5.1.6, `linux/virtio_net.h`): what TAPs and packet sockets say beside a frame.
//!
//! The ten octets without `num_buffers`; numbers are in the machine's order, as legacy devices have them.

use super::{DropReason, FRAME_LIMIT};
use crate::datapath::offload::is_finishable;
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

/// What the header says of the frame. Nothing is believed that the frame contradicts: the other side may be a virtual
/// machine.
pub(super) fn decode(header: [u8; HEADER_LEN], frame: &[u8]) -> Result<Offload, DropReason> {
    let length = frame.len();
    let [flags, gso, a, b, c, d, e, f, g, h] = header;
    let [header_len, size, start, offset] = [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes);
    let checksum = if flags & FLAG_NEEDS_CSUM != 0 {
        if usize::from(start) + usize::from(offset) + 2 > length || !is_finishable(frame, start, offset) {
            return Err(DropReason::BadOffload);
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
        _ => return Err(DropReason::BadOffload),
    };
    if size == 0 || length > FRAME_LIMIT {
        return Err(DropReason::BadOffload);
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

    /// The headers of TCP over IPv4.
    fn tcp4() -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
        frame[46] = 0x50;
        frame
    }

    #[test]
    fn a_checksum_is_finished_where_it_is_and_nowhere_else() {
        let header = |start: u16, offset: u16| {
            let ([a, b], [c, d]) = (start.to_ne_bytes(), offset.to_ne_bytes());
            [1, 0, 0, 0, 0, 0, a, b, c, d]
        };
        let tcp = [&tcp4()[..], &[0; 100]].concat();
        let mut icmp = tcp.clone();
        icmp[23] = 1;
        let mut tagged = tcp.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let mut stranger = tcp.clone();
        stranger[12..14].copy_from_slice(&[0x88, 0xb5]);
        for (frame, start, offset, good, what) in [
            (&tcp, 34, 16, true, "the TCP checksum"),
            (&tcp, 34, 0, false, "the source port"),
            (&tcp, 0, 50, false, "the right field, from the wrong start"),
            (&tcp, 0, 6, false, "the source MAC"),
            (&tcp, 26, 0, false, "the source address"),
            (&tcp, 54, 30, true, "something in a tunnel inside"),
            (&tcp, 40, 16, false, "a sum that begins inside the header"),
            (&icmp, 34, 2, true, "the ICMP checksum"),
            (&icmp, 30, 2, false, "the destination address"),
            (&tagged, 38, 16, true, "the TCP checksum behind a tag"),
            (&tagged, 34, 16, false, "a start that forgets the tag"),
            (&stranger, 14, 2, true, "another protocol's"),
            (&stranger, 12, 0, false, "its EtherType"),
        ] {
            assert_eq!(decode(header(start, offset), frame).is_ok(), good, "{what}");
        }
    }

    #[test]
    fn a_super_frame_as_the_kernel_says_it() {
        let header = [1, 0x81, 66, 0, 0x76, 5, 34, 0, 16, 0];
        if cfg!(target_endian = "little") {
            let mut frame = tcp4();
            frame.resize(9000, 0);
            let offload = decode(header, &frame).expect("consistent");
            let tcp = Segmentation { kind: SegmentKind::TcpV4, size: 1398, ecn: true, fixed_id: false };
            assert_eq!(offload.checksum, Checksum::Partial { start: 34, offset: 16 });
            assert_eq!(offload.segmentation, Some(tcp));
            assert_eq!(encode(&offload), header);
        }
    }

    proptest! {
        #[test]
        fn what_is_believed_lies_inside_the_frame_and_is_said_again(header in any::<[u8; 10]>(), length in 14_usize..70_000) {
            let mut frame = tcp4();
            frame.resize(length, 0);
            if let Ok(offload) = decode(header, &frame) {
                if let Checksum::Partial { start, offset } = offload.checksum {
                    prop_assert!(usize::from(start) + usize::from(offset) + 2 <= length);
                }
                if let Some(segmentation) = offload.segmentation {
                    prop_assert!(segmentation.size > 0 && length <= FRAME_LIMIT);
                }
                prop_assert!(usize::from(offload.header_len) <= length);
                prop_assert_eq!(decode(encode(&offload), &frame), Ok(offload));
            }
        }
    }
}
