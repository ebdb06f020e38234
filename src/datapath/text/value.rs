//! Values of fields: numbers, addresses, ports, and masks behind a slash.

use core::fmt::Write;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::super::action::port;
use super::super::field::{Field, Format, Info, Subfield};
use super::super::key::ones;
use super::PortNames;
use super::lexer::{Piece, TextError};
use crate::types::Mac;
use crate::wire::tcp;

/// A number of at most `bits` bits, as C writes it: decimal, hexadecimal after `0x` or octal after `0`; `-1` for all
/// of 64 bits.
pub(super) fn number(piece: Piece<'_>, bits: u8) -> Result<u128, TextError> {
    let text = piece.text().trim();
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let octal = text.strip_prefix('0').filter(|digits| !digits.is_empty());
    let parsed = match (hexadecimal, octal) {
        (Some(digits), _) if !digits.starts_with('+') => u128::from_str_radix(digits, 16),
        (None, Some(digits)) if !digits.starts_with('+') => u128::from_str_radix(digits, 8),
        (Some(_), _) | (_, Some(_)) => "+".parse(),
        (None, None) if text == "-1" && bits == 64 => Ok(ones(bits)),
        (None, None) if text.starts_with('+') => "+".parse(),
        (None, None) => text.parse(),
    };
    match parsed {
        Ok(value) if value <= ones(bits) => Ok(value),
        Ok(_) => Err(piece.error(format!("`{text}` is too great: {bits} bits hold at most {:#x}", ones(bits)))),
        Err(_) => Err(piece.error(format!("`{text}` is not a number: write decimal, or hexadecimal after 0x"))),
    }
}

/// A number in plain decimal digits, as tables, ports and the lengths of prefixes are written.
pub(super) fn decimal(piece: Piece<'_>) -> Option<u32> {
    let text = piece.text().trim();
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

macro_rules! sized_number {
    ($name:ident, $type:ty, $bits:literal) => {
        pub(super) fn $name(piece: Piece<'_>) -> Result<$type, TextError> {
            let value = number(piece, $bits)?;
            <$type>::try_from(value).map_err(|_| piece.error("too great"))
        }
    };
}
sized_number!(number8, u8, 8);
sized_number!(number16, u16, 16);
sized_number!(number32, u32, 32);
sized_number!(number64, u64, 64);

pub(super) fn mac(piece: Piece<'_>) -> Result<Mac, TextError> {
    piece.text().trim().parse().map_err(|error: crate::types::BadMac| piece.error(error.to_string()))
}

pub(super) fn ipv4(piece: Piece<'_>) -> Result<u32, TextError> {
    let parsed: Result<Ipv4Addr, _> = piece.text().trim().parse();
    parsed.map(u32::from).map_err(|_| piece.error(format!("`{}` is not an IPv4 address", piece.text())))
}

pub(super) fn ipv6(piece: Piece<'_>) -> Result<u128, TextError> {
    let parsed: Result<Ipv6Addr, _> = piece.text().trim().parse();
    parsed.map(u128::from).map_err(|_| piece.error(format!("`{}` is not an IPv6 address", piece.text())))
}

pub(super) fn mac_bits(mac: Mac) -> u128 {
    mac.octets().iter().fold(0, |bits, octet| bits << 8 | u128::from(*octet))
}

/// A port: a number, a reserved name, or the name of one of the bridge's ports, bare or quoted.
pub(super) fn port_number(piece: Piece<'_>, ports: &impl PortNames) -> Result<u32, TextError> {
    let text = piece.text().trim();
    if let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return ports.number(quoted).ok_or_else(|| piece.error(format!("no port is called {text} on this bridge")));
    }
    if let Some(value) = decimal(piece) {
        // OpenFlow 1.1 writes the reserved ports with 32 bits.
        let value = if value >= 0xffff_ff00 { value & 0xffff } else { value };
        return if value <= 0xffff { Ok(value) } else { Err(piece.error(format!("{value} is no port number"))) };
    }
    // A port may be called like a reserved one in other letters; the bridge's own names come first.
    let mut reserved = port::NAMES.iter().chain(&[(port::NONE, "NONE")]);
    let reserved = reserved.find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(value, _)| *value);
    ports
        .number(text)
        .or(reserved)
        .ok_or_else(|| piece.error(format!("`{text}` is neither a port number nor the name of a port of this bridge")))
}

