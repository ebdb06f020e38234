//! The flow key: everything a match can look at, as an array of words, and the mask of the same shape.
//!
//! Fields that exclude each other share their bits as they share their meaning in OpenFlow 1.0: an ARP operation lies
//! where the IP protocol lies, ICMP's type and code where the transport ports lie, ARP's hardware addresses where
//! neighbour discovery's link-layer addresses lie. The Ethernet type and the protocol say which one it is.

use core::fmt;

/// Words of a key.
pub(crate) const WORDS: usize = 31;

/// Bits of a key: `bits` of them from bit `shift` of word `word`; 128 fill two words, high one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) word: u8,
    pub(crate) shift: u8,
    pub(crate) bits: u8,
}

const fn place(word: u8, shift: u8, bits: u8) -> Place {
    Place { word, shift, bits }
}

impl Place {
    /// All ones, as wide as the place.
    pub(crate) const fn ones(self) -> u128 {
        ones(self.bits)
    }

    /// The `bits` bits that start `from` bits above this place's lowest.
    pub(crate) const fn part(self, from: u8, bits: u8) -> PartPlace {
        PartPlace { place: self, from, bits }
    }
}

/// Some adjacent bits of a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartPlace {
    place: Place,
    from: u8,
    bits: u8,
}

/// The lowest `bits` bits set.
pub(crate) const fn ones(bits: u8) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

pub(crate) const IN_PORT: Place = place(0, 32, 32);
pub(crate) const ETH_TYPE: Place = place(0, 16, 16);
pub(crate) const VLAN_TCI: Place = place(0, 0, 16);
pub(crate) const TUN_ID: Place = place(1, 0, 64);
pub(crate) const TUN_SRC: Place = place(2, 32, 32);
pub(crate) const TUN_DST: Place = place(2, 0, 32);
pub(crate) const TUN_V6_SRC: Place = place(3, 0, 128);
pub(crate) const TUN_V6_DST: Place = place(5, 0, 128);
pub(crate) const TUN_TOS: Place = place(7, 8, 8);
pub(crate) const TUN_TTL: Place = place(7, 0, 8);
pub(crate) const METADATA: Place = place(8, 0, 64);
pub(crate) const ETH_DST: Place = place(17, 16, 48);
pub(crate) const IP_PROTO: Place = place(17, 8, 8);
pub(crate) const IP_TOS: Place = place(17, 0, 8);
pub(crate) const ETH_SRC: Place = place(18, 16, 48);
pub(crate) const IP_TTL: Place = place(18, 8, 8);
pub(crate) const IP_FRAG: Place = place(18, 0, 2);
pub(crate) const IPV4_SRC: Place = place(19, 32, 32);
pub(crate) const IPV4_DST: Place = place(19, 0, 32);
pub(crate) const IPV6_SRC: Place = place(20, 0, 128);
pub(crate) const IPV6_DST: Place = place(22, 0, 128);
pub(crate) const IPV6_LABEL: Place = place(24, 32, 20);
pub(crate) const TP_SRC: Place = place(24, 16, 16);
pub(crate) const TP_DST: Place = place(24, 0, 16);
pub(crate) const TCP_FLAGS: Place = place(25, 32, 16);
pub(crate) const ND_RESERVED: Place = place(25, 0, 32);
pub(crate) const ND_TARGET: Place = place(26, 0, 128);
pub(crate) const ARP_SHA: Place = place(28, 0, 48);
pub(crate) const VLAN_TPID: Place = place(28, 48, 16);
pub(crate) const ARP_THA: Place = place(29, 0, 48);
pub(crate) const ND_OPTION: Place = place(29, 48, 8);
/// The tag under the outermost; only an action can put one there, for one tag is looked at in a packet.
pub(crate) const INNER_TCI: Place = place(30, 0, 16);
pub(crate) const INNER_TPID: Place = place(30, 16, 16);

/// Nothing of the packet: that it is to go through the namespaces of routers, not past them.
pub(crate) const DETOUR: Place = place(30, 32, 1);

