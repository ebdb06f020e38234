//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

mod wide_sys;

/// The ones' complement sum of `octets` added to `sum`, not folded: start from 0 and end with [`fold`]. An odd last
/// octet counts as the high half of a word, so only the last piece of a message may be odd.
#[must_use]
pub fn add(sum: u64, octets: &[u8]) -> u64 {
    // Sums 32-bit words in the machine's own order: the ones' complement sum is the same in either (RFC 1071 §2(B)),
    // and the halves are put back in network order at the end.
    let (words, tail) = octets.as_chunks::<4>();
    let (blocks, rest) = words.as_chunks();
    let mut native = if blocks.is_empty() { 0 } else { wide_sys::sum(blocks) };
    for word in rest {
        native += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    native += u64::from(u32::from_ne_bytes(last));
    sum + u64::from(u16::from_be(fold(native)))
}

/// The sum folded into 16 bits, not complemented.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "folded until it fits")]
pub const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of `octets`: the complement of their folded sum.
#[must_use]
pub fn of(octets: &[u8]) -> u16 {
    !fold(add(0, octets))
}

/// The sum of the pseudo header of TCP, UDP or ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1): both addresses, the protocol
/// and the length of header and payload.
#[must_use]
pub fn pseudo(source: &[u8], destination: &[u8], protocol: u8, length: usize) -> u64 {
    let length = length as u64;
    add(add(0, source), destination) + u64::from(protocol) + (length >> 16) + (length & 0xffff)
}

/// The checksum after a 16-bit word it covers went from `old` to `new` (RFC 1624 §3, equation 3).
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold((!checksum as u64) + (!old as u64) + new as u64)
}

/// The checksum after the octets `old` it covers became `new`, which are as many.
#[must_use]
pub fn update_octets(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    debug_assert_eq!(old.len(), new.len(), "an update replaces octets one for one");
    let removed = u64::from(!fold(add(0, old)));
    !fold(u64::from(!checksum) + removed + add(0, new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §1, word by word: the slow twin.
    fn by_the_book(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).expect("folded at every step")
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    proptest! {
        #[test]
        fn equals_the_slow_twin(octets in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(of(&octets), by_the_book(&octets));
        }

        #[test]
        fn update_equals_recomputing(mut octets in proptest::collection::vec(any::<u8>(), 40), new in any::<[u8; 6]>(), at in 0_usize..17) {
            let at = at * 2;
            let before = of(&octets);
            let old = octets[at..at + 6].to_vec();
            octets[at..at + 6].copy_from_slice(&new);
            let (updated, recomputed) = (update_octets(before, &old, &new), of(&octets));
            // 0 and 0xffff are the same number in ones' complement.
            prop_assert!(updated == recomputed || (updated ^ recomputed == 0xffff && (updated == 0 || recomputed == 0)));
        }
    }
}