/// Prints a port: its reserved name, its name if the bridge shows names, or its number.
pub(crate) fn print_port(out: &mut String, value: u32, ports: &impl PortNames) {
    if let Some((_, name)) = port::NAMES.iter().find(|(reserved, _)| *reserved == value) {
        out.push_str(name);
    } else if let Some(name) = ports.name(value) {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_';
        let bare = name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(plain)
            && !port::NAMES.iter().any(|(_, reserved)| reserved.eq_ignore_ascii_case(name));
        let _ = if bare { write!(out, "{name}") } else { write!(out, "\"{name}\"") };
    } else {
        let _ = write!(out, "{value}");
    }
}

const FRAGS: [(&str, u128, u128); 5] =
    [("no", 0, 3), ("yes", 1, 1), ("first", 1, 3), ("later", 3, 3), ("not_later", 0, 2)];

const FLAGS: [(&str, u128); 9] = [
    ("fin", tcp::FIN as u128),
    ("syn", tcp::SYN as u128),
    ("rst", tcp::RST as u128),
    ("psh", tcp::PSH as u128),
    ("ack", tcp::ACK as u128),
    ("urg", tcp::URG as u128),
    ("ece", tcp::ECE as u128),
    ("cwr", tcp::CWR as u128),
    ("ns", 0x100),
];

fn tcp_flags(piece: Piece<'_>) -> Result<(u128, u128), TextError> {
    let (mut value, mut mask) = (0, 0);
    let text = piece.text();
    let mut at = 0;
    while at < text.len() {
        let sign = &text[at..=at];
        let rest = &text[at + 1..];
        let end = at + 1 + rest.find(['+', '-']).unwrap_or(rest.len());
        let Some((_, bit)) = FLAGS.iter().find(|(name, _)| *name == &text[at + 1..end]) else {
            let known: Vec<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
            let wrong = piece.cut(at, end);
            return Err(wrong.error(format!("no such TCP flag: write + or - and one of {}", known.join(", "))));
        };
        if mask & bit != 0 {
            return Err(piece.cut(at, end).error("each TCP flag is given once"));
        }
        mask |= bit;
        value |= if sign == "+" { *bit } else { 0 };
        at = end;
    }
    Ok((value, mask))
}

/// Names of flags joined by `|`: these and no others.
fn exact_tcp_flags(piece: Piece<'_>) -> Result<u128, TextError> {
    let mut value = 0;
    for name in piece.text().split('|') {
        let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let unnamed =
            bracketed.and_then(|digits| u128::from_str_radix(digits, 16).ok()).filter(|bits| bits & !0xe00 == 0);
        let known = FLAGS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit);
        let Some(bits) = known.or(unnamed).filter(|bits| value & bits == 0) else {
            let known: Vec<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
            return Err(piece.error(format!("`{name}` is no TCP flag, or there twice: write {}", known.join("|"))));
        };
        value |= bits;
    }
    Ok(value)
}

/// A field's value, without a mask.
fn plain(info: &Info, piece: Piece<'_>, ports: &impl PortNames) -> Result<u128, TextError> {
    match info.format {
        Format::Mac => mac(piece).map(mac_bits),
        Format::Ipv4 => ipv4(piece).map(u128::from),
        Format::Ipv6 => ipv6(piece),
        Format::Port => port_number(piece, ports).map(u128::from),
        Format::Decimal | Format::Hex | Format::Frag | Format::TcpFlags => number(piece, width(info)),
    }
}