/// Register `index` of 16, 32 bits each: even ones are the high half of their word.
pub(crate) const fn register(index: u8) -> Place {
    place(9 + index / 2, if index.is_multiple_of(2) { 32 } else { 0 }, 32)
}

/// Words of the key that belong to the tunnel, to metadata and to the registers.
pub(crate) const TUNNEL_WORDS: core::ops::Range<usize> = 1..8;
pub(crate) const STATE_WORDS: core::ops::Range<usize> = 8..17;

/// The fragment bits: any fragment, and one that is not the first.
pub(crate) const FRAG_ANY: u128 = 1;
pub(crate) const FRAG_LATER: u128 = 2;
/// In a tag control field, "a tag is there"; on the wire the bit is the drop eligible indicator.
pub(crate) const TCI_PRESENT: u16 = 0x1000;

/// A key, or a mask of one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Bits(pub(crate) [u64; WORDS]);

/// What a packet is.
pub(crate) type Key = Bits;
/// Which bits of a key count.
pub(crate) type Mask = Bits;

impl Bits {
    pub(crate) const ZERO: Self = Self([0; WORDS]);

    pub(crate) const fn get(&self, place: Place) -> u128 {
        let word = place.word as usize;
        if place.bits > 64 {
            return (self.0[word] as u128) << 64 | self.0[word + 1] as u128;
        }
        (self.0[word] >> place.shift) as u128 & place.ones()
    }

    #[expect(clippy::cast_possible_truncation, reason = "a place of at most 16 bits")]
    pub(crate) const fn get16(&self, place: Place) -> u16 {
        self.get(place) as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "a place of at most 32 bits")]
    pub(crate) const fn get32(&self, place: Place) -> u32 {
        self.get(place) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "halves of 128 bits")]
    pub(crate) const fn set(&mut self, place: Place, value: u128) {
        let word = place.word as usize;
        if place.bits > 64 {
            self.0[word] = (value >> 64) as u64;
            self.0[word + 1] = value as u64;
            return;
        }
        let ones = place.ones() as u64;
        self.0[word] = self.0[word] & !(ones << place.shift) | (value as u64 & ones) << place.shift;
    }

    /// Sets the bits of `place` that `mask` has.
    pub(crate) const fn set_masked(&mut self, place: Place, value: u128, mask: u128) {
        self.set(place, self.get(place) & !mask | value & mask);
    }

    /// Sets the bits of `place` that `mask` has to one.
    pub(crate) const fn raise(&mut self, place: Place, mask: u128) {
        self.set(place, self.get(place) | mask);
    }

    /// Sets all bits of `place` to one.
    pub(crate) const fn raise_all(&mut self, place: Place) {
        self.set(place, u128::MAX);
    }

    pub(crate) const fn get_part(&self, part: PartPlace) -> u128 {
        self.get(part.place) >> part.from & ones(part.bits)
    }

    pub(crate) const fn set_part(&mut self, part: PartPlace, value: u128) {
        let mask = ones(part.bits) << part.from;
        self.set_masked(part.place, value << part.from, mask);
    }

    /// This, where `mask` has ones.
    pub(crate) fn masked(&self, mask: &Self) -> Self {
        let mut words = self.0;
        for (word, keep) in words.iter_mut().zip(&mask.0) {
            *word &= keep;
        }
        Self(words)
    }

    /// Whether every bit of `other` is one of this.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(word, needed)| word & needed == *needed)
    }

    /// Whether both agree on every bit of `mask`: what faster ways to say so are tested against.
    #[cfg(test)]
    pub(crate) fn agrees(&self, other: &Self, mask: &Self) -> bool {
        self.0.iter().zip(&other.0).zip(&mask.0).all(|((one, two), mask)| (one ^ two) & mask == 0)
    }

    /// The same for the same bits, in every run.
    pub(crate) fn digest(&self) -> u64 {
        let mut mixer = Mixer::new(0);
        self.0.iter().for_each(|word| mixer.add(*word));
        mixer.finish()
    }

    pub(crate) fn clear(&mut self, words: core::ops::Range<usize>) {
        self.0[words].fill(0);
    }

    /// Whether a tag is there.
    pub(crate) const fn is_tagged(&self) -> bool {
        self.get16(VLAN_TCI) & TCI_PRESENT != 0
    }

    /// Whether a tunnel brought it: its outer destination is set.
    pub(crate) const fn has_tunnel(&self) -> bool {
        self.get(TUN_DST) != 0 || self.get(TUN_V6_DST) != 0
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate().filter(|(_, word)| **word != 0) {
            write!(out, "[{index}]={word:#x} ")?;
        }
        Ok(())
    }
}

