//! Actions in text.

use core::fmt::Write;
use std::sync::Arc;

use super::super::action::{Action, Learn, LearnSource, LearnSpec, SetBits, Wide, port};
use super::super::field::{Field, Format, Info, Subfield};
use super::super::key::{TCI_PRESENT, ones};
use super::PortNames;
use super::actions::{Before, nested};
use super::lexer::{Piece, TextError, Word, words};
use super::matching::pushable;
use super::value::{
    ipv4, mac, masked, number, number8, number16, number32, number64, port_number, print_bits, print_masked,
    print_plain, print_port, print_subfield, subfield,
};

/// Reads one action.
pub(super) struct Parser<'a, P> {
    pub(super) ports: &'a P,
    /// In how many others it is nested.
    pub(super) depth: usize,
}

/// `value->field` in two.
fn arrow<'a>(value: Piece<'a>, what: &str) -> Result<(Piece<'a>, Piece<'a>), TextError> {
    value.split_last("->").ok_or_else(|| value.error(format!("`{what}` is written VALUE->FIELD")))
}

impl<P: PortNames> Parser<'_, P> {
    pub(super) fn action(&self, word: Word<'_>) -> Result<Action, TextError> {
        let name = word.key.text();
        if word.value.is_none() {
            return self.bare(word, name);
        }
        let value = word.value.unwrap_or(word.key);
        Ok(match name {
            "output" => self.output(value)?,
            "resubmit" => self.resubmit(word, value)?,
            "goto_table" => Action::GotoTable(number8(value)?),
            "write_metadata" => {
                let (value, mask) = match value.split("/") {
                    Some((value, mask)) => (number64(value)?, number64(mask)?),
                    None => (number64(value)?, u64::MAX),
                };
                Action::WriteMetadata { value: value & mask, mask }
            }
            "mod_dl_src" => Action::ModEthSrc(mac(value)?),
            "mod_dl_dst" => Action::ModEthDst(mac(value)?),
            "mod_vlan_vid" | "set_vlan_vid" => Action::ModVlanVid(limited(value, 12)?),
            "mod_vlan_pcp" | "set_vlan_pcp" => Action::ModVlanPcp(limited(value, 3)?.to_be_bytes()[1]),
            "push_vlan" => {
                let ether_type = number16(value)?;
                if !pushable(ether_type) {
                    return Err(value.error("a VLAN tag's type is 0x8100 or 0x88a8"));
                }
                Action::PushVlan(ether_type)
            }
            "mod_nw_src" => Action::ModIpSrc(ipv4(value)?),
            "mod_nw_dst" => Action::ModIpDst(ipv4(value)?),
            "mod_nw_tos" => {
                let tos = number8(value)?;
                if tos & 3 != 0 {
                    return Err(value.error("the type of service is a multiple of 4: its low bits are ECN"));
                }
                Action::ModIpTos(tos)
            }
            "mod_nw_ecn" => Action::ModIpEcn(limited(value, 2)?.to_be_bytes()[1]),
            "mod_nw_ttl" => Action::ModIpTtl(number8(value)?),
            "mod_tp_src" => Action::ModTpSrc(number16(value)?),
            "mod_tp_dst" => Action::ModTpDst(number16(value)?),
            "set_tunnel" => {
                let id = number64(value)?;
                Action::SetTunnel { id, wide: id > u64::from(u32::MAX) }
            }
            "set_tunnel64" => Action::SetTunnel { id: number64(value)?, wide: true },
            "set_field" => self.set_field(value)?,
            "load" | "reg_load" => self.load(value)?,
            "move" => {
                let (from, to) = arrow(value, "move")?;
                let (from, to) = (subfield(from)?, (to, subfield(to)?));
                if from.bits != to.1.bits {
                    let message = format!("{} bits do not fit into {}", from.bits, to.1.bits);
                    return Err(to.0.error(message));
                }
                Action::Move { from, to: to.1 }
            }
            "learn" => Action::Learn(Arc::new(self.learn(value)?)),
            "note" => Action::Note(note(value)?),
            "clone" => Action::Clone(nested(value, self.ports, self.depth + 1, &mut Before::default())?),
            "fin_timeout" => fin_timeout(value)?,
            "controller" => Action::Controller(controller(value)?),
            "CONTROLLER" => return Err(refused(word)),
            _ => return Err(unknown(word)),
        })
    }

    fn bare(&self, word: Word<'_>, name: &str) -> Result<Action, TextError> {
        Ok(match name {
            "in_port" | "IN_PORT" => Action::Output(port::IN_PORT),
            "normal" | "NORMAL" => Action::Output(port::NORMAL),
            "flood" | "FLOOD" => Action::Output(port::FLOOD),
            "all" | "ALL" => Action::Output(port::ALL),
            "local" | "LOCAL" => Action::Output(port::LOCAL),
            "strip_vlan" => Action::PopVlan { strip: true },
            "pop_vlan" => Action::PopVlan { strip: false },
            "dec_ttl" => Action::DecTtl,
            "exit" => Action::Exit,
            "note" => Action::Note(note(word.key.cut(0, 0))?),
            "learn" => Action::Learn(Arc::default()),
            "controller" | "CONTROLLER" => return Err(refused(word)),
            _ => match port_number(word.key, self.ports) {
                Ok(number) => self.to_port(word.key, number)?,
                Err(_) => return Err(unknown(word)),
            },
        })
    }

    fn to_port(&self, piece: Piece<'_>, number: u32) -> Result<Action, TextError> {
        match number {
            port::CONTROLLER | port::TABLE => Err(piece.error("this switch has no controller and no packet-outs")),
            port::NONE | port::UNSET => Err(piece.error("that is no port to send to")),
            _ => Ok(Action::Output(number)),
        }
    }

    fn output(&self, value: Piece<'_>) -> Result<Action, TextError> {
        match port_number(value, self.ports) {
            Ok(number) => self.to_port(value, number),
            Err(error) => match subfield(value) {
                Ok(from) if from.bits <= 32 => Ok(Action::OutputField(from)),
                Ok(from) => Err(value.error(format!("{} bits are too many for a port number", from.bits))),
                Err(field_error) => Err(if value.text().contains('[') { field_error } else { error }),
            },
        }
    }

    fn resubmit(&self, word: Word<'_>, value: Piece<'_>) -> Result<Action, TextError> {
        let listed = word.whole.text().as_bytes().get(word.key.text().len()) == Some(&b'(');
        if !listed {
            return Ok(Action::Resubmit { port: self.resubmit_port(value)?, table: None, plain: true });
        }
        let (port, table) = match value.split(",") {
            Some((port, table)) => (port.trim(), Some(table.trim())),
            None => (value.trim(), None),
        };
        let port = if port.is_empty() { None } else { self.resubmit_port(port)? };
        let table = match table {
            Some(table) if !table.is_empty() => match number8(table)? {
                255 => None,
                number => Some(number),
            },
            Some(_) | None => None,
        };
        if port.is_none() && table.is_none() {
            return Err(word.key.error("resubmit needs a port, a table, or both"));
        }
        Ok(Action::Resubmit { port, plain: table.is_none(), table })
    }

    fn resubmit_port(&self, piece: Piece<'_>) -> Result<Option<u32>, TextError> {
        let number = port_number(piece, self.ports)?;
        Ok((number != port::IN_PORT).then_some(number))
    }

    fn set_field(&self, value: Piece<'_>) -> Result<Action, TextError> {
        let (value, name) = arrow(value, "set_field")?;
        let Some(info) = Field::by_name(name.trim().text()) else {
            return Err(name.error(format!("no field is called `{}`", name.text())));
        };
        if !info.writable {
            return Err(name.error(format!("{} cannot be written", info.name)));
        }
        let (value, mask) = masked(info, value, self.ports)?;
        // A VLAN that is written is one of a tag, with or without the bit that says so.
        let tag = if info.field == Field::VlanVid && mask == info.exact() { u128::from(TCI_PRESENT) } else { 0 };
        let value = value | tag;
        let (field, value) = (info.field, value & mask);
        Ok(if mask == info.exact() {
            Action::SetField { field, value: Wide(value) }
        } else {
            Action::SetBits(Box::new(SetBits { field, value, mask }))
        })
    }

    fn load(&self, value: Piece<'_>) -> Result<Action, TextError> {
        let (value, to) = arrow(value, "load")?;
        let target = subfield(to)?;
        if !target.field.info().writable {
            return Err(to.error(format!("{} cannot be written", target.field.info().name)));
        }
        Ok(Action::Load { to: target, value: Wide(number(value, target.bits)?) })
    }

    fn learn(&self, text: Piece<'_>) -> Result<Learn, TextError> {
        let mut learn = Learn::default();
        let mut specs = Vec::new();
        for word in words(text) {
            let word = word?;
            match (word.key.text(), word.value) {
                ("table", Some(value)) => {
                    learn.table = number8(value)?;
                    if learn.table == 255 {
                        return Err(value.error("tables are 0 to 254"));
                    }
                }
                ("priority", Some(value)) => learn.priority = number16(value)?,
                ("idle_timeout", Some(value)) => learn.idle_timeout = number16(value)?,
                ("hard_timeout", Some(value)) => learn.hard_timeout = number16(value)?,
                ("fin_idle_timeout", Some(value)) => learn.fin_idle_timeout = number16(value)?,
                ("fin_hard_timeout", Some(value)) => learn.fin_hard_timeout = number16(value)?,
                ("cookie", Some(value)) => learn.cookie = number64(value)?,
                ("limit", Some(value)) => learn.limit = number32(value)?,
                ("send_flow_rem", None) => learn.send_flow_rem = true,
                ("delete_learned", None) => learn.delete_learned = true,
                ("result_dst", Some(value)) => {
                    let bit = subfield(value)?;
                    if bit.bits != 1 {
                        return Err(value.error("the result is one bit: write FIELD[BIT]"));
                    }
                    if !bit.field.info().writable {
                        return Err(value.error(format!("{} cannot be written", bit.field.info().name)));
                    }
                    learn.result = Some(bit);
                }
                _ => specs.push(self.learn_spec(word)?),
            }
        }
        learn.specs = specs.into();
        Ok(learn)
    }

    fn learn_spec(&self, word: Word<'_>) -> Result<LearnSpec, TextError> {
        match (word.key.text(), word.value) {
            ("output", Some(value)) => {
                let from = subfield(value)?;
                if from.bits > 32 {
                    return Err(value.error(format!("{} bits are too many for a port number", from.bits)));
                }
                Ok(LearnSpec::Output(from))
            }
            ("load", Some(value)) => {
                let (value, to_piece) = arrow(value, "load")?;
                let to = subfield(to_piece)?;
                let source = if value.text().contains('[') {
                    LearnSource::Field(same_bits(value, to)?)
                } else {
                    LearnSource::Value(number(value, to.bits)?)
                };
                Ok(LearnSpec::Load { to, source })
            }
            (_, None) => {
                let field = subfield(word.key)?;
                Ok(LearnSpec::Match { field, source: LearnSource::Field(field) })
            }
            (_, Some(value)) => {
                let field = subfield(word.key)?;
                if value.text().contains('[') {
                    return Ok(LearnSpec::Match { field, source: LearnSource::Field(same_bits(value, field)?) });
                }
                let value = if field.is_whole() {
                    masked(field.field.info(), value, self.ports)?.0
                } else {
                    number(value, field.bits)?
                };
                Ok(LearnSpec::Match { field, source: LearnSource::Value(value) })
            }
        }
    }
}

