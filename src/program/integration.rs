//! br-int: machines and routers.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::model::view::{PortView, RouterPort};
use crate::types::{IfName, Mac, PhysicalNetwork, VlanId};

use super::advertised::Told;
use super::flow::{
    self, ADVERTISEMENT, GROUP, ProgramFlow, SOLICITATION, TOO_BIG_V4, TOO_BIG_V6, UNTAGGED, arp_for, mac_number,
    outputs, port, question,
};
use super::site::{Known, Net, Site};
use super::{LEARNED_COOKIE, LEARNED_LOCAL_TABLE, LEARNED_SECS, PATCH_TUN};
use super::{announced, provider, security};

const CLASSIFY: u8 = 0;
const FROM_ROUTER: u8 = 1;
const FROM_ROUTER_PHYSICAL: u8 = 2;
const TO_HOST: u8 = 3;
const TO_HOST_PHYSICAL: u8 = 4;
const QUESTION: u8 = 20;
const RESPONDER: u8 = 21;
const LOCAL: u8 = 60;
const UNKNOWN: u8 = 62;

/// The block all host MACs come from (Neutron's `dvr_base_mac`).
const HOST_MACS: &str = "fa:16:3f:00:00:00/ff:ff:ff:00:00:00";

pub(super) fn flows(site: &Site<'_>) -> Vec<ProgramFlow> {
    let mut flows = classify_wire(site);
    flows.extend(defaults());
    flows.extend(physical(site));
    if site.networks.iter().flat_map(|net| &net.view.local_ports).any(|vm| vm.port_security) {
        flows.extend(security::defaults());
    }
    if site.networks.iter().flat_map(|net| &net.view.local_ports).any(announced::concerns) {
        flows.push(announced::default(QUESTION));
    }
    for net in &site.networks {
        let told = Told::of(site, net);
        for vm in &net.view.local_ports {
            flows.extend(classify_vm(site, net, &told, vm));
            if vm.port_security {
                flows.extend(security::flows(vm, announced::onward(vm, QUESTION)));
            }
        }
        flows.extend(net.routers().map(|router| classify_router(net, router)));
        flows.extend(net.replicas.iter().flat_map(|router| to_host(net, router)));
        flows.extend(too_big(site, net));
        flows.extend(local(net));
        flows.extend(of_bearers(net));
    }
    flows
}

/// Table 0 for what comes over the patch: for this node's host MAC, from another's, or a machine's.
fn classify_wire(site: &Site<'_>) -> Vec<ProgramFlow> {
    let from_wire = |priority, matching: &str, table: u8| {
        ProgramFlow::new(CLASSIFY, priority, format!("in_port={PATCH_TUN}{matching}"), format!("resubmit(,{table})"))
    };
    let mut flows = vec![from_wire(10, &format!(",dl_dst={}", site.node.host_mac), TO_HOST)];
    flows.extend(site.peers.iter().map(|peer| from_wire(5, &format!(",dl_src={}", peer.host_mac), FROM_ROUTER)));
    flows.push(from_wire(2, "", LOCAL));
    // No replica hears another's questions, so no host MAC has answers.
    flows.extend(host_macs(site).map(|mac| ProgramFlow::new(TO_HOST, 7, format!("dl_src={mac}"), "drop")));
    flows
}

/// What comes from physical networks, and what the tables that it alone comes to do with the rest.
fn physical(site: &Site<'_>) -> Vec<ProgramFlow> {
    if site.physical.is_empty() {
        return Vec::new();
    }
    let mut flows = provider::classify(site, [FROM_ROUTER_PHYSICAL, TO_HOST_PHYSICAL, LOCAL]);
    for mac in host_macs(site) {
        flows.push(ProgramFlow::new(TO_HOST_PHYSICAL, 7, format!("dl_src={mac}"), "drop"));
        // For another host: a switch outside that has not heard of it yet sends it everywhere.
        let other = |name: &&PhysicalNetwork| {
            ProgramFlow::new(CLASSIFY, 9, format!("in_port={},dl_dst={mac}", port(&name.int_port())), "drop")
        };
        flows.extend(site.physical.keys().map(other));
    }
    flows.push(ProgramFlow::new(FROM_ROUTER_PHYSICAL, 1, "", "drop"));
    flows.push(ProgramFlow::new(TO_HOST_PHYSICAL, 0, "", "drop"));
    flows
}