/// Bits a number for the field may have.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest have their declared width")]
fn width(info: &Info) -> u8 {
    match info.field {
        Field::VlanVid => 13,
        Field::IpFrag => 2,
        Field::ArpOp | Field::Icmp4Type | Field::Icmp4Code | Field::Icmp6Type | Field::Icmp6Code => 8,
        _ => info.bits,
    }
}

/// A field's value and mask, as in a match or a `set_field`.
pub(super) fn masked(info: &Info, piece: Piece<'_>, ports: &impl PortNames) -> Result<(u128, u128), TextError> {
    let piece = piece.trim();
    let text = piece.text();
    if info.format == Format::Frag {
        if let Some((_, value, mask)) = FRAGS.iter().find(|(name, ..)| *name == text) {
            return Ok((*value, *mask));
        }
        return Err(piece.error("write no, yes, first, later or not_later"));
    }
    if info.format == Format::TcpFlags && text.starts_with(['+', '-']) {
        return tcp_flags(piece);
    }
    if info.format == Format::TcpFlags && text.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') {
        return exact_tcp_flags(piece).map(|value| (value, info.exact()));
    }
    if info.field == Field::DlVlan && matches!(number(piece, 16), Ok(0xffff)) {
        return Ok((0xffff, info.exact()));
    }
    let Some((left, right)) = piece.split("/") else {
        return plain(info, piece, ports).map(|value| (value, info.exact()));
    };
    if !info.maskable {
        // All of its octets, or none of them, are no mask.
        let all = ones(info.bits.div_ceil(8) * 8);
        let mask = number(right, 128).ok().filter(|mask| info.format != Format::Port && (*mask == 0 || *mask == all));
        let mask = mask.ok_or_else(|| right.error(format!("{} takes no mask", info.name)))?;
        let value = plain(info, left, ports)?;
        return Ok(if mask == 0 { (0, 0) } else { (value, info.exact()) });
    }
    let value = plain(info, left, ports)?;
    let prefix_bits: Option<u8> = match info.format {
        Format::Ipv4 => Some(32),
        Format::Ipv6 => Some(128),
        Format::Decimal | Format::Hex | Format::Mac | Format::Port | Format::Frag | Format::TcpFlags => None,
    };
    let mask = match prefix_bits {
        Some(bits) if right.text().bytes().all(|octet| octet.is_ascii_digit()) => {
            let length = decimal(right).and_then(|length| u8::try_from(length).ok()).filter(|length| *length <= bits);
            let length = length.ok_or_else(|| right.error(format!("a prefix has at most {bits} bits")))?;
            ones(bits) ^ ones(bits - length)
        }
        Some(_) | None => plain(info, right, ports)?,
    };
    Ok((value & mask, mask))
}

/// Prints a field's value alone, as a match or `set_field` shows it.
pub(crate) fn print_plain(out: &mut String, info: &Info, value: u128, ports: &impl PortNames) {
    let _ = match info.format {
        Format::Decimal => write!(out, "{value}"),
        Format::Hex if info.field == Field::VlanTci => write!(out, "{value:#06x}"),
        Format::Hex if info.field == Field::Ipv6Label => write!(out, "{value:#07x}"),
        Format::Hex | Format::Frag | Format::TcpFlags if value == 0 => write!(out, "0"),
        Format::Hex | Format::Frag | Format::TcpFlags => write!(out, "{value:#x}"),
        Format::Mac => {
            let [.., a, b, c, d, e, f] = value.to_be_bytes();
            write!(out, "{}", Mac::new([a, b, c, d, e, f]))
        }
        Format::Ipv4 => write!(out, "{}", Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX))),
        Format::Ipv6 => write!(out, "{}", Ipv6Addr::from(value)),
        Format::Port => {
            print_port(out, u32::try_from(value).unwrap_or(u32::MAX), ports);
            Ok(())
        }
    };
}

fn prefix_length(mask: u128, bits: u8) -> Option<u32> {
    let aligned = mask << (128 - u32::from(bits));
    (aligned.leading_ones() + aligned.trailing_zeros().min(128) == 128 || aligned == u128::MAX)
        .then(|| aligned.leading_ones())
}

