//! What the kernel has, tried where it does no harm: in a child process, in namespaces of its own.

use core::net::Ipv4Addr;
use std::process::Stdio;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::doctor::{Finding, Verdict};
use super::error::{CliError, DONE};
use super::output;
use crate::agent::try_tunnel;
use crate::model::view::TunnelKind;
use crate::netlink::{Connection, Error};
use crate::types::IfName;

/// What the child found, or that it could not look.
#[must_use]
pub(super) fn findings() -> Vec<Finding> {
    #[expect(clippy::disallowed_methods, reason = "the child is this very program, and has no threads when it starts")]
    let mut command = std::process::Command::new("/proc/self/exe");
    let ran = command.arg("doctor-probe").stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let parsed = ran.map_err(|error| error.to_string()).and_then(|ran| {
        let words = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        serde_json::from_slice(&ran.stdout).map_err(|error| if words.is_empty() { error.to_string() } else { words })
    });
    parsed.unwrap_or_else(|why| {
        let remedy = "allow user namespaces, or run `dvr doctor` as root";
        vec![Finding::bad("devices", Verdict::Limited, format!("could not be tried: {why}"), remedy)]
    })
}

/// `dvr doctor-probe`: the child.
///
/// # Errors
/// When it gets no namespaces of its own.
pub(super) fn main() -> Result<u8, CliError> {
    crate::lab::enter_trial_namespaces()?;
    let mut connection = Connection::open().map_err(|error| CliError::Ended(error.to_string()))?;
    let mut found: Vec<Finding> = DEVICES.iter().map(|device| try_device(&mut connection, device)).collect();
    found.push(try_raw_sockets());
    found.push(try_nftables());
    let text =
        serde_json::to_string(&found).map_err(|error| CliError::Encode { form: "JSON", why: error.to_string() })?;
    output::print(&text)?;
    Ok(DONE)
}

/// A kind of link, how one is made, what it is for, and whether `dvr` does without it.
struct Device {
    word: &'static str,
    make: fn(&mut Connection, &IfName) -> Result<(), Error>,
    without: Result<&'static str, &'static str>,
}

const DEVICES: [Device; 5] = [
    Device {
        word: "veth",
        make: |connection, name| plain(connection, name, InfoKind::Veth),
        without: Err("labs and ports without TAPs need it: CONFIG_VETH"),
    },
    Device {
        word: "bridge",
        make: |connection, name| plain(connection, name, InfoKind::Bridge),
        without: Err("a lab's underlay needs it: CONFIG_BRIDGE"),
    },
    Device {
        word: "vxlan",
        make: |connection, _| try_tunnel(connection, TunnelKind::Vxlan, false),
        without: Ok("the switch speaks VXLAN itself; --tunnels kernel needs CONFIG_VXLAN"),
    },
    Device {
        word: "gretap",
        make: |connection, _| try_tunnel(connection, TunnelKind::Gre, false),
        without: Ok("the switch speaks GRE itself; --tunnels kernel needs CONFIG_NET_IPGRE"),
    },
    Device {
        word: "ip6gretap",
        make: |connection, _| try_tunnel(connection, TunnelKind::Gre, true),
        without: Ok("the switch speaks GRE itself; --tunnels kernel over IPv6 needs CONFIG_IPV6_GRE"),
    },
];

fn plain(connection: &mut Connection, name: &IfName, kind: InfoKind) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    let info = vec![LinkInfo::Kind(kind)];
    message.attributes = vec![LinkAttribute::IfName(name.to_string()), LinkAttribute::LinkInfo(info)];
    connection.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

fn try_device(connection: &mut Connection, device: &Device) -> Finding {
    let what = format!("{} devices", device.word);
    let Ok(name) = IfName::new(format!("try-{}", device.word)) else { unreachable!("words of at most nine letters") };
    match (device.make)(connection, &name) {
        Ok(()) => Finding::ok(&what, "can be made"),
        Err(error) => {
            let (verdict, remedy) = match device.without {
                Ok(remedy) => (Verdict::Limited, remedy),
                Err(remedy) => (Verdict::Missing, remedy),
            };
            Finding::bad(&what, verdict, error.to_string(), remedy)
        }
    }
}

/// Opens what the switch sends and receives GRE by.
fn try_raw_sockets() -> Finding {
    const WHAT: &str = "raw sockets";
    match crate::datapath::port::gre::open(None, Ipv4Addr::UNSPECIFIED.into(), 1) {
        Ok(_) => Finding::ok(WHAT, "can be opened: the switch carries GRE by them"),
        Err(error) => Finding::bad(WHAT, Verdict::Limited, error.to_string(), "networks of type vxlan do without"),
    }
}

/// Asks nf_tables for its generation (`NFT_MSG_GETGEN`, `linux/netfilter/nf_tables.h`).
fn try_nftables() -> Finding {
    const WHAT: &str = "nftables";
    let lacking =
        |why: String| Finding::bad(WHAT, Verdict::Limited, why, "floating IPs will need it: CONFIG_NF_TABLES");
    let ask = || -> std::io::Result<i32> {
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // A header of 16 octets and an nfgenmsg of 4; subsystem 10 is nf_tables, message 16 is GETGEN, flag 1 is REQUEST.
        let mut request = Vec::from(20_u32.to_ne_bytes());
        request.extend_from_slice(&0x0a10_u16.to_ne_bytes());
        request.extend_from_slice(&1_u16.to_ne_bytes());
        request.extend_from_slice(&[0; 12]);
        socket.send_to(&request, &netlink_sys::SocketAddr::new(0, 0), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        // An NLMSG_ERROR (type 2) carries a negative errno behind its header; anything else is an answer.
        let is_error = answer.get(4..6) == Some(&2_u16.to_ne_bytes());
        let errno = answer.get(16..20).and_then(|field| field.try_into().ok()).map_or(0, i32::from_ne_bytes);
        Ok(if is_error { -errno } else { 0 })
    };
    match ask() {
        Ok(0) => Finding::ok(WHAT, "answers"),
        Ok(errno) => lacking(std::io::Error::from_raw_os_error(errno).to_string()),
        Err(error) => lacking(error.to_string()),
    }
}