/// Every host MAC, as `dl_src` takes it: the block they come from, and those outside it one by one.
fn host_macs(site: &Site<'_>) -> impl Iterator<Item = String> {
    let outside = |mac: &Mac| !matches!(mac.octets(), [0xfa, 0x16, 0x3f, ..]);
    let hosts = site.peers.iter().map(|peer| peer.host_mac).chain([site.node.host_mac]);
    [HOST_MACS.to_owned()].into_iter().chain(hosts.filter(outside).map(|mac| mac.to_string()))
}

/// What each table does with the rest.
fn defaults() -> Vec<ProgramFlow> {
    let to = |table: u8| format!("resubmit(,{table})");
    vec![
        // No station has a group address; learning one would swallow the group.
        ProgramFlow::new(CLASSIFY, 30, "dl_src=01:00:00:00:00:00/01:00:00:00:00:00", "drop"),
        ProgramFlow::new(CLASSIFY, 0, "", "drop"),
        ProgramFlow::new(FROM_ROUTER, 1, "", "drop"),
        ProgramFlow::new(TO_HOST, 0, "", "drop"),
        ProgramFlow::new(QUESTION, 2, "arp,arp_op=1,dl_dst=ff:ff:ff:ff:ff:ff", to(RESPONDER)),
        ProgramFlow::new(QUESTION, 2, "icmp6,icmp_type=135,dl_dst=33:33:ff:00:00:00/ff:ff:ff:00:00:00", to(RESPONDER)),
        ProgramFlow::new(QUESTION, 0, "", to(LOCAL)),
        // A duplicate-address probe (RFC 4862 §5.4.2): whoever bears the address must hear it and defend it.
        ProgramFlow::new(RESPONDER, 2, format!("{SOLICITATION},ipv6_src=::"), to(LOCAL)),
        ProgramFlow::new(RESPONDER, 0, "", to(LOCAL)),
        ProgramFlow::new(LOCAL, 0, "", to(LEARNED_LOCAL_TABLE)),
        ProgramFlow::new(LEARNED_LOCAL_TABLE, 0, "", to(UNKNOWN)),
        ProgramFlow::new(UNKNOWN, 1, format!("in_port={PATCH_TUN}"), "drop"),
        ProgramFlow::new(UNKNOWN, 0, "", format!("output:{PATCH_TUN}")),
    ]
}

/// Table 0 for a machine's port: nobody's router or host MAC as source, untagged; its own MAC straight on, another
/// behind it is learned. A secured port has no MACs but its own and its pairs', and all it says is looked into. Its questions
/// for an address and for routers are answered.
fn classify_vm(site: &Site<'_>, net: &Net<'_>, told: &Told, vm: &PortView) -> Vec<ProgramFlow> {
    let at = format!("in_port={}", port(&vm.port));
    let next = if vm.port_security { security::PAYLOAD } else { announced::onward(vm, QUESTION) };
    let own = format!("mod_vlan_vid:{},resubmit(,{next})", net.vlan);
    let learn = format!(
        "learn(table={LEARNED_LOCAL_TABLE},hard_timeout={LEARNED_SECS},priority=1,cookie={LEARNED_COOKIE:#x},\
         NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],\
         output:NXM_OF_IN_PORT[])"
    );
    let refuse = |mac: &str| ProgramFlow::new(CLASSIFY, 30, format!("{at},dl_src={mac}"), "drop");
    let mut flows: Vec<ProgramFlow> = host_macs(site).map(|mac| refuse(&mac)).collect();
    let routers = net.routers().map(|router| router.mac).chain(net.routers_beyond());
    flows.extend(routers.map(|mac| refuse(&mac.to_string())));
    let behind = format!("mod_vlan_vid:{},{learn},resubmit(,{next})", net.vlan);
    flows.extend(told.flows((CLASSIFY, 25), vm, &own));
    flows.push(ProgramFlow::new(CLASSIFY, 20, format!("{at},{UNTAGGED},dl_src={}", vm.mac), own));
    if vm.port_security {
        let others = security::speakers(vm).into_keys().filter(|mac| *mac != vm.mac);
        flows.extend(
            others.map(|mac| ProgramFlow::new(CLASSIFY, 20, format!("{at},{UNTAGGED},dl_src={mac}"), behind.clone())),
        );
    } else {
        flows.push(ProgramFlow::new(CLASSIFY, 10, format!("{at},{UNTAGGED}"), behind));
    }
    flows
}

