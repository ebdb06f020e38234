//! What machines are told of their network when they ask: by DHCP their address, gateway and MTU, and in router
//! advertisements the MTU and the prefixes. The switch answers where it is asked, so neither crosses a wire.
//!
//! ```text
//!  0 a machine's port ─▶ DHCP's question? ─▶ controller(userdata=…): the switch's own answer, back out of the port
//!                    └─▶ a router solicitation? ─▶ the same, and on as any frame: there may be other routers
//! ```

use core::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::api::switch::{Advertisement, Answer, Lease, PREFIXES_MAX};
use crate::model::view::PortView;
use crate::types::Mac;

use super::flow::{ProgramFlow, UNTAGGED, port, userdata};
use super::site::{Net, Site};

/// How long an address may be used without asking again, in seconds: half of it until a change of the MTU is heard of.
const LEASE_SECS: u32 = 3_600;

/// What a network's machines are told, looked up once.
pub(super) struct Told {
    subnets: Vec<(Ipv4Net, Server)>,
    routers: Option<Advertisement>,
    mtu: u16,
}

/// Who answers for a subnet.
#[derive(Clone, Copy)]
struct Server {
    ip: Ipv4Addr,
    mac: Mac,
    routes: bool,
}

impl Told {
    pub(super) fn of(site: &Site<'_>, net: &Net<'_>) -> Self {
        let mtu = u16::try_from(net.view.mtu.get()).unwrap_or(u16::MAX);
        let told = net.view.subnets.iter().filter(|subnet| subnet.advertise.unwrap_or(!net.is_physical()));
        let (mut subnets, mut prefixes, mut router) = (Vec::new(), Vec::new(), None);
        for subnet in told {
            match (subnet.cidr, subnet.gateway) {
                (IpNet::V4(cidr), Some(IpAddr::V4(ip))) => {
                    let router = bearer(net, IpAddr::V4(ip));
                    let mac = router.unwrap_or(site.node.host_mac);
                    subnets.push((cidr, Server { ip, mac, routes: router.is_some() }));
                }
                (IpNet::V6(cidr), Some(ip)) => {
                    router = router.or_else(|| bearer(net, ip));
                    prefixes.push(cidr);
                }
                (IpNet::V4(_) | IpNet::V6(_), _) => {}
            }
        }
        prefixes.truncate(PREFIXES_MAX);
        let advertised =
            |router| Advertisement { router, mtu, prefixes: prefixes.iter().map(Ipv6Net::trunc).collect() };
        Self { subnets, routers: router.map(advertised), mtu }
    }

    /// A machine's flows, of table `table`; `onward` is what becomes of its frames else.
    pub(super) fn flows(&self, (table, priority): (u8, u16), vm: &PortView, onward: &str) -> Vec<ProgramFlow> {
        let from = format!("in_port={},{UNTAGGED},dl_src={}", port(&vm.port), vm.mac);
        let answer = |answer: &Answer| format!("controller(userdata={})", userdata(&answer.octets()));
        let mut flows = Vec::new();
        if let Some((lease, server)) = self.lease(vm) {
            let actions = answer(&Answer::Lease(lease));
            // To all, and to the gateway once a machine has an address (RFC 2131 §4.1).
            flows.extend([Ipv4Addr::BROADCAST, server].map(|to| {
                let matching = format!("{from},udp,nw_dst={to},tp_src=68,tp_dst=67");
                ProgramFlow::new(table, priority, matching, actions.clone())
            }));
        }
        if let Some(said) = &self.routers {
            let actions = format!("{},{onward}", answer(&Answer::Advertisement(said.clone())));
            flows.push(ProgramFlow::new(table, priority, format!("{from},icmp6,icmp_type=133"), actions));
        }
        flows
    }

    /// What a machine is given: its first address in a subnet that is told of.
    fn lease(&self, vm: &PortView) -> Option<(Lease, Ipv4Addr)> {
        let served = |address: &IpNet| {
            let IpAddr::V4(ip) = address.addr() else { return None };
            self.subnets.iter().find(|(cidr, _)| cidr.contains(&ip)).map(|(cidr, server)| (ip, cidr, *server))
        };
        let (address, cidr, Server { ip: server, mac, routes }) = vm.addresses.iter().find_map(served)?;
        let prefix_len = cidr.prefix_len();
        let lease = Lease { server, server_mac: mac, address, prefix_len, routes, mtu: self.mtu, seconds: LEASE_SECS };
        Some((lease, server))
    }
}

/// The MAC of the router that has an address on the network, wherever it is.
fn bearer(net: &Net<'_>, ip: IpAddr) -> Option<Mac> {
    let here = net.routers().find(|router| router.addresses.iter().any(|address| address.addr() == ip));
    let beyond = || net.view.remote_ports.iter().find(|port| port.router && port.ips.contains(&ip));
    here.map(|router| router.mac).or_else(|| beyond().map(|port| port.mac))
}