fn same_bits(piece: Piece<'_>, to: Subfield) -> Result<Subfield, TextError> {
    let from = subfield(piece)?;
    if from.bits == to.bits {
        return Ok(from);
    }
    Err(piece.error(format!("{} bits do not fit into {}", from.bits, to.bits)))
}

fn limited(value: Piece<'_>, bits: u8) -> Result<u16, TextError> {
    number(value, bits).map(|value| u16::try_from(value).unwrap_or(u16::MAX))
}

/// Most octets a `controller` action says.
const LIMIT_USERDATA: usize = 64;

/// What `controller(userdata=…)` says.
fn controller(value: Piece<'_>) -> Result<Arc<[u8]>, TextError> {
    let mut said = None;
    for word in words(value) {
        let word = word?;
        match word.key.text() {
            "userdata" => said = Some(word.needs_value()?),
            other => return Err(word.key.error(format!("this switch's `controller` takes no `{other}`"))),
        }
    }
    let said = said.ok_or_else(|| value.error("this switch's `controller` says its `userdata`, and there is none"))?;
    match octets(said.text()) {
        Some(octets) if octets.is_empty() => Err(said.error("there is no userdata to say")),
        Some(octets) if octets.len() <= LIMIT_USERDATA => Ok(octets.into()),
        Some(_) => Err(said.error(format!("userdata has at most {LIMIT_USERDATA} octets"))),
        None => Err(said.error("userdata is octets of two hexadecimal digits each, with dots between them or not")),
    }
}