/// Table 0 for a router's interface.
fn classify_router(net: &Net<'_>, router: &RouterPort) -> ProgramFlow {
    ProgramFlow::new(
        CLASSIFY,
        10,
        format!("in_port={},{UNTAGGED}", port(&router.ifname)),
        format!("mod_vlan_vid:{},resubmit(,{QUESTION})", net.vlan),
    )
}

/// Table 1, or 2 from a physical network: a frame that a remote replica routed gets the router's own MAC back before it
/// reaches the machine, or the router that lives here alone. With several distributed routers on the network the host MAC
/// does not say which one it was: the gateway of the destination's subnet is taken, and the first router failing that.
fn from_router(net: &Net<'_>) -> Vec<ProgramFlow> {
    let Some(first) = net.replicas.first() else { return Vec::new() };
    let table = if net.is_physical() { FROM_ROUTER_PHYSICAL } else { FROM_ROUTER };
    let (arrived, retag) = net.arrival();
    let restore = |priority, station: Mac, ip: &str, mac: Mac| {
        ProgramFlow::new(
            table,
            priority,
            format!("{arrived}{ip},dl_dst={station}"),
            format!("{retag}mod_dl_src:{mac},resubmit(,{LOCAL})"),
        )
    };
    let seated = net.seated.iter().map(|router| {
        let addresses = router.addresses.iter().map(IpNet::addr).collect();
        (router.mac, &router.ifname, addresses)
    });
    let mut flows = Vec::new();
    for (station, _, addresses) in net.stations().into_iter().chain(seated) {
        flows.push(restore(20, station, "", first.mac));
        if net.replicas.len() == 1 {
            continue;
        }
        for ip in addresses {
            let Some(router) = gateway_of(net, ip) else { continue };
            let matching = match ip {
                IpAddr::V4(ip) => format!(",ip,nw_dst={ip}"),
                IpAddr::V6(ip) => format!(",ipv6,ipv6_dst={ip}"),
            };
            flows.push(restore(21, station, &matching, router.mac));
        }
    }
    flows
}

/// The distributed router's interface that bears the gateway's address of the subnet `ip` is in.
fn gateway_of<'a>(net: &Net<'a>, ip: IpAddr) -> Option<&'a RouterPort> {
    let subnet = net.view.subnets.iter().find(|subnet| subnet.cidr.contains(&ip))?;
    let gateway = subnet.gateway?;
    net.replicas.iter().find(|router| router.addresses.iter().any(|address| address.addr() == gateway)).copied()
}