/// Mixes words into a hash; the same words give the same hash in every run.
#[derive(Clone, Copy)]
pub(crate) struct Mixer(u64);

impl Mixer {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
    pub(crate) const fn add(&mut self, word: u64) {
        let product = (self.0 ^ word) as u128 * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product as u64) ^ (product >> 64) as u64 ^ word.rotate_left(29);
    }

    pub(crate) const fn finish(self) -> u64 {
        let mut mixed = self;
        mixed.add(0x94d0_49bb_1331_11eb);
        mixed.0
    }
}

/// The hash of what [`MaskShape::pick`] picked: that of the key it was picked from, by [`MaskShape::hash`].
pub(crate) fn hash_picked(words: &[u64]) -> u64 {
    let mut mixer = Mixer::new(0);
    words.iter().for_each(|word| mixer.add(*word));
    mixer.finish()
}

/// The bits looked at by stages, as OVS's classifier does: what came with the packet, Ethernet, network, transport. A
/// lookup that fails at one does not look at the next.
const STAGES: usize = 4;

/// The stage of each bit of word `index`: the masks of the first three; the rest belongs to the last.
const fn staged(index: usize) -> [u64; STAGES - 1] {
    match index {
        // The port it came in by; Ethernet type and tag.
        0 => [0xffff_ffff << 32, 0xffff_ffff, 0],
        // Tunnel, metadata and registers.
        1..=16 => [u64::MAX, 0, 0],
        // Ethernet addresses; what shares their words is of the network header.
        17 | 18 => [0, !0xffff, 0xffff],
        // Network addresses.
        19..=23 => [0, 0, u64::MAX],
        // The IPv6 label; ports.
        24 => [0, 0, !0 << 32],
        // The tag's protocol; hardware addresses of ARP and neighbour discovery.
        28 => [0, 0xffff << 48, 0],
        // The tag below.
        30 => [0, u64::MAX, 0],
        // TCP flags, neighbour discovery.
        _ => [0; STAGES - 1],
    }
}

/// The bits of a mask in order of their stages, without words that have none: what a masked comparison looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaskShape {
    words: Box<[(u8, u64)]>,
    /// Where each stage ends among the words; stages without bits are left out, but at least one there is.
    ends: Box<[u8]>,
}

impl MaskShape {
    /// All bits at once.
    #[expect(clippy::cast_possible_truncation, reason = "fewer than 256 words")]
    pub(crate) fn new(mask: &Mask) -> Self {
        let words = mask.0.iter().enumerate().filter(|(_, bits)| **bits != 0);
        let words: Box<[(u8, u64)]> = words.map(|(index, bits)| (index as u8, *bits)).collect();
        let end = words.len() as u8;
        Self { words, ends: [end].into() }
    }

    /// Stage by stage.
    #[expect(clippy::cast_possible_truncation, reason = "fewer than 256 words, each at most three times")]
    pub(crate) fn staged(mask: &Mask) -> Self {
        let mut words = Vec::new();
        let mut ends: Vec<u8> = Vec::new();
        for stage in 0..STAGES {
            let before = words.len();
            for (index, bits) in mask.0.iter().enumerate() {
                let earlier = staged(index);
                let rest = !earlier.iter().fold(0, |all, mask| all | mask);
                let part = bits & earlier.get(stage).copied().unwrap_or(rest);
                if part != 0 {
                    words.push((index as u8, part));
                }
            }
            if words.len() > before {
                ends.push(words.len() as u8);
            }
        }
        if ends.is_empty() {
            ends.push(0);
        }
        Self { words: words.into(), ends: ends.into() }
    }