/// Octets of two hexadecimal digits each, any number of dots before, between and behind them (`ofpbuf_put_hex()`).
fn octets(text: &str) -> Option<Vec<u8>> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pieces = text.split('.').flat_map(|piece| piece.as_bytes().chunks(2));
    let pair = |pair: &[u8]| if let [high, low] = *pair { Some(digit(high)? << 4 | digit(low)?) } else { None };
    pieces.map(pair).collect()
}

fn refused(word: Word<'_>) -> TextError {
    word.key.error(
        "this switch sends no frames to a controller: write `controller(userdata=…)` to have it told, or remove it",
    )
}

fn unknown(word: Word<'_>) -> TextError {
    word.key.error(format!("there is no action, and no port of this bridge, called `{}`", word.key.text()))
}

fn note(value: Piece<'_>) -> Result<Box<[u8]>, TextError> {
    let text = value.text();
    let mut octets = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let pair = text.get(at..at + 2).filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some(octet) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) else {
            return Err(value
                .cut(at, text.len())
                .error("a note is pairs of hexadecimal digits, dots between them or not"));
        };
        octets.push(octet);
        at += 2;
        at += usize::from(text[at..].starts_with('.'));
    }
    // A note travels in units of eight octets, six in the first (`NXAST_NOTE`): OVS shows the padding.
    while octets.is_empty() || (octets.len() + 2) % 8 != 0 {
        octets.push(0);
    }
    Ok(octets.into())
}