/// Table 3, or 4 from a physical network: answers to questions that this node's router asked under the host MAC.
fn to_host(net: &Net<'_>, router: &RouterPort) -> Vec<ProgramFlow> {
    // A physical network carries questions for a host MAC too, which nobody in a tunnel asks.
    let (table, op) = if net.is_physical() { (TO_HOST_PHYSICAL, ",arp_op=2") } else { (TO_HOST, "") };
    let (arrived, _) = net.arrival();
    let out = format!("strip_vlan,output:{}", port(&router.ifname));
    let answer = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ProgramFlow::new(
            table,
            6,
            format!("{arrived},{}{op}", arp_for(ip)),
            format!("mod_dl_dst:{},load:{}->NXM_NX_ARP_THA[],{out}", router.mac, mac_number(router.mac)),
        ),
        IpAddr::V6(ip) => ProgramFlow::new(
            table,
            6,
            format!("{arrived},{ADVERTISEMENT},ipv6_dst={ip}"),
            format!("mod_dl_dst:{},{out}", router.mac),
        ),
    };
    net.router_ips(router).into_iter().map(answer).collect()
}

/// Table 3, or 4 from a physical network: the word that a packet which this node's router sent on is too big for the way, as
/// the port says it to the host MAC. The router hands it to the packet's sender. With several on the network the host MAC
/// does not say which one it was: one that leads to the sender is taken, and the first failing that.
fn too_big(site: &Site<'_>, net: &Net<'_>) -> Vec<ProgramFlow> {
    let Some(first) = net.replicas.first() else { return Vec::new() };
    let table = if net.is_physical() { TO_HOST_PHYSICAL } else { TO_HOST };
    let (arrived, _) = net.arrival();
    let tell = |priority, matching: String, router: &RouterPort| {
        let actions = format!("mod_dl_dst:{},strip_vlan,output:{}", router.mac, port(&router.ifname));
        ProgramFlow::new(table, priority, format!("{arrived},{matching}"), actions)
    };
    let any = [TOO_BIG_V4, TOO_BIG_V6].map(|matching| tell(4, matching.to_owned(), first));
    let mut by_sender = BTreeMap::new();
    for router in net.replicas.iter().filter(|_| net.replicas.len() > 1) {
        for sender in site.behind(router) {
            by_sender.entry(sender).or_insert(*router);
        }
    }
    let of_sender = by_sender.into_iter().map(|(sender, router)| {
        let matching = match sender {
            IpNet::V4(sender) => format!("{TOO_BIG_V4},nw_dst={sender}"),
            IpNet::V6(sender) => format!("{TOO_BIG_V6},ipv6_dst={sender}"),
        };
        tell(5, matching, router)
    });
    any.into_iter().chain(of_sender).collect()
}

/// The flows that depend on who bears which address, as its own or because it announced it: those of announcements, those
/// that restore a router's MAC, the responder's, and table 60's and 61's to each address.
pub(super) fn of_bearers(net: &Net<'_>) -> Vec<ProgramFlow> {
    let announced = net.view.local_ports.iter().flat_map(|vm| announced::flows(vm, QUESTION));
    let delivered = stations(net).map(|(mac, to)| deliver(net.vlan, mac, to));
    let mut flows: Vec<ProgramFlow> = announced.chain(delivered).collect();
    flows.extend(from_router(net));
    flows.extend(responder(net));
    flows.extend(remote(net));
    flows
}

/// Table 21: an answer for every address known on the network, save to its bearer, who announces or probes it, and to those
/// who may take it.
fn responder(net: &Net<'_>) -> Vec<ProgramFlow> {
    let mut flows = Vec::new();
    for (ip, known) in net.known() {
        let contenders = net.contenders(ip).filter(|contender| Some(*contender) != known.owner);
        flows.extend(known.owner.into_iter().chain(contenders).map(|own| {
            let matching = format!("in_port={},{},{}", port(own), flow::vlan(net.vlan), question(ip));
            ProgramFlow::new(RESPONDER, 3, matching, format!("resubmit(,{LOCAL})"))
        }));
        flows.push(answer(net, ip, &known));
    }
    flows
}

