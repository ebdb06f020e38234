//! Capture files read back: pcapng, and the older pcap in both byte orders and both resolutions of time.
//!
//! A file is read whole or refused with the octet where it goes wrong: one that was cut off anywhere is an error, never a
//! shorter capture.

use core::time::Duration;
use std::io::{self, Read};

use super::pcapng;

/// The longest file that is read, in octets.
pub const FILE_LIMIT: u64 = 256 << 20;
/// Link type of Ethernet (`LINKTYPE_ETHERNET`).
pub(super) const ETHERNET: u32 = 1;
/// The longest record or block, in octets: a super-frame and its options fit many times over.
pub(super) const RECORD_LIMIT: u32 = 1 << 20;
/// First word of a pcap file with microseconds (draft-ietf-opsawg-pcap §4).
const MICROSECONDS: u32 = 0xa1b2_c3d4;
/// The same with nanoseconds.
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// The link type is in the low bits of its word; above it are the length of the frame check sequence and flags.
const LINK_TYPE_MASK: u32 = 0x0000_ffff;

/// A frame read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which interface of the file, counted from 0.
    pub interface: u32,
    /// When it was seen, since 1970.
    pub time: Duration,
    /// Its octets, as many as were captured.
    pub octets: Vec<u8>,
}

/// Why a capture cannot be read. Offsets count octets from 0.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file itself.
    #[error("cannot read the capture: {0}")]
    Io(#[from] io::Error),
    /// More than anybody looks at frame by frame.
    #[error("the capture is longer than {} MiB: cut it into pieces", FILE_LIMIT >> 20)]
    TooLong,
    /// No known format.
    #[error("this is no capture: it begins as neither pcap nor pcapng does")]
    Foreign,
    /// The file ends in the middle.
    #[error("the capture is cut off in {what} that begins at octet {at}")]
    Cut {
        /// In what.
        what: &'static str,
        /// Where that begins.
        at: usize,
    },
    /// A length that makes no sense.
    #[error("{what} at octet {at} has a length of {length}, which is out of range")]
    Length {
        /// Of what.
        what: &'static str,
        /// Where that begins.
        at: usize,
        /// The length.
        length: u32,
    },
    /// Something that contradicts the format.
    #[error("{what} at octet {at}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// Frames that are not Ethernet's.
    #[error("the capture's link type, said at octet {at}, is {link_type}; only Ethernet's (1) is understood")]
    LinkType {
        /// The type.
        link_type: u32,
        /// Where it is said.
        at: usize,
    },
}

/// The octets of a file, in its byte order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Octets<'a> {
    pub(super) all: &'a [u8],
    pub(super) big_endian: bool,
}

impl Octets<'_> {
    /// The word at `at`, 0 where the file has ended: callers look at lengths first.
    pub(super) fn word(self, at: usize) -> u32 {
        let octets = self.all.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
    }

    /// The half word at `at`.
    pub(super) fn half(self, at: usize) -> u16 {
        let octets = self.all.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(octets) } else { u16::from_le_bytes(octets) }
    }
}

/// Every frame of a capture, in order, whatever its format.
///
/// # Errors
/// Says what is wrong, and where.
pub fn read(file: impl Read) -> Result<Vec<Frame>, ReadError> {
    let mut all = Vec::new();
    let length = file.take(FILE_LIMIT + 1).read_to_end(&mut all)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_LIMIT {
        return Err(ReadError::TooLong);
    }
    let little = Octets { all: &all, big_endian: false };
    let big = Octets { all: &all, big_endian: true };
    if all.len() < 4 {
        return Err(if all.is_empty() {
            ReadError::Foreign
        } else {
            ReadError::Cut { what: "the file's header", at: 0 }
        });
    }
    match (little.word(0), big.word(0)) {
        (MICROSECONDS, _) => classic(little, 1_000),
        (NANOSECONDS, _) => classic(little, 1),
        (_, MICROSECONDS) => classic(big, 1_000),
        (_, NANOSECONDS) => classic(big, 1),
        (pcapng::SECTION, _) => pcapng::frames(&all),
        _ => Err(ReadError::Foreign),
    }
}

