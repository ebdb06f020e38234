//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

mod wide_sys;

/// The ones' complement sum of `octets` added to `sum`, not folded: start from 0 and end with [`fold`]. An odd last
/// octet counts as the high half of a word, so only the last piece of a message may be odd.
#[must_use]
pub fn add(sum: u64, octets: &[u8]) -> u64 {
    // Sums words of the machine's own size and order: the ones' complement sum is the same in any (RFC 1071 §2(B), (C)),
    // and the halves are put back in network order at the end.
    let (blocks, rest) = octets.as_chunks();
    let (words, tail) = rest.as_chunks();
    let mut native = if blocks.is_empty() { 0 } else { wide_sys::sum(blocks) };
    for word in words {
        native += halves(*word);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        native += halves(last);
    }
    sum + u64::from(u16::from_be(fold(native)))
}

/// The sum of a word's halves.
const fn halves(word: [u8; 8]) -> u64 {
    let word = u64::from_ne_bytes(word);
    (word >> 32) + (word & 0xffff_ffff)
}

/// The sum folded into 16 bits, not complemented: zero for zero only.
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    // A number and its halves swapped, added: the upper half is the sum of the halves, with the carry that comes out at the
    // top put in at the bottom.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
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

    /// Input: sums at which carries come and go. Output: what adding halves, again and again, leaves of them.
    #[test]
    fn folding_is_adding_halves() {
        let around = |sum: u64| [sum.wrapping_sub(1), sum, sum.wrapping_add(1)];
        let edges = (0..64).map(|bit| 1_u64 << bit).flat_map(|one| [one, one - 1, !one, !(one - 1)]).flat_map(around);
        for sum in edges {
            let mut slow = sum;
            while slow > 0xffff {
                slow = (slow & 0xffff) + (slow >> 16);
            }
            assert_eq!(u64::from(fold(sum)), slow, "{sum:#x}");
        }
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
