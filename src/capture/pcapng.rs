//! The pcapng file format (IETF draft-ietf-opsawg-pcapng §4), as much of it as a capture of Ethernet needs: a section,
//! its interfaces, and packets with their direction. Little-endian, times in nanoseconds.

use core::time::Duration;
use std::io::{self, Read, Write};

use super::{Direction, Sink};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Link type of Ethernet (`LINKTYPE_ETHERNET`).
const ETHERNET: u16 = 1;
const OPTION_END: u16 = 0;
const OPTION_INTERFACE_NAME: u16 = 2;
const OPTION_TIME_RESOLUTION: u16 = 9;
const OPTION_PACKET_FLAGS: u16 = 2;
const ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// The longest block [`read`] takes, in octets: a super-frame and its options fit many times over.
const BLOCK_LIMIT: u32 = 1 << 20;

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

/// A frame read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which interface of the file, counted from 0.
    pub interface: u32,
    /// When it was seen, since 1970.
    pub time: Duration,
    /// Its octets.
    pub octets: Vec<u8>,
}

/// Every frame of a file that [`Writer`] wrote; blocks of other kinds are passed over.
///
/// # Errors
/// `InvalidData` for a block that is too long, too short or cut off, or a file of the other byte order.
pub fn read(mut file: impl Read) -> io::Result<Vec<Frame>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut frames = Vec::new();
    let mut head = [0; 8];
    loop {
        match file.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(frames),
            Err(error) => return Err(error),
        }
        let (kind, length) = (word(&head, 0), word(&head, 4));
        if !(12..=BLOCK_LIMIT).contains(&length) {
            return Err(invalid("a block's length is out of range"));
        }
        let mut body = vec![0; length as usize - 8];
        file.read_exact(&mut body)?;
        if kind == SECTION && body.get(..4) != Some(ORDER_MAGIC.to_le_bytes().as_slice()) {
            return Err(invalid("the section is not little-endian"));
        }
        if kind == ENHANCED_PACKET {
            let octets = (body.len() >= 24)
                .then(|| body.get(20..20 + word(&body, 12) as usize))
                .flatten()
                .ok_or_else(|| invalid("a packet is cut off"))?;
            let nanos = u64::from(word(&body, 4)) << 32 | u64::from(word(&body, 8));
            frames.push(Frame {
                interface: word(&body, 0),
                time: Duration::from_nanos(nanos),
                octets: octets.to_vec(),
            });
        }
    }
}

/// The 32-bit word at `at`, which the caller knows to be there.
fn word(octets: &[u8], at: usize) -> u32 {
    octets[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
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
        for length in 0..file.len() {
            let _ = read(&file[..length]);
        }
        assert!(read(&file[..file.len() - 1]).is_err(), "the last block lacks an octet");
    }

    #[test]
    fn an_undeclared_interface_is_refused() {
        let mut writer = Writer::new(Vec::new()).expect("memory takes all");
        assert!(writer.frame(0, Duration::ZERO, Direction::Inbound, &[]).is_err());
    }
}
