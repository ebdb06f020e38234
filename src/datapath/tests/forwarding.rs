//! Actions and what they make of frames.

use super::*;

fn ports(sent: &[Sent]) -> Vec<u32> {
    sent.iter().map(|sent| sent.port).collect()
}

#[test]
fn every_output_sees_what_was_written_before_it() {
    let mut bench = Bench::new(3);
    bench.add(&["actions=output:2,mod_dl_src:02:00:00:00:00:99,output:3,output:1,in_port"]);
    let frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"x");
    let sent = bench.send(1, &frame);
    let mut changed = frame.clone();
    changed[6..12].copy_from_slice(&hex("020000000099"));
    assert_eq!(ports(&sent), [2, 3, 1], "output:1 is where it came from; in_port is meant");
    assert_eq!((&sent[0].octets, &sent[1].octets), (&frame, &changed));
}

#[test]
fn what_a_flow_says_is_said_of_every_packet() {
    let mut bench = Bench::new(2);
    bench.add(&["in_port=1,actions=controller(userdata=01.ff),output:2", "in_port=2,actions=controller(userdata=07)"]);
    let frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"x");
    // The first walks the tables, the others do not.
    for _ in 0..3 {
        let sent = bench.send(1, &frame);
        assert_eq!(ports(&sent), [SAID, 2]);
        assert_eq!((&sent[0].octets[..], &sent[1].octets), (&[1, 0xff][..], &frame));
        assert_eq!(ports(&bench.send(2, &frame)), [SAID]);
    }
    assert_eq!(bench.flows().len(), 2);
    assert!(bench.switch().drops().is_empty(), "what is heard is not dropped");
}

/// Input: a frame of which something is said before it is dropped for a reason, and one rewritten before. Output: the reason
/// is counted; in the datapath's actions the rewrite stands before what is said.
#[test]
fn what_is_said_hides_no_drop_and_no_rewrite() {
    let mut bench = Bench::new(2);
    bench.add(&[
        "in_port=1,actions=controller(userdata=07),goto_table:9",
        "in_port=2,actions=mod_dl_src:02:00:00:00:00:99,controller(userdata=07),output:1",
    ]);
    let frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"x");
    assert_eq!(ports(&bench.send(1, &frame)), [SAID]);
    assert_eq!(ports(&bench.send(2, &frame)), [SAID, 1]);
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    assert_eq!(bench.switch().drops(), [("table-miss".to_owned(), 1)].into());
    let input = TraceInput::Frame { in_port: 2, tunnel: None, octets: frame };
    let text = bench.switch().trace(&name("br"), &input, false, now).expect("a bridge");
    assert!(text.contains("Datapath actions: set(eth(src=02:00:00:00:00:99)),userspace("), "{text}");
}

/// Input: a broadcast by one of two tunnels, of either kind, to a bridge that learns. Output: it goes to the machine, and not
/// back into the mesh.
#[test]
fn what_comes_by_a_tunnel_leaves_by_none() {
    let local = [10, 0, 0, 1].into();
    let vxlan = |last: u8| NewPortKind::Vxlan { dp: DpPort(9), local, remote: [10, 0, 0, last].into() };
    let gre = |last: u8| NewPortKind::Gre { dp: DpPort(9), local, remote: [10, 0, 0, last].into() };
    for kinds in [[vxlan(2), vxlan(3)], [gre(2), gre(3)], [vxlan(2), gre(3)]] {
        let mut bench = Bench::new(1);
        bench.add(&["actions=NORMAL"]);
        for (number, kind) in (2..).zip(kinds) {
            let port =
                NewPort { name: name(&format!("tun{number}")), kind, vlan: VlanMode::Trunk, number: Some(number) };
            bench.switch().add_port(&name("br"), port).expect("a new port");
        }
        let tunnel = TunnelMeta { id: 7, src: [10, 0, 0, 2].into(), dst: local, tos: 0, ttl: 64 };
        let mut frame = udp4([10, 1, 0, 1], [10, 1, 0, 255], (1, 2), b"x");
        frame[..6].fill(0xff);
        let sent = bench.send_with(Ingress { port: DpPort(9), tunnel: Some(tunnel) }, &frame);
        assert_eq!(ports(&sent), [1]);
    }
}

