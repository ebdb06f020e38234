//! br-tun: tunnels to other nodes.

use std::collections::BTreeMap;

use crate::model::view::{RouterPort, TunnelKind};
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
    let tunnels = |net: &'_ Net<'_>| -> Vec<(IfName, u8)> {
        let names = net.flood.iter().chain(net.remote.iter().map(|(_, port)| port));
        let table = net.view.segment.kind().tunnel().map(by_key);
        names.zip(table.into_iter().cycle()).map(|(name, table)| (name.clone(), table)).collect()
    };
    let tunnels: BTreeMap<IfName, u8> = site.networks.iter().flat_map(tunnels).collect();
    flows.extend(tunnels.into_iter().map(|(name, table)| {
        ProgramFlow::new(CLASSIFY, 1, format!("in_port={}", port(&name)), format!("resubmit(,{table})"))
    }));
    // Looped back by somebody: a host MAC never enters a learning table, this node's own included.
    flows.push(ProgramFlow::new(FROM_HOST, 2, format!("dl_src={}", site.node.host_mac), "drop"));
    flows.extend(site.peers.iter().map(|peer| {
        ProgramFlow::new(FROM_HOST, 1, format!("dl_src={}", peer.host_mac), format!("output:{PATCH_INT}"))
    }));
    for net in &site.networks {
        let Some((kind, vni)) = key(net) else { continue };
        flows.extend(routers(net, site.node.host_mac));
        flows.extend(network(net, by_key(kind), vni));
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

/// A network's kind of tunnel and its key, if tunnels carry it.
fn key(net: &Net<'_>) -> Option<(TunnelKind, Vni)> {
    net.view.segment.kind().tunnel().zip(net.view.segment.vni())
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

/// Tables 1, 9 and 22 for the routers on a network: their MACs never leave the node, as source, as destination or in
/// an ARP or ND payload, and questions for their addresses do not either.
fn routers(net: &Net<'_>, host: Mac) -> Vec<ProgramFlow> {
    let vlan = flow::vlan(net.vlan);
    let mut flows = Vec::new();
    for router in &net.routers {
        flows.extend(from_router(net, router, host));
        flows.push(ProgramFlow::new(FROM_HOST, 2, format!("{vlan},dl_src={}", router.mac), "drop"));
        flows.extend(
            net.router_ips(router)
                .into_iter()
                .map(|ip| ProgramFlow::new(FLOOD, 3, format!("{vlan},{}", question(ip)), "drop")),
        );
    }
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

/// Tables 3 or 4, 20 and 22 for a network: its key, its remote addresses, its flood list.
fn network(net: &Net<'_>, table: u8, vni: Vni) -> Vec<ProgramFlow> {
    let mut flows = vec![ProgramFlow::new(
        table,
        1,
        format!("tun_id={:#x}", vni.get()),
        format!("mod_vlan_vid:{},resubmit(,{FROM_HOST})", net.vlan),
    )];
    flows.extend(net.remote.iter().map(|(mac, to)| deliver(net, vni, *mac, to)));
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