/// Prints a field's value, and its mask if that is not exact.
pub(super) fn print_masked(out: &mut String, info: &Info, value: u128, mask: u128, ports: &impl PortNames) {
    if info.format == Format::Frag {
        match FRAGS.iter().find(|(_, known, bits)| *known == value && *bits == mask) {
            Some((name, ..)) => out.push_str(name),
            None => {
                let _ = write!(out, "{value:#x}/{mask:#x}");
            }
        }
        return;
    }
    if info.format == Format::TcpFlags && mask != info.exact() && mask & !0x1ff == 0 {
        for (name, bit) in FLAGS.iter().filter(|(_, bit)| mask & bit != 0) {
            out.push(if value & bit != 0 { '+' } else { '-' });
            out.push_str(name);
        }
        return;
    }
    if info.format == Format::TcpFlags && mask == info.exact() && value != 0 {
        let set = FLAGS.iter().filter(|(_, bit)| value & bit != 0).map(|(name, _)| (*name).to_owned());
        let unnamed = [0x200, 0x400, 0x800].into_iter().filter(|bit| value & bit != 0).map(|bit| format!("[{bit:x}]"));
        let set: Vec<String> = set.chain(unnamed).collect();
        out.push_str(&set.join("|"));
        return;
    }
    print_plain(out, info, value, ports);
    if mask == info.exact() {
        return;
    }
    out.push('/');
    let length = match info.format {
        Format::Ipv4 => prefix_length(mask, 32),
        Format::Ipv6 => prefix_length(mask, 128),
        Format::Decimal | Format::Hex | Format::Mac | Format::Port | Format::Frag | Format::TcpFlags => None,
    };
    match length {
        Some(length) => {
            let _ = write!(out, "{length}");
        }
        None if info.format == Format::Decimal => {
            let _ = write!(out, "{mask:#x}");
        }
        None => print_plain(out, info, mask, ports),
    }
}

/// `NAME[from..to]`, `NAME[bit]`, `NAME[]` or, where the field has one, its plain name.
pub(super) fn subfield(piece: Piece<'_>) -> Result<Subfield, TextError> {
    let piece = piece.trim();
    let (name, range) = match piece.split("[") {
        Some((name, rest)) => {
            let Some((range, after)) = rest.split("]") else { return Err(rest.error("`]` is missing")) };
            if !after.is_empty() {
                return Err(after.error("nothing may follow `]`"));
            }
            (name, Some(range))
        }
        None => (piece, None),
    };
    let Some(info) = Field::by_name(name.text()) else {
        return Err(name.error(format!("no field is called `{}`", name.text())));
    };
    let Some(range) = range.filter(|range| !range.is_empty()) else { return Ok(Subfield::whole(info.field)) };
    let (from, to) = match range.split("..") {
        Some((from, to)) => (number8(from)?, number8(to)?),
        None => (number8(range)?, number8(range)?),
    };
    if from > to || to >= info.bits {
        let most = info.bits - 1;
        return Err(range.error(format!("bits of {} are 0 to {most}, the lower first", name.text())));
    }
    Ok(Subfield { field: info.field, from, bits: to - from + 1 })
}

/// Prints a subfield by its NXM name.
pub(crate) fn print_subfield(out: &mut String, subfield: Subfield) {
    let info = subfield.field.info();
    out.push_str(if info.nxm.is_empty() { info.name } else { info.nxm });
    if subfield.is_whole() {
        out.push_str("[]");
    } else if subfield.bits == 1 {
        let _ = write!(out, "[{}]", subfield.from);
    } else {
        let _ = write!(out, "[{}..{}]", subfield.from, subfield.from + subfield.bits - 1);
    }
}

/// Prints a number the way OVS prints bits: `0`, or hexadecimal.
pub(crate) fn print_bits(out: &mut String, value: u128) {
    let _ = if value == 0 { write!(out, "0") } else { write!(out, "{value:#x}") };
}