fn fin_timeout(value: Piece<'_>) -> Result<Action, TextError> {
    let (mut idle, mut hard) = (0, 0);
    for word in words(value) {
        let word = word?;
        match word.key.text() {
            "idle_timeout" => idle = number16(word.needs_value()?)?,
            "hard_timeout" => hard = number16(word.needs_value()?)?,
            other => return Err(word.key.error(format!("fin_timeout has no `{other}`"))),
        }
    }
    Ok(Action::FinTimeout { idle, hard })
}

/// Prints actions joined by commas; `drop` if there are none.
pub(crate) fn print_actions(out: &mut String, actions: &[Action], ports: &impl PortNames) {
    if actions.is_empty() {
        out.push_str("drop");
    }
    for (index, action) in actions.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        print_action(out, action, ports);
    }
}

fn print_output(out: &mut String, number: u32, ports: &impl PortNames) {
    if !port::NAMES.iter().any(|(reserved, _)| *reserved == number) {
        out.push_str("output:");
    }
    print_port(out, number, ports);
}

fn print_set(out: &mut String, field: Field, (value, mask): (u128, u128), ports: &impl PortNames) -> core::fmt::Result {
    out.push_str("set_field:");
    print_masked(out, field.info(), value, mask, ports);
    write!(out, "->{}", field.info().name)
}

fn print_action(out: &mut String, action: &Action, ports: &impl PortNames) {
    let _ = match action {
        Action::Output(number) => {
            print_output(out, *number, ports);
            Ok(())
        }
        Action::OutputField(from) => {
            out.push_str("output:");
            print_subfield(out, *from);
            Ok(())
        }
        Action::Resubmit { port, table, .. } => {
            print_resubmit(out, *port, *table, ports);
            Ok(())
        }
        Action::GotoTable(table) => write!(out, "goto_table:{table}"),
        Action::WriteMetadata { value, mask } if *mask == u64::MAX => write!(out, "write_metadata:{value:#x}"),
        Action::WriteMetadata { value, mask } => write!(out, "write_metadata:{value:#x}/{mask:#x}"),
        Action::ModEthSrc(mac) => write!(out, "mod_dl_src:{mac}"),
        Action::ModEthDst(mac) => write!(out, "mod_dl_dst:{mac}"),
        Action::ModVlanVid(vid) => write!(out, "mod_vlan_vid:{vid}"),
        Action::ModVlanPcp(pcp) => write!(out, "mod_vlan_pcp:{pcp}"),
        Action::PopVlan { strip } => write!(out, "{}", if *strip { "strip_vlan" } else { "pop_vlan" }),
        Action::PushVlan(ether_type) => write!(out, "push_vlan:{ether_type:#06x}"),
        Action::ModIpSrc(address) => write!(out, "mod_nw_src:{}", core::net::Ipv4Addr::from(*address)),
        Action::ModIpDst(address) => write!(out, "mod_nw_dst:{}", core::net::Ipv4Addr::from(*address)),
        Action::ModIpTos(tos) => write!(out, "mod_nw_tos:{tos}"),
        Action::ModIpEcn(ecn) => write!(out, "mod_nw_ecn:{ecn}"),
        Action::ModIpTtl(ttl) => write!(out, "mod_nw_ttl:{ttl}"),
        Action::ModTpSrc(number) => write!(out, "mod_tp_src:{number}"),
        Action::ModTpDst(number) => write!(out, "mod_tp_dst:{number}"),
        Action::SetField { field, value } => print_set(out, *field, (value.0, field.info().exact()), ports),
        Action::SetBits(set) => print_set(out, set.field, (set.value, set.mask), ports),
        Action::Load { to, value } => print_load(out, *to, value.0),
        Action::Move { from, to } => print_move(out, *from, *to),
        Action::SetTunnel { id, wide } => write!(out, "set_tunnel{}:{id:#x}", if *wide { "64" } else { "" }),
        Action::DecTtl => write!(out, "dec_ttl"),
        Action::Learn(learn) => {
            print_learn(out, learn, ports);
            Ok(())
        }
        Action::Note(octets) => write!(out, "note:{}", dotted(octets)),
        Action::Controller(said) => write!(out, "controller(userdata={})", dotted(said)),
        Action::Clone(inner) => {
            out.push_str("clone(");
            print_actions(out, inner, ports);
            out.push(')');
            Ok(())
        }
        Action::FinTimeout { idle, hard } => print_fin_timeout(out, *idle, *hard),
        Action::Exit => write!(out, "exit"),
    };
}

