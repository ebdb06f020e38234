//! Frames that the switch answers by itself, because a flow says what ([`Answer`]): DHCP's questions and router
//! solicitations. Nothing is remembered of either: the same question always gets the same answer.
//!
//! Checksums of questions are not looked at: they come from a port of this machine, whose kernel may have left them to be
//! finished by whoever puts them on a wire.

use core::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::IntoBytes;

use super::packet::Packet;
use crate::api::switch::{Advertisement, Answer, Lease};
use crate::types::Mac;
use crate::wire::{checksum, dhcp, ethernet, icmp, ipv4, ipv6, nd, prefix, udp};

/// The most octets of a question: more than any client sends in one packet, and there are no fragments.
const LIMIT_QUESTION: usize = 1600;

/// The hop limit of answers that routers could pass on.
const TTL: u8 = 64;

/// The frame that answers the one in `packet`; `None` if it is not such a question, or gets no answer.
pub(super) fn answer(answer: &Answer, packet: &Packet<'_>) -> Option<Vec<u8>> {
    if packet.len() > LIMIT_QUESTION {
        return None;
    }
    let pieces: Vec<&[u8]> = [packet.head()].into_iter().chain(packet.tail().iter().copied()).collect();
    let frame = pieces.concat();
    let (header, rest) = prefix::<ethernet::Header>(&frame).ok()?;
    match (answer, header.ether_type.get()) {
        (Answer::Lease(lease), ethernet::TYPE_IPV4) => of_lease(lease, header.source(), rest),
        (Answer::Advertisement(said), ethernet::TYPE_IPV6) => of_solicitation(said, header.source(), rest),
        (Answer::Lease(_) | Answer::Advertisement(_), _) => None,
    }
}

/// What a client asks (RFC 2131 §4.3).
struct Question<'a> {
    header: &'a dhcp::Header,
    options: &'a [u8],
}

impl<'a> Question<'a> {
    /// The question in an IPv4 packet, if it is from the station `from` itself.
    fn read(from: Mac, octets: &'a [u8]) -> Option<Self> {
        let (ip, _) = prefix::<ipv4::Header>(octets).ok()?;
        let datagram = octets.get(ip.header_len()..ip.total_len.get().into())?;
        let legal = ip.version() == 4 && ip.header_len() >= ipv4::HEADER_LEN && !ip.is_fragment();
        let (udp, rest) = prefix::<udp::Header>(datagram).ok()?;
        let ports = (udp.source.get(), udp.destination.get()) == (dhcp::CLIENT_PORT, dhcp::SERVER_PORT);
        if !legal || ip.protocol != ipv4::PROTOCOL_UDP || !ports {
            return None;
        }
        let (header, options) = prefix::<dhcp::Header>(rest).ok()?;
        let itself = header.client_mac[..6] == from.octets();
        let plain = (header.op, header.hardware, header.hardware_len) == (dhcp::REQUEST, dhcp::ETHERNET, 6)
            && header.cookie.get() == dhcp::COOKIE
            // A relay would have to be answered, and no machine's port has one behind it.
            && header.relay == [0; 4];
        (itself && plain).then_some(Self { header, options })
    }

    fn client_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.header.client_ip)
    }

    /// Which message answers it (RFC 2131 §4.3.1 to §4.3.5).
    fn answered_by(&self, lease: &Lease) -> Option<u8> {
        let &[kind] = dhcp::option(self.options, dhcp::MESSAGE_TYPE)? else { return None };
        let server = dhcp::address(self.options, dhcp::SERVER_IDENTIFIER);
        match kind {
            dhcp::DISCOVER => Some(dhcp::OFFER),
            // It chose another server's offer.
            dhcp::ASK if server.is_some_and(|server| server != lease.server) => None,
            dhcp::ASK => {
                let wanted = dhcp::address(self.options, dhcp::REQUESTED_ADDRESS).unwrap_or(self.client_ip());
                Some(if wanted == lease.address { dhcp::ACK } else { dhcp::NAK })
            }
            dhcp::INFORM if self.client_ip() == lease.address => Some(dhcp::ACK),
            _ => None,
        }
    }

    /// The address given: none to who has one and only asks for the rest, or who is refused.
    fn given(&self, lease: &Lease, message: u8) -> Option<Ipv4Addr> {
        let informs = dhcp::option(self.options, dhcp::MESSAGE_TYPE) == Some(&[dhcp::INFORM]);
        (message != dhcp::NAK && !informs).then_some(lease.address)
    }
}

