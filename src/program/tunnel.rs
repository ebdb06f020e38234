//! br-tun: tunnels to other nodes.

use std::collections::BTreeMap;

use crate::model::view::{Backend, RouterPort, TunnelKind};
use crate::types::{IfName, Mac, Vni};

use super::flow::{
    self, ADVERTISEMENT, GROUP, ProgramFlow, SOLICITATION, UNICAST, mac_number, outputs, port, question,
};
use super::site::{Net, Site};
use super::{LEARNED_COOKIE, LEARNED_SECS, PATCH_INT, UNICAST_TABLE};

const CLASSIFY: u8 = 0;
const FROM_ROUTER: u8 = 1;
const GROUP_OR_NOT: u8 = 2;
const FROM_GRE: u8 = 3;
const FROM_VXLAN: u8 = 4;
const FROM_HOST: u8 = 9;
const LEARN: u8 = 10;
const FLOOD: u8 = 22;

pub(super) fn flows(site: &Site<'_>) -> Vec<ProgramFlow> {
    let mut flows = defaults();
    let tunnels = |net: &'_ Net<'_>| -> Vec<(IfName, String)> {
        let Some((kind, vni)) = net.view.segment.tunnel() else { return Vec::new() };
        let names = net.flood.iter().chain(net.remote.iter().map(|remote| &remote.port));
        let table = by_key(kind);
        let actions = match site.backend {
            Backend::Userspace => format!("resubmit(,{table})"),
            // What comes by a device comes without its key.
            Backend::Kernel => format!("set_tunnel:{:#x},resubmit(,{table})", vni.get()),
        };
        names.map(|name| (name.clone(), actions.clone())).collect()
    };
    let tunnels: BTreeMap<IfName, String> = site.networks.iter().flat_map(tunnels).collect();
    flows.extend(
        tunnels
            .into_iter()
            .map(|(name, actions)| ProgramFlow::new(CLASSIFY, 1, format!("in_port={}", port(&name)), actions)),
    );
    // Looped back by somebody: a host MAC never enters a learning table, this node's own included.
    flows.push(ProgramFlow::new(FROM_HOST, 2, format!("dl_src={}", site.node.host_mac), "drop"));
    flows.extend(site.peers.iter().map(|peer| {
        ProgramFlow::new(FROM_HOST, 1, format!("dl_src={}", peer.host_mac), format!("output:{PATCH_INT}"))
    }));
    for net in &site.networks {
        let Some((kind, vni)) = net.view.segment.tunnel() else { continue };
        flows.extend(routers(net, site.node.host_mac));
        flows.push(network(net, by_key(kind), vni));
        flows.extend(elsewhere(net));
    }
    flows
}

/// The table where a network's kind has its keys: one number may be the VNI of one network and the GRE key of another.
const fn by_key(kind: TunnelKind) -> u8 {
    match kind {
        TunnelKind::Vxlan => FROM_VXLAN,
        TunnelKind::Gre => FROM_GRE,
    }
}

/// What each table does with the rest.
fn defaults() -> Vec<ProgramFlow> {
    let to = |table: u8| format!("resubmit(,{table})");
    let learn = format!(
        "learn(table={UNICAST_TABLE},hard_timeout={LEARNED_SECS},priority=1,cookie={LEARNED_COOKIE:#x},\
         NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],\
         load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],output:NXM_OF_IN_PORT[]),output:{PATCH_INT}"
    );
    vec![
        ProgramFlow::new(CLASSIFY, 1, format!("in_port={PATCH_INT}"), to(FROM_ROUTER)),
        ProgramFlow::new(CLASSIFY, 0, "", "drop"),
        ProgramFlow::new(FROM_ROUTER, 0, "", to(GROUP_OR_NOT)),
        ProgramFlow::new(GROUP_OR_NOT, 0, UNICAST, to(UNICAST_TABLE)),
        ProgramFlow::new(GROUP_OR_NOT, 0, GROUP, to(FLOOD)),
        // An inner tag is to be discarded with its frame (RFC 7348 §6.1); it would be taken for a local VLAN here.
        ProgramFlow::new(FROM_GRE, 2, "vlan_tci=0x1000/0x1000", "drop"),
        ProgramFlow::new(FROM_GRE, 0, "", "drop"),
        ProgramFlow::new(FROM_VXLAN, 2, "vlan_tci=0x1000/0x1000", "drop"),
        ProgramFlow::new(FROM_VXLAN, 0, "", "drop"),
        ProgramFlow::new(FROM_HOST, 0, "", to(LEARN)),
        ProgramFlow::new(LEARN, 2, "dl_src=01:00:00:00:00:00/01:00:00:00:00:00", "drop"),
        ProgramFlow::new(LEARN, 1, "", learn),
        ProgramFlow::new(UNICAST_TABLE, 0, "", to(FLOOD)),
        ProgramFlow::new(FLOOD, 0, "", "drop"),
    ]
}