fn print_load(out: &mut String, to: Subfield, value: u128) -> core::fmt::Result {
    out.push_str("load:");
    print_bits(out, value);
    out.push_str("->");
    print_subfield(out, to);
    Ok(())
}

fn print_move(out: &mut String, from: Subfield, to: Subfield) -> core::fmt::Result {
    out.push_str("move:");
    print_subfield(out, from);
    out.push_str("->");
    print_subfield(out, to);
    Ok(())
}

/// Octets in hexadecimal, with dots between.
fn dotted(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(".")
}

fn print_fin_timeout(out: &mut String, idle: u16, hard: u16) -> core::fmt::Result {
    match (idle, hard) {
        (0, 0) => write!(out, "fin_timeout()"),
        (idle, 0) => write!(out, "fin_timeout(idle_timeout={idle})"),
        (0, hard) => write!(out, "fin_timeout(hard_timeout={hard})"),
        (idle, hard) => write!(out, "fin_timeout(idle_timeout={idle},hard_timeout={hard})"),
    }
}

fn print_resubmit(out: &mut String, to: Option<u32>, table: Option<u8>, ports: &impl PortNames) {
    match (to, table) {
        (Some(number), None) => {
            out.push_str("resubmit:");
            print_port(out, number, ports);
        }
        (None, None) => out.push_str("resubmit:IN_PORT"),
        (to, Some(table)) => {
            out.push_str("resubmit(");
            if let Some(number) = to {
                print_port(out, number, ports);
            }
            let _ = write!(out, ",{table})");
        }
    }
}

fn print_learn(out: &mut String, learn: &Learn, ports: &impl PortNames) {
    let _ = write!(out, "learn(table={}", learn.table);
    for (name, seconds) in [
        ("idle_timeout", learn.idle_timeout),
        ("hard_timeout", learn.hard_timeout),
        ("fin_idle_timeout", learn.fin_idle_timeout),
        ("fin_hard_timeout", learn.fin_hard_timeout),
    ] {
        if seconds != 0 {
            let _ = write!(out, ",{name}={seconds}");
        }
    }
    if learn.priority != super::super::matching::DEFAULT_PRIORITY {
        let _ = write!(out, ",priority={}", learn.priority);
    }
    if learn.send_flow_rem {
        out.push_str(",send_flow_rem");
    }
    if learn.delete_learned {
        out.push_str(",delete_learned");
    }
    if learn.cookie != 0 {
        let _ = write!(out, ",cookie={:#x}", learn.cookie);
    }
    if learn.limit != 0 {
        let _ = write!(out, ",limit={}", learn.limit);
    }
    if let Some(bit) = learn.result {
        out.push_str(",result_dst=");
        print_subfield(out, bit);
    }
    for spec in &learn.specs {
        out.push(',');
        print_spec(out, spec, ports);
    }
    out.push(')');
}

fn print_spec(out: &mut String, spec: &LearnSpec, ports: &impl PortNames) {
    match spec {
        LearnSpec::Match { field, source: LearnSource::Field(from) } => {
            print_subfield(out, *field);
            if from != field {
                out.push('=');
                print_subfield(out, *from);
            }
        }
        LearnSpec::Match { field, source: LearnSource::Value(value) } => {
            let info: &Info = field.field.info();
            if field.is_whole() {
                out.push_str(info.name);
                out.push('=');
                if info.format == Format::Frag {
                    print_masked(out, info, *value, ones(2), ports);
                } else {
                    print_plain(out, info, *value, ports);
                }
            } else {
                print_subfield(out, *field);
                out.push('=');
                print_bits(out, *value);
            }
        }
        LearnSpec::Load { to, source } => {
            out.push_str("load:");
            match source {
                LearnSource::Value(value) => print_bits(out, *value),
                LearnSource::Field(from) => print_subfield(out, *from),
            }
            out.push_str("->");
            print_subfield(out, *to);
        }
        LearnSpec::Output(from) => {
            out.push_str("output:");
            print_subfield(out, *from);
        }
    }
}