/// The responder's flow for one address. On a physical network a question for a distributed router leaves as well, though nobody
/// answers it there: without it the switches outside would not know where a machine is that only a router talks to, and
/// what is routed to it would flood.
pub(super) fn answer(net: &Net<'_>, ip: IpAddr, known: &Known<'_>) -> ProgramFlow {
    let vlan = flow::vlan(net.vlan);
    let is_replica = || net.replicas.iter().any(|router| router.mac == known.mac);
    let teach = match &net.uplink {
        Some(uplink) if net.is_physical() && is_replica() => format!("output:{},", port(uplink)),
        Some(_) | None => String::new(),
    };
    let (matching, reply) = match ip {
        IpAddr::V4(ip) => (format!("{vlan},arp,arp_op=1,arp_tpa={ip}"), flow::arp_reply(ip, known.mac)),
        IpAddr::V6(ip) => (
            format!("{vlan},{},nd_options_type=1", flow::solicitation_of(ip)),
            flow::nd_reply(ip, known.mac, known.router),
        ),
    };
    ProgramFlow::new(RESPONDER, 1, matching, teach + &reply)
}

/// Every populated address on this node's ports of the network.
pub(super) fn stations<'a>(net: &Net<'a>) -> impl Iterator<Item = (Mac, &'a IfName)> {
    let routers = net.routers().map(|router| (router.mac, &router.ifname));
    net.stations().into_iter().map(|(mac, port, _)| (mac, port)).chain(routers)
}

/// Table 60's flow to a local address.
pub(super) fn deliver(vlan: VlanId, mac: Mac, to: &IfName) -> ProgramFlow {
    ProgramFlow::new(LOCAL, 20, format!("{},dl_dst={mac}", flow::vlan(vlan)), format!("strip_vlan,output:{}", port(to)))
}

/// Table 61's flow to a remote address.
pub(super) fn leave(vlan: VlanId, mac: Mac, uplink: &IfName) -> ProgramFlow {
    let matching = format!("{},dl_dst={mac}", flow::vlan(vlan));
    ProgramFlow::new(LEARNED_LOCAL_TABLE, 2, matching, format!("output:{}", port(uplink)))
}

/// Tables 60 and 62: groups, and what is left.
fn local(net: &Net<'_>) -> Vec<ProgramFlow> {
    let vlan = flow::vlan(net.vlan);
    // Who hears what comes from the wire.
    let hearers = outputs(net.vm_ports().chain(net.seated.iter().map(|router| &router.ifname)));
    let replicas = outputs(net.replicas.iter().map(|router| &router.ifname));
    let drop_if_none = |actions: String| if actions.is_empty() { "drop".to_owned() } else { actions };
    let inward =
        |ports: &[String]| if ports.is_empty() { String::new() } else { format!("strip_vlan,{}", ports.join(",")) };
    let flood = drop_if_none(inward(&hearers));
    let everyone: Vec<String> = replicas.into_iter().chain(hearers).collect();
    let outward: Vec<String> = outputs(&net.uplink);
    let group: Vec<String> =
        outward.iter().cloned().chain([inward(&everyone)]).filter(|part| !part.is_empty()).collect();
    let mut flows = Vec::new();
    if let Some(uplink) = &net.uplink {
        let from = format!("in_port={},{vlan}", port(uplink));
        flows.extend([
            // Questions for a router's address are answered where they are asked, so its replicas need none of these.
            ProgramFlow::new(LOCAL, 10, format!("{from},{GROUP}"), flood.clone()),
            ProgramFlow::new(UNKNOWN, 2, from, flood),
        ]);
    }
    flows.push(ProgramFlow::new(LOCAL, 9, format!("{vlan},{GROUP}"), drop_if_none(group.join(","))));
    if net.is_physical() {
        flows.push(ProgramFlow::new(UNKNOWN, 1, vlan, drop_if_none(outward.join(","))));
    }
    flows
}

/// Table 61's flows to remote addresses: what the control plane says of one outranks what a local machine pretends.
fn remote(net: &Net<'_>) -> impl Iterator<Item = ProgramFlow> {
    let uplinks = net.uplink.iter();
    uplinks.flat_map(|uplink| net.remote.iter().map(|remote| leave(net.vlan, remote.mac, uplink)))
}
