//! The pcapng file format (IETF draft-ietf-opsawg-pcapng §4), as much of it as a capture of Ethernet needs: a section,
//! its interfaces, and packets with their direction. Little-endian, times in nanoseconds.

use core::time::Duration;
use std::io::{self, Read, Write};

use super::file::{Frame, Octets, RECORD_LIMIT, ReadError};
use super::{Direction, Sink};

pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Link type of Ethernet (`LINKTYPE_ETHERNET`).
const ETHERNET: u16 = 1;
const OPTION_END: u16 = 0;
const OPTION_INTERFACE_NAME: u16 = 2;
const OPTION_TIME_RESOLUTION: u16 = 9;
const OPTION_PACKET_FLAGS: u16 = 2;
const ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Writes one section of a capture file.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Opens the section.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, interfaces: 0 };
        let mut body = Vec::new();
        body.extend(ORDER_MAGIC.to_le_bytes());
        body.extend(1_u16.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        // The section's length is not known while it is written.
        body.extend(u64::MAX.to_le_bytes());
        writer.block(SECTION, &body)?;
        Ok(writer)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 12).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(&length.to_le_bytes())
    }
}

impl<W: Write> Sink for Writer<W> {
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        body.extend([0; 2]);
        // No limit on a packet's length.
        body.extend(0_u32.to_le_bytes());
        option(&mut body, OPTION_INTERFACE_NAME, name.as_bytes());
        option(&mut body, OPTION_TIME_RESOLUTION, &[9]);
        option(&mut body, OPTION_END, &[]);
        self.block(INTERFACE, &body)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    fn frame(&mut self, interface: u32, time: Duration, direction: Direction, frame: &[u8]) -> io::Result<()> {
        if interface >= self.interfaces {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface was not declared"));
        }
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes();
        let length = u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut body = Vec::with_capacity(frame.len() + 40);
        body.extend(interface.to_le_bytes());
        // The high half comes first, each half in the file's order.
        body.extend(&nanos[4..]);
        body.extend(&nanos[..4]);
        body.extend(length.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(frame);
        pad(&mut body);
        let flags: u32 = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        option(&mut body, OPTION_PACKET_FLAGS, &flags.to_le_bytes());
        option(&mut body, OPTION_END, &[]);
        self.block(ENHANCED_PACKET, &body)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend(code.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(&value[..usize::from(length)]);
    pad(body);
}

/// Every frame of a pcapng file; blocks of other kinds are passed over.
///
/// # Errors
/// As [`super::file::read`].
pub fn read(mut file: impl Read) -> Result<Vec<Frame>, ReadError> {
    let mut all = Vec::new();
    file.read_to_end(&mut all)?;
    frames(&all)
}

/// What an interface's description says.
struct Interface {
    ethernet: bool,
    /// Ticks of its clock in a second.
    ticks: u64,
}

/// The frames of a file, section by section. Each section has a byte order and interfaces of its own.
pub(super) fn frames(all: &[u8]) -> Result<Vec<Frame>, ReadError> {
    let mut file = Octets { all, big_endian: false };
    let (mut frames, mut interfaces) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < all.len() {
        if all.len() - at < 8 {
            return Err(ReadError::Cut { what: "a block's header", at });
        }
        let kind = file.word(at);
        if kind == SECTION {
            let magic = all.get(at + 8..).and_then(|rest| rest.first_chunk::<4>());
            let magic = magic.ok_or(ReadError::Cut { what: "a section's header", at })?;
            file.big_endian = match (u32::from_le_bytes(*magic), u32::from_be_bytes(*magic)) {
                (ORDER_MAGIC, _) => false,
                (_, ORDER_MAGIC) => true,
                _ => return Err(ReadError::Invalid { what: "a section says no byte order", at: at + 8 }),
            };
            interfaces.clear();
        } else if at == 0 {
            return Err(ReadError::Foreign);
        }
        let length = file.word(at + 4);
        if !(12..=RECORD_LIMIT).contains(&length) || !length.is_multiple_of(4) {
            return Err(ReadError::Length { what: "the block", at, length });
        }
        let end = at + length as usize;
        if end > all.len() {
            return Err(ReadError::Cut { what: "a block", at });
        }
        if file.word(end - 4) != length {
            return Err(ReadError::Invalid { what: "a block says two lengths", at });
        }
        let block = Octets { all: &all[..end - 4], ..file };
        match kind {
            INTERFACE => interfaces.push(interface(block, at + 8)),
            ENHANCED_PACKET => frames.push(enhanced(block, at + 8, &interfaces)?),
            _ => {}
        }
        at = end;
    }
    Ok(frames)
}

/// Reads an interface's description, whose body begins at `at`.
fn interface(block: Octets<'_>, at: usize) -> Interface {
    let mut interface = Interface { ethernet: block.half(at) == ETHERNET, ticks: 1_000_000 };
    let mut at = at + 8;
    while at + 4 <= block.all.len() {
        let (code, length) = (block.half(at), usize::from(block.half(at + 2)));
        if code == OPTION_END {
            break;
        }
        if code == OPTION_TIME_RESOLUTION && length == 1 {
            // A power of ten, or of two with the highest bit set (§4.2, `if_tsresol`).
            let ticks = block.all.get(at + 4).and_then(|power| match power {
                power if power & 0x80 == 0 => 10_u64.checked_pow((*power).into()),
                power => 2_u64.checked_pow((power & 0x7f).into()),
            });
            interface.ticks = ticks.unwrap_or(interface.ticks);
        }
        at += 4 + length.next_multiple_of(4);
    }
    interface
}

/// Reads a packet, whose body begins at `at`.
fn enhanced(block: Octets<'_>, at: usize, interfaces: &[Interface]) -> Result<Frame, ReadError> {
    if block.all.len() < at + 20 {
        return Err(ReadError::Cut { what: "a packet", at });
    }
    let number = block.word(at);
    let interface = usize::try_from(number).ok().and_then(|number| interfaces.get(number));
    let interface = interface.ok_or(ReadError::Invalid { what: "a packet is of no declared interface", at })?;
    if !interface.ethernet {
        return Err(ReadError::Invalid { what: "a packet is of an interface that is not Ethernet", at });
    }
    let length = block.word(at + 12);
    let start = at + 20;
    let end = start.checked_add(length as usize);
    let octets = end.and_then(|end| block.all.get(start..end)).ok_or(ReadError::Cut { what: "a packet", at })?;
    let ticks = u64::from(block.word(at + 4)) << 32 | u64::from(block.word(at + 8));
    let nanos = u128::from(ticks % interface.ticks) * 1_000_000_000 / u128::from(interface.ticks);
    let nanos = u32::try_from(nanos).unwrap_or_else(|_| unreachable!("a fraction of a second"));
    Ok(Frame { interface: number, time: Duration::new(ticks / interface.ticks, nanos), octets: octets.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).expect("memory takes all");
        let eth0 = writer.interface("eth0").expect("memory takes all");
        writer.frame(eth0, Duration::from_nanos(0x1_0000_0002), Direction::Outbound, b"seven!!").expect("declared");
        file
    }

    #[test]
    fn known_octets() {
        let file = sample();
        let section = [
            0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255,
            255, 28, 0, 0, 0,
        ];
        let interface = [
            1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 0, b'e', b't', b'h', b'0', 9, 0, 1, 0, 9, 0, 0,
            0, 0, 0, 0, 0, 40, 0, 0, 0,
        ];
        assert_eq!(file[..28], section);
        assert_eq!(file[28..68], interface);
        assert_eq!(file.len(), 28 + 40 + 32 + 8 + 12);
    }

    #[test]
    fn reads_what_it_wrote_and_refuses_what_is_cut_off() {
        let file = sample();
        let frames = read(file.as_slice()).expect("a whole file");
        let time = Duration::from_nanos(0x1_0000_0002);
        assert_eq!(frames, [Frame { interface: 0, time, octets: b"seven!!".to_vec() }]);
        let whole = [0, 28, 68];
        for length in 0..file.len() {
            match read(&file[..length]) {
                Ok(frames) => assert!(frames.is_empty() && whole.contains(&length), "cut at {length}"),
                Err(ReadError::Cut { at, .. }) => assert!(at <= length, "{length}: {at}"),
                Err(other) => panic!("cut at {length}: {other}"),
            }
        }
        assert_eq!(
            read(&file[..70]).expect_err("two octets of a block").to_string(),
            "the capture is cut off in a block's header that begins at octet 68"
        );
    }

    /// A section in the other byte order, with a clock of the default resolution and one of 1/1024 s.
    #[test]
    fn the_other_byte_order_and_other_clocks() {
        let block = |kind: u32, body: &[u8]| {
            let length = u32::try_from(body.len() + 12).expect("short").to_be_bytes();
            [&kind.to_be_bytes()[..], &length, body, &length].concat()
        };
        let mut file = block(SECTION, &[0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        file.extend(block(INTERFACE, &[0, 1, 0, 0, 0, 0, 0, 0]));
        file.extend(block(INTERFACE, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 0, 0, 0]));
        for interface in [0, 1] {
            let body = [0, 0, 0, interface, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 2, 0, 0, 0, 2, b'h', b'i', 0, 0];
            file.extend(block(ENHANCED_PACKET, &body));
        }
        let frames = read(file.as_slice()).expect("a whole file");
        let times: Vec<Duration> = frames.iter().map(|frame| frame.time).collect();
        assert_eq!(times, [Duration::from_micros(1025), Duration::new(1, 976_562)]);
        assert!(frames.iter().all(|frame| frame.octets == b"hi"));
        file.truncate(28);
        file.extend(block(ENHANCED_PACKET, &[0; 24]));
        assert!(matches!(read(file.as_slice()), Err(ReadError::Invalid { at: 36, .. })), "no such interface");
    }

    #[test]
    fn an_undeclared_interface_is_refused() {
        let mut writer = Writer::new(Vec::new()).expect("memory takes all");
        assert!(writer.frame(0, Duration::ZERO, Direction::Inbound, &[]).is_err());
    }
}