#[test]
fn rewrites_keep_checksums() {
    let mut bench = Bench::new(2);
    bench.add(&["udp actions=mod_nw_src:192.168.1.77,mod_nw_dst:172.16.254.3,mod_tp_src:65000,mod_nw_tos:32,dec_ttl,mod_vlan_vid:7,output:2"]);
    let sent = bench.send(1, &udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"odd"));
    let mut wanted = udp4([192, 168, 1, 77], [172, 16, 254, 3], (65_000, 2), b"odd");
    wanted[15] = 32;
    wanted[22] = 63;
    wanted[24..26].copy_from_slice(&[0, 0]);
    let sum = checksum::of(&wanted[14..34]);
    wanted[24..26].copy_from_slice(&sum.to_be_bytes());
    wanted.splice(12..12, hex("8100 0007"));
    assert_eq!(sent[0].octets, wanted);
}

#[test]
fn arp_is_answered_by_flows() {
    let mut bench = Bench::new(1);
    bench.add(&["arp,arp_op=1,arp_tpa=10.0.0.1 actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:02:00:00:00:00:fe,load:0x2->NXM_OF_ARP_OP[],move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],load:0x0200000000fe->NXM_NX_ARP_SHA[],load:0x0a000001->NXM_OF_ARP_SPA[],in_port"]);
    let sent = bench.send(
        1,
        &hex("ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000002 000000000000 0a000001"),
    );
    assert_eq!(ports(&sent), [1]);
    assert_eq!(
        sent[0].octets,
        hex("020000000001 0200000000fe 0806 0001 0800 06 04 0002 0200000000fe 0a000001 020000000001 0a000002")
    );
}

#[test]
fn neighbour_solicitations_are_answered_by_flows() {
    let mut bench = Bench::new(1);
    bench.add(&["icmp6,icmp_type=135,nd_target=fe80::1,nd_options_type=1 actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:02:00:00:00:00:fe,move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],set_field:fe80::1->ipv6_src,set_field:136->icmpv6_type,set_field:0x60000000->nd_reserved,set_field:2->nd_options_type,set_field:02:00:00:00:00:fe->nd_tll,set_field:255->nw_ttl,in_port"]);
    let mut frame = hex("3333ff000001 020000000001 86dd 60000000 0020 3a ff fe80000000000000 0000000000000005 ff02000000000000 00000001ff000001
        87 00 0000 00000000 fe80000000000000 0000000000000001 01 01 020000000001");
    let sum = |frame: &[u8]| {
        !checksum::fold(checksum::add(checksum::pseudo(&frame[22..38], &frame[38..54], 58, 32), &frame[54..]))
    };
    let right = sum(&frame).to_be_bytes();
    frame[56..58].copy_from_slice(&right);
    let sent = bench.send(1, &frame);
    let mut wanted = hex("020000000001 0200000000fe 86dd 60000000 0020 3a ff fe80000000000000 0000000000000001 fe80000000000000 0000000000000005
        88 00 0000 60000000 fe80000000000000 0000000000000001 02 01 0200000000fe");
    let right = sum(&wanted).to_be_bytes();
    wanted[56..58].copy_from_slice(&right);
    assert_eq!(ports(&sent), [1]);
    assert_eq!(sent[0].octets, wanted);
}

#[test]
fn a_patch_leads_to_the_other_bridge_and_back() {
    let mut bench = Bench::new(2);
    bench.switch().add_bridge(&name("other"), BridgeMode::Flow).expect("a new bridge");
    let patch = |own: &str, peer: &str| NewPort {
        name: name(own),
        kind: NewPortKind::Patch { peer: name(peer) },
        vlan: VlanMode::Trunk,
        number: Some(10),
    };
    bench.switch().add_port(&name("br"), patch("to", "from")).expect("a new port");
    bench.switch().add_port(&name("other"), patch("from", "to")).expect("a new port");
    bench.netdev("other", 5, VlanMode::Trunk);
    bench.add(&[
        "in_port=1 actions=load:7->NXM_NX_REG0[],mod_vlan_vid:9,output:10,output:NXM_NX_REG0[],output:2",
        "in_port=10 actions=output:2",
    ]);
    bench.add_to("other", &["in_port=10,reg0=0,dl_vlan=9 actions=strip_vlan,output:5,in_port"]);
    let frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"");
    let sent = bench.send(1, &frame);
    let mut tagged = frame.clone();
    tagged.splice(12..12, hex("8100 0009"));
    assert_eq!(ports(&sent), [5, 2, 2]);
    assert_eq!((&sent[0].octets, &sent[1].octets, &sent[2].octets), (&frame, &frame, &tagged));
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    let view = bench.switch().bridges();
    let counters = view[0].ports[2].counters;
    assert_eq!((counters.tx_packets, counters.rx_packets), (1, 1));
}

#[test]
fn loops_end_and_are_counted() {
    let mut bench = Bench::new(2);
    bench.add(&[
        "in_port=1 actions=output:2,resubmit:1",
        "table=1 actions=resubmit(,2),resubmit(,2)",
        "in_port=2 actions=resubmit(,1)",
    ]);
    let chain: Vec<String> =
        (2..40).map(|table| format!("table={table} actions=resubmit(,{0}),resubmit(,{0})", table + 1)).collect();
    let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
    bench.add(&chain);
    let frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"");
    assert_eq!((bench.send(1, &frame), bench.send(2, &frame)), (vec![], vec![]));
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    let drops = bench.switch().drops();
    assert_eq!((drops.get("resubmit-too-deep"), drops.get("resubmit-too-many")), (Some(&1), Some(&1)));
}

