//! The VLAN tag that a NIC, or the kernel in its name, takes off a frame: `struct tpacket_auxdata` (`linux/if_packet.h`)
//! says it beside the frame, and here it is put back.

use crate::wire::ethernet;

/// Octets of `struct tpacket_auxdata`.
pub(super) const AUXDATA_LEN: usize = 20;
/// `TP_STATUS_VLAN_VALID`: there was a tag.
const VLAN_VALID: u32 = 1 << 4;
/// `TP_STATUS_VLAN_TPID_VALID`: its type is told too.
const TPID_VALID: u32 = 1 << 6;
/// Where a tag is: behind the two addresses.
const TAG_AT: usize = 12;

/// The tag in auxiliary data: its type and its control field. `None` if there was none.
pub(super) fn tag(auxdata: &[u8]) -> Option<(u16, u16)> {
    let octets: &[u8; AUXDATA_LEN] = auxdata.first_chunk()?;
    let status = u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
    let control = u16::from_ne_bytes([octets[16], octets[17]]);
    let kind = u16::from_ne_bytes([octets[18], octets[19]]);
    // Kernels before 3.0 set no flag: a control field other than zero says it there.
    if status & VLAN_VALID == 0 && control == 0 {
        return None;
    }
    Some((if status & TPID_VALID == 0 { ethernet::TYPE_VLAN } else { kind }, control))
}

/// The frame as it was on the wire. One without room for addresses stays as it is.
pub(super) fn put_back(frame: &[u8], (kind, control): (u16, u16)) -> Vec<u8> {
    let Some((addresses, rest)) = frame.split_at_checked(TAG_AT) else { return frame.to_vec() };
    [addresses, &kind.to_be_bytes(), &control.to_be_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auxdata(status: u32, control: u16, kind: u16) -> Vec<u8> {
        let mut octets = status.to_ne_bytes().to_vec();
        octets.extend([0; 12]);
        octets.extend(control.to_ne_bytes());
        octets.extend(kind.to_ne_bytes());
        octets
    }

    #[test]
    fn a_tag_is_read_and_put_back() {
        let said = tag(&auxdata(VLAN_VALID | TPID_VALID, 0x6007, ethernet::TYPE_SERVICE_VLAN));
        assert_eq!(said, Some((ethernet::TYPE_SERVICE_VLAN, 0x6007)));
        assert_eq!(tag(&auxdata(VLAN_VALID, 7, 0)), Some((ethernet::TYPE_VLAN, 7)));
        assert_eq!(tag(&auxdata(VLAN_VALID, 0, 0)), Some((ethernet::TYPE_VLAN, 0)), "a tag that says priority 0 only");
        assert_eq!(tag(&auxdata(0, 0, 0)), None);
        assert_eq!(tag(&[0; AUXDATA_LEN - 1]), None);
        let frame = b"ddddddssssssTYpayload";
        assert_eq!(put_back(frame, (0x8100, 0x6007)), b"ddddddssssss\x81\x00\x60\x07TYpayload");
        assert_eq!(put_back(b"short", (0x8100, 1)), b"short");
    }
}