/// Tables 1, 9 and 22 for the routers on a network. A distributed one's MAC never leaves the node, as source, as
/// destination or in an ARP or ND payload, and questions for its addresses do not either. One that lives on a node alone
/// speaks under its own MAC, which is populated elsewhere and never learned: it may be everywhere the next moment.
fn routers(net: &Net<'_>, host: Mac) -> Vec<ProgramFlow> {
    let vlan = flow::vlan(net.vlan);
    let mut flows = Vec::new();
    for router in &net.replicas {
        flows.extend(from_router(net, router, host));
        flows.push(ProgramFlow::new(FROM_HOST, 2, format!("{vlan},dl_src={}", router.mac), "drop"));
        flows.extend(
            net.router_ips(router)
                .into_iter()
                .map(|ip| ProgramFlow::new(FLOOD, 3, format!("{vlan},{}", question(ip)), "drop")),
        );
    }
    let from = |mac: Mac, actions: String| ProgramFlow::new(FROM_HOST, 2, format!("{vlan},dl_src={mac}"), actions);
    flows.extend(net.seated.iter().map(|router| from(router.mac, "drop".to_owned())));
    flows.extend(net.routers_beyond().map(|mac| from(mac, format!("output:{PATCH_INT}"))));
    flows
}

/// Table 1 for one router, the same on the bridge of a physical network.
pub(super) fn from_router(net: &Net<'_>, router: &RouterPort, host: Mac) -> [ProgramFlow; 6] {
    let vlan = flow::vlan(net.vlan);
    let masked = |priority, extra: &str, payload: &str| {
        ProgramFlow::new(
            FROM_ROUTER,
            priority,
            format!("{vlan}{extra},dl_src={}", router.mac),
            format!("mod_dl_src:{host}{payload},resubmit(,{GROUP_OR_NOT})"),
        )
    };
    [
        ProgramFlow::new(FROM_ROUTER, 4, format!("{vlan},dl_dst={}", router.mac), "drop"),
        masked(3, ",arp", &format!(",load:{}->NXM_NX_ARP_SHA[]", mac_number(host))),
        masked(3, &format!(",{SOLICITATION}"), &format!(",set_field:{host}->nd_sll")),
        masked(3, &format!(",{ADVERTISEMENT}"), &format!(",set_field:{host}->nd_tll")),
        ProgramFlow::new(FROM_ROUTER, 2, format!("{vlan},dl_src={},{GROUP}", router.mac), "drop"),
        masked(1, "", ""),
    ]
}

/// Table 3's or 4's flow for a network: its key.
fn network(net: &Net<'_>, table: u8, vni: Vni) -> ProgramFlow {
    ProgramFlow::new(
        table,
        1,
        format!("tun_id={:#x}", vni.get()),
        format!("mod_vlan_vid:{},resubmit(,{FROM_HOST})", net.vlan),
    )
}

/// Tables 20 and 22 for a network: its remote addresses, its flood list.
pub(super) fn elsewhere(net: &Net<'_>) -> Vec<ProgramFlow> {
    let Some((_, vni)) = net.view.segment.tunnel() else { return Vec::new() };
    let remote = net.remote.iter().map(|remote| deliver(net, vni, remote.mac, &remote.port));
    let mut flows: Vec<ProgramFlow> = remote.collect();
    if !net.flood.is_empty() {
        flows.push(ProgramFlow::new(
            FLOOD,
            1,
            flow::vlan(net.vlan),
            format!("{},{}", flow::encapsulate(vni), outputs(&net.flood).join(",")),
        ));
    }
    flows
}

/// Table 20's flow to a remote address.
pub(super) fn deliver(net: &Net<'_>, vni: Vni, mac: Mac, to: &IfName) -> ProgramFlow {
    ProgramFlow::new(
        UNICAST_TABLE,
        2,
        format!("{},dl_dst={mac}", flow::vlan(net.vlan)),
        format!("{},output:{}", flow::encapsulate(vni), port(to)),
    )
}