    /// How many stages there are, at least one.
    pub(crate) const fn stages(&self) -> usize {
        self.ends.len()
    }

    /// The hash of all bits up to each stage's end; the last one's is [`Self::hash`].
    pub(crate) fn hashes(&self, key: &Key) -> impl Iterator<Item = u64> {
        self.staged_hashes(self.words.iter().map(|(index, bits)| key.0[usize::from(*index)] & bits))
    }

    /// The same of what was picked.
    pub(crate) fn picked_hashes(&self, picked: &[u64]) -> impl Iterator<Item = u64> {
        self.staged_hashes(picked.iter().copied())
    }

    fn staged_hashes(&self, mut words: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
        let mut mixer = Mixer::new(0);
        let mut at = 0;
        self.ends.iter().map(move |end| {
            words.by_ref().take(usize::from(*end) - at).for_each(|word| mixer.add(word));
            at = usize::from(*end);
            mixer.finish()
        })
    }

    pub(crate) fn hash(&self, key: &Key) -> u64 {
        self.seeded_hash(key, 0)
    }

    /// A hash that nobody can foretell who does not know the seed.
    pub(crate) fn seeded_hash(&self, key: &Key, seed: u64) -> u64 {
        let mut mixer = Mixer::new(seed);
        for (index, bits) in &self.words {
            mixer.add(key.0[usize::from(*index)] & bits);
        }
        mixer.finish()
    }

    /// Adds to `mask` the bits of all stages up to this one.
    pub(crate) fn raise(&self, stage: usize, mask: &mut Mask) {
        for (index, bits) in &self.words[..usize::from(self.ends[stage])] {
            mask.0[usize::from(*index)] |= bits;
        }
    }

    /// The masked words of `key`, without those the mask does not look at.
    pub(crate) fn pick<Words: FromIterator<u64>>(&self, key: &Key) -> Words {
        self.words.iter().map(|(index, bits)| key.0[usize::from(*index)] & bits).collect()
    }

    /// What was picked: place, bits of the mask, and value of each; the bits of a word may be in several stages.
    pub(crate) fn unpick(&self, picked: &[u64]) -> impl Iterator<Item = (usize, u64, u64)> {
        self.words.iter().zip(picked).map(|((index, bits), word)| (usize::from(*index), *bits, *word))
    }

    pub(crate) fn equals(&self, key: &Key, picked: &[u64]) -> bool {
        self.words.iter().zip(picked).all(|((index, bits), word)| key.0[usize::from(*index)] & bits == *word)
    }

    /// Whether what was picked agrees with a match, all of whose bits this looks at.
    pub(crate) fn meets(&self, picked: &[u64], matching: &super::matching::Match) -> bool {
        self.words.iter().zip(picked).all(|((index, bits), word)| {
            let index = usize::from(*index);
            (word ^ matching.value.0[index]) & bits & matching.mask.0[index] == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap() {
        let mut places = vec![
            IN_PORT,
            ETH_TYPE,
            VLAN_TCI,
            TUN_ID,
            TUN_SRC,
            TUN_DST,
            TUN_V6_SRC,
            TUN_V6_DST,
            TUN_TOS,
            TUN_TTL,
            METADATA,
            ETH_DST,
            IP_PROTO,
            IP_TOS,
            ETH_SRC,
            IP_TTL,
            IP_FRAG,
            IPV4_SRC,
            IPV4_DST,
            IPV6_SRC,
            IPV6_DST,
            IPV6_LABEL,
            TP_SRC,
            TP_DST,
            TCP_FLAGS,
            ND_RESERVED,
            ND_TARGET,
            ARP_SHA,
            VLAN_TPID,
            ARP_THA,
            ND_OPTION,
            INNER_TCI,
            INNER_TPID,
            DETOUR,
        ];
        places.extend((0..16).map(register));
        let mut all = Bits::ZERO;
        for place in places {
            assert_eq!(all.get(place), 0, "{place:?} overlaps an earlier place");
            all.raise_all(place);
            assert_eq!(all.get(place), place.ones());
        }
    }
}