fn of_lease(lease: &Lease, from: Mac, octets: &[u8]) -> Option<Vec<u8>> {
    let question = Question::read(from, octets)?;
    let message = question.answered_by(lease)?;
    let given = question.given(lease, message);
    let asked = question.header;
    let answer = dhcp::Header {
        op: dhcp::REPLY,
        hops: 0,
        seconds: 0.into(),
        client_ip: if message == dhcp::ACK { asked.client_ip } else { [0; 4] },
        your_ip: given.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        next_server: [0; 4],
        server_name: [0; 64],
        file: [0; 128],
        ..*asked
    };
    let mut body = answer.as_bytes().to_vec();
    put_options(&mut body, lease, (message, given.is_some()), dhcp::option(question.options, dhcp::CLIENT_IDENTIFIER));
    // RFC 2131 §4.1: a refusal goes to all, as does what the client says it hears only so; else the client has the address.
    let to_all = message == dhcp::NAK || asked.flags.get() & dhcp::FLAG_BROADCAST != 0;
    let (mac, ip) = match (to_all, question.client_ip()) {
        (_, ip) if message != dhcp::NAK && !ip.is_unspecified() => (from, ip),
        (true, _) => (Mac::BROADCAST, Ipv4Addr::BROADCAST),
        (false, _) => (from, given.unwrap_or(Ipv4Addr::BROADCAST)),
    };
    Some(datagram((lease.server_mac, lease.server), (mac, ip), &body))
}

/// Writes the options of an answer: what a refusal has, and what everybody else hears as well.
fn put_options(body: &mut Vec<u8>, lease: &Lease, (message, gives): (u8, bool), client: Option<&[u8]>) {
    let mut put = |kind: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap_or_else(|_| unreachable!("an option was at most 255 octets"));
        body.extend([kind, length]);
        body.extend(content);
    };
    put(dhcp::MESSAGE_TYPE, &[message]);
    put(dhcp::SERVER_IDENTIFIER, &lease.server.octets());
    if let Some(client) = client {
        put(dhcp::CLIENT_IDENTIFIER, client);
    }
    if message != dhcp::NAK {
        if gives {
            put(dhcp::LEASE_TIME, &lease.seconds.to_be_bytes());
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(lease.prefix_len)).unwrap_or(0);
        put(dhcp::SUBNET_MASK, &mask.to_be_bytes());
        if lease.routes {
            put(dhcp::ROUTER, &lease.server.octets());
        }
        put(dhcp::INTERFACE_MTU, &lease.mtu.to_be_bytes());
    }
    body.push(dhcp::END);
    body.resize(body.len().max(dhcp::LEAST), dhcp::PAD);
}

/// A frame with a UDP datagram from DHCP's server to a client.
fn datagram((from_mac, from): (Mac, Ipv4Addr), (to_mac, to): (Mac, Ipv4Addr), body: &[u8]) -> Vec<u8> {
    let length = length(udp::HEADER_LEN + body.len());
    let mut udp = udp::Header {
        source: dhcp::SERVER_PORT.into(),
        destination: dhcp::CLIENT_PORT.into(),
        length: length.into(),
        checksum: 0.into(),
    };
    let pseudo = checksum::pseudo(&from.octets(), &to.octets(), ipv4::PROTOCOL_UDP, length.into());
    let sum = !checksum::fold(checksum::add(checksum::add(pseudo, udp.as_bytes()), body));
    // RFC 768: zero would say that there is none.
    udp.checksum = (if sum == 0 { 0xffff } else { sum }).into();
    let mut ip = ipv4::Header {
        version_ihl: 0x45,
        tos: 0,
        total_len: (length + u16::try_from(ipv4::HEADER_LEN).unwrap_or(0)).into(),
        identification: 0.into(),
        fragment: ipv4::FLAG_DF.into(),
        ttl: TTL,
        protocol: ipv4::PROTOCOL_UDP,
        checksum: 0.into(),
        source: from.octets(),
        destination: to.octets(),
    };
    ip.checksum = checksum::of(ip.as_bytes()).into();
    let ethernet = ethernet::Header::new(to_mac, from_mac, ethernet::TYPE_IPV4);
    [ethernet.as_bytes(), ip.as_bytes(), udp.as_bytes(), body].concat()
}