#[test]
fn a_list_of_two_thousand_outputs_is_no_limit() {
    let mut bench = Bench::new(2_001);
    let outputs: Vec<String> = (1..=2_001).map(|number| format!("output:{number}")).collect();
    bench.add(&[&format!("actions={}", outputs.join(","))]);
    assert_eq!(bench.send(1, &udp4([1; 4], [2; 4], (1, 2), b"")).len(), 2_000);
}

#[test]
fn normal_learns_floods_and_keeps_vlans_apart() {
    let mut bench = Bench::new(0);
    let vlan = |id| crate::types::VlanId::new(id).expect("legal");
    bench.netdev("br", 1, VlanMode::Access(vlan(5)));
    bench.netdev("br", 2, VlanMode::Access(vlan(5)));
    bench.netdev("br", 3, VlanMode::Access(vlan(6)));
    bench.netdev("br", 4, VlanMode::Trunk);
    bench.netdev("br", 5, VlanMode::Native { tag: vlan(5), trunks: vec![vlan(6)] });
    bench.add(&["actions=NORMAL"]);
    let frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"");
    let mut tagged = frame.clone();
    tagged.splice(12..12, hex("8100 0005"));
    let sent = bench.send(1, &frame);
    assert_eq!(ports(&sent), [2, 4, 5]);
    assert_eq!((&sent[0].octets, &sent[1].octets, &sent[2].octets), (&frame, &tagged, &frame));
    let mut reply = frame.clone();
    reply[..12].copy_from_slice(&hex("020000000001 020000000002"));
    let mut tagged_reply = reply.clone();
    tagged_reply.splice(12..12, hex("8100 0005"));
    assert_eq!(bench.send(4, &tagged_reply), [Sent { port: 1, tunnel: None, octets: reply }]);
    assert_eq!(ports(&bench.send(1, &frame)), [4]);
    assert_eq!(bench.send(3, &tagged), [], "an access port takes no tags");
    let now = bench.now;
    let fdb = bench.switch().fdb(&name("br"), now).expect("a bridge");
    let seen: Vec<(u32, u16)> = fdb.iter().map(|entry| (entry.port, entry.vlan)).collect();
    assert_eq!(seen, [(1, 5), (4, 5)]);
}

#[test]
fn a_trace_tells_every_step_and_changes_nothing() {
    let mut bench = Bench::new(3);
    bench.add(&[
        "in_port=1 actions=mod_vlan_vid:5,resubmit(,1),output:3",
        "table=1,priority=7,udp,cookie=0x2a actions=mod_dl_src:02:00:00:00:00:99,output:2,resubmit(,7)",
    ]);
    let input = TraceInput::Flow("in_port=1,udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02".to_owned());
    let now = bench.now;
    let told = bench.switch().trace(&name("br"), &input, false, now).expect("a legal packet");
    assert_eq!(
        told,
        "\
Flow: udp,in_port=1,vlan_tci=0x0000,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=0

bridge(\"br\")
------------
 0. in_port=1, priority 32768
    mod_vlan_vid:5
    resubmit(,1)
     1. udp, priority 7, cookie 0x2a
            mod_dl_src:02:00:00:00:00:99
            output:2
            resubmit(,7)
         7. No match.
            drop
    output:3

Final flow: udp,in_port=1,dl_vlan=5,dl_vlan_pcp=0,vlan_tci1=0x0000,dl_src=02:00:00:00:00:99,dl_dst=02:00:00:00:00:02,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=0
Megaflow: recirc_id=0,eth,udp,in_port=1,vlan_tci=0x0000,dl_src=02:00:00:00:00:01,nw_frag=no
Datapath actions: set(eth(src=02:00:00:00:00:99)),push_vlan(vid=5,pcp=0),2,3
"
    );
}
