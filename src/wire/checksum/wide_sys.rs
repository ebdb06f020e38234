//! The sum of many words, by the widest vectors the processor has: on x86-64 the compiler counts on half of what all but
//! the oldest have.

/// What is summed at once.
pub(super) type Block = [[u8; 4]; 16];

/// The sum of words in the machine's order.
pub(super) fn sum(blocks: &[Block]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: all that is asked of the caller is a processor with AVX2, which this one was just found to be.
        return unsafe { with_avx2(blocks) };
    }
    in_lanes(blocks)
}

/// The same code, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(blocks: &[Block]) -> u64 {
    in_lanes(blocks)
}

/// One 64-bit lane a word: 2³² blocks do not overflow it.
#[inline(always)]
fn in_lanes(blocks: &[Block]) -> u64 {
    let mut lanes = [0_u64; 16];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: words of every size. Output: their plain sum, by this processor's way and by the other.
    #[test]
    fn all_ways_sum_alike() {
        let word = |seed: usize| u32::try_from(seed * 0x9e37_79b9 % (1 << 32)).expect("32 bits").to_ne_bytes();
        let block = |seed: usize| core::array::from_fn(|at| word(seed * 16 + at));
        let blocks: Vec<Block> = (0..100).map(block).chain([[[0xff; 4]; 16]; 3]).collect();
        for count in 0..=blocks.len() {
            let some = &blocks[..count];
            let plain: u64 = some.as_flattened().iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
            assert_eq!((sum(some), in_lanes(some)), (plain, plain), "{count} blocks");
        }
    }
}