/// The answer to a solicitation of routers that RFC 4861 §6.1.1 would have answered.
fn of_solicitation(said: &Advertisement, from: Mac, octets: &[u8]) -> Option<Vec<u8>> {
    let (ip, rest) = prefix::<ipv6::Header>(octets).ok()?;
    let message = rest.get(..ip.payload_len.get().into())?;
    let (icmp, _) = prefix::<icmp::Header>(message).ok()?;
    let legal = ip.version() == 6 && ip.next_header == ipv4::PROTOCOL_ICMPV6 && ip.hop_limit == nd::HOP_LIMIT;
    if !legal || (icmp.kind, icmp.code) != (nd::ROUTER_SOLICITATION, 0) || message.len() < 8 {
        return None;
    }
    // RFC 4861 §6.2.6: to the machine itself, or to all if it has no address yet.
    let (to_mac, to) = if ip.source().is_unspecified() {
        (Mac::new([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))
    } else {
        (from, ip.source())
    };
    let router = said.router.link_local();
    let mut body = body_of(said);
    let pseudo = checksum::pseudo(&router.octets(), &to.octets(), ipv4::PROTOCOL_ICMPV6, body.len());
    let sum = !checksum::fold(checksum::add(pseudo, &body));
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let ip = ipv6::Header {
        version_class_label: (6 << 28).into(),
        payload_len: length(body.len()).into(),
        next_header: ipv4::PROTOCOL_ICMPV6,
        hop_limit: nd::HOP_LIMIT,
        source: router.octets(),
        destination: to.octets(),
    };
    let ethernet = ethernet::Header::new(to_mac, said.router, ethernet::TYPE_IPV6);
    Some([ethernet.as_bytes(), ip.as_bytes(), &body].concat())
}

/// A router advertisement, its checksum not yet made.
fn body_of(said: &Advertisement) -> Vec<u8> {
    let icmp = icmp::Header { kind: nd::ROUTER_ADVERTISEMENT, code: 0, checksum: 0.into() };
    let advertisement = nd::RouterAdvertisement {
        hop_limit: TTL,
        flags: 0,
        lifetime: 0.into(),
        reachable: 0.into(),
        retransmit: 0.into(),
    };
    let own = nd::LinkLayer { kind: nd::OPTION_SOURCE_LL, length: 1, mac: said.router.octets() };
    let mtu = nd::LinkMtu { kind: nd::OPTION_MTU, length: 1, reserved: 0.into(), mtu: u32::from(said.mtu).into() };
    let mut body = [icmp.as_bytes(), advertisement.as_bytes(), own.as_bytes(), mtu.as_bytes()].concat();
    for prefix in &said.prefixes {
        let option = nd::Prefix {
            kind: nd::OPTION_PREFIX,
            length: 4,
            prefix_len: prefix.prefix_len(),
            flags: nd::PREFIX_ON_LINK,
            valid: u32::MAX.into(),
            preferred: u32::MAX.into(),
            reserved: 0.into(),
            prefix: prefix.network().octets(),
        };
        body.extend(option.as_bytes());
    }
    body
}

/// A length as headers have it.
fn length(octets: usize) -> u16 {
    u16::try_from(octets).unwrap_or_else(|_| unreachable!("answers are short: options, or a network's few prefixes"))
}
