//! The sum of many words, by the widest vectors the processor has: on x86-64 the compiler counts on half of what all but
//! the oldest have.

/// What is summed at once.
pub(super) type Block = [u8; 32];

/// The sum of the words of 32 bits in the machine's order.
pub(super) fn sum(blocks: &[Block]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: all that is asked of the caller is a processor with AVX2, which this one was just found to be.
        return unsafe { with_avx2(blocks) };
    }
    in_lanes(blocks)
}

/// Two 64-bit lanes for two words: one for both as one number, modulo 2⁶⁴, one for the upper. The lower one's sum is what
/// the upper one's leaves of the first. That takes three steps where a lane each takes four.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(blocks: &[Block]) -> u64 {
    use std::arch::x86_64::{
        _mm256_add_epi64, _mm256_extract_epi64, _mm256_loadu_si256, _mm256_setzero_si256, _mm256_slli_epi64,
        _mm256_srli_epi64, _mm256_sub_epi64,
    };

    let (mut both, mut upper) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for block in blocks {
        // SAFETY: `block` is the 32 octets that are read, and this way of reading asks for no alignment.
        let words = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
        both = _mm256_add_epi64(both, words);
        upper = _mm256_add_epi64(upper, _mm256_srli_epi64::<32>(words));
    }
    let lower = _mm256_sub_epi64(both, _mm256_slli_epi64::<32>(upper));
    let all = _mm256_add_epi64(lower, upper);
    let lanes = [
        _mm256_extract_epi64::<0>(all),
        _mm256_extract_epi64::<1>(all),
        _mm256_extract_epi64::<2>(all),
        _mm256_extract_epi64::<3>(all),
    ];
    lanes.into_iter().map(i64::cast_unsigned).sum()
}

/// One 64-bit lane a word.
fn in_lanes(blocks: &[Block]) -> u64 {
    let mut lanes = [0_u64; 8];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: blocks of every octet, and of those that carry furthest. Output: the plain sum of their words, by this
    /// processor's way and by the other.
    #[test]
    fn all_ways_sum_alike() {
        let octet = |seed: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
        let block = |seed: u64| core::array::from_fn(|at| octet(seed * 32 + at as u64));
        let blocks: Vec<Block> = (0..100).map(block).chain([[0xff; 32]; 3]).collect();
        for count in 0..=blocks.len() {
            let some = &blocks[..count];
            let words = some.as_flattened().as_chunks().0;
            let plain: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
            assert_eq!((sum(some), in_lanes(some)), (plain, plain), "{count} blocks");
        }
    }
}