/// A pcap file: a header of 24 octets, and records of a header of 16 and the frame.
fn classic(file: Octets<'_>, nanos_per_tick: u32) -> Result<Vec<Frame>, ReadError> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    if file.all.len() < HEADER {
        return Err(ReadError::Cut { what: "the file's header", at: 0 });
    }
    let link_type = file.word(20) & LINK_TYPE_MASK;
    if link_type != ETHERNET {
        return Err(ReadError::LinkType { link_type, at: 20 });
    }
    let mut frames = Vec::new();
    let mut at = HEADER;
    while at < file.all.len() {
        if file.all.len() - at < RECORD {
            return Err(ReadError::Cut { what: "a record's header", at });
        }
        let length = file.word(at + 8);
        if length > RECORD_LIMIT {
            return Err(ReadError::Length { what: "the record", at, length });
        }
        let start = at + RECORD;
        let end = start + length as usize;
        let octets = file.all.get(start..end).ok_or(ReadError::Cut { what: "a record", at })?;
        let ticks = file.word(at + 4);
        let nanos = ticks.checked_mul(nanos_per_tick).filter(|nanos| *nanos < 1_000_000_000);
        let nanos = nanos.ok_or(ReadError::Invalid { what: "a record's time has a second or more of fraction", at })?;
        let time = Duration::new(file.word(at).into(), nanos);
        frames.push(Frame { interface: 0, time, octets: octets.to_vec() });
        at = end;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of two frames, in one of the four forms.
    fn sample(big_endian: bool, nanoseconds: bool) -> Vec<u8> {
        let word = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let half = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut file = Vec::new();
        file.extend(word(if nanoseconds { NANOSECONDS } else { MICROSECONDS }));
        file.extend([half(2), half(4)].concat());
        file.extend([word(0), word(0), word(65_535), word(ETHERNET)].concat());
        for (seconds, ticks, octets) in [(1, 2, &b"first!"[..]), (3, 999_999, b"second")] {
            let length = u32::try_from(octets.len()).expect("short");
            file.extend([word(seconds), word(ticks), word(length), word(length + 9)].concat());
            file.extend(octets);
        }
        file
    }

    #[test]
    fn both_byte_orders_and_both_resolutions() {
        for (big_endian, nanoseconds, tick) in
            [(false, false, 1_000), (true, false, 1_000), (false, true, 1), (true, true, 1)]
        {
            let frames = read(sample(big_endian, nanoseconds).as_slice()).expect("a whole file");
            let expected = [(1, 2, b"first!"), (3, 999_999, b"second")].map(|(seconds, ticks, octets)| Frame {
                interface: 0,
                time: Duration::new(seconds, ticks * tick),
                octets: octets.to_vec(),
            });
            assert_eq!(frames, expected, "{big_endian} {nanoseconds}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_but_between_records_is_refused_with_its_place() {
        let file = sample(false, false);
        let whole = [24, 46, 68];
        assert_eq!(file.len(), whole[2]);
        for length in 0..file.len() {
            match read(&file[..length]) {
                Ok(frames) => assert_eq!(whole.iter().position(|end| *end == length), Some(frames.len())),
                Err(ReadError::Cut { at, .. }) => {
                    assert!(at <= length && (at == 0 || whole.contains(&at)), "{length}: {at}")
                }
                Err(other) => assert!(length == 0, "{length}: {other}"),
            }
        }
        assert_eq!(
            read(&file[..50]).expect_err("it is cut").to_string(),
            "the capture is cut off in a record's header that begins at octet 46"
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let mut file = sample(true, false);
        file[23] = 113;
        assert!(matches!(read(file.as_slice()), Err(ReadError::LinkType { link_type: 113, at: 20 })));
        let mut file = sample(false, false);
        file[24 + 8 + 3] = 0x7f;
        assert!(matches!(read(file.as_slice()), Err(ReadError::Length { at: 24, .. })));
        assert!(matches!(read(&b"GIF89a"[..]), Err(ReadError::Foreign)));
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(start in 0_usize..4, octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let starts = [MICROSECONDS.to_le_bytes(), NANOSECONDS.to_be_bytes(), pcapng::SECTION.to_le_bytes(), [0; 4]];
            let _survived = read([&starts[start][..], &octets].concat().as_slice());
        }
    }
}
