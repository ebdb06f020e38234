//! Flows in text: what is read is printed as `ovs-ofctl` prints it.

use super::*;

/// Prints a flow that was added.
fn shown(text: &str) -> String {
    let mut bench = Bench::new(0);
    bench.add(&[text]);
    let now = bench.now;
    let flows = bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge");
    let line = flows[0].line.clone();
    let rest = line.split_once("idle_age=0, ").expect("an age").1;
    rest.to_owned()
}

/// Flows as they are written, and as Open vSwitch 3.1 prints them.
const PRINTED: [(&str, &str); 22] = [
    ("actions=controller(userdata=01ff),1", "actions=controller(userdata=01.ff),output:1"),
    ("actions=controller(userdata=.01..0A07.)", "actions=controller(userdata=01.0a.07)"),
    ("actions=drop", "actions=drop"),
    ("actions=", "actions=drop"),
    ("priority=5,ip actions=normal", "priority=5,ip actions=NORMAL"),
    (
        "arp,dl_vlan=5,arp_op=1,arp_spa=1.2.3.4,arp_sha=00:00:00:00:00:01,arp_tpa=1.2.3.0/24 actions=1",
        "arp,dl_vlan=5,arp_spa=1.2.3.4,arp_tpa=1.2.3.0/24,arp_op=1,arp_sha=00:00:00:00:00:01 actions=output:1",
    ),
    (
        "udp6,ipv6_src=fe80::/10,ipv6_label=5,tp_dst=53 actions=",
        "udp6,ipv6_src=fe80::/10,ipv6_label=0x00005,tp_dst=53 actions=drop",
    ),
    (
        "dl_type=0x1234,nw_src=1.2.3.4,vlan_vid=5,vlan_pcp=1 actions=drop",
        "dl_vlan=5,dl_vlan_pcp=1,dl_type=0x1234 actions=drop",
    ),
    ("vlan_tci=0x1000/0x1000 actions=learn()", "vlan_tci=0x1000/0x1000 actions=learn(table=1)"),
    (
        "ip,nw_proto=132,tp_src=7,in_port=LOCAL actions=fin_timeout(idle_timeout=5,hard_timeout=6)",
        "sctp,in_port=LOCAL,tp_src=7 actions=fin_timeout(idle_timeout=5,hard_timeout=6)",
    ),
    (
        "ip,nw_proto=1,icmp_type=7,icmp_code=2,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,ip_frag=later,tun_id=0/1 actions=note:01.02.03",
        "icmp,tun_id=0/0x1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,nw_frag=later,icmp_type=7,icmp_code=2 actions=note:01.02.03.00.00.00",
    ),
    ("rarp,nw_proto=3,dl_vlan=0xffff,priority=32768 actions=all", "rarp,vlan_tci=0x0000,arp_op=3 actions=ALL"),
    (
        "tcp actions=output:NXM_NX_REG0[0..15],output:reg1,clone(output:1,set_field:5->reg0),resubmit(,3),resubmit:4,resubmit(5,6),resubmit(7),set_field:5/0xf->reg2,load:5->reg0[3..7],move:reg0[0..15]->reg1[16..31],set_field:0x5->xxreg0,set_field:10.0.0.1->ip_src,exit",
        "tcp actions=output:NXM_NX_REG0[0..15],output:NXM_NX_REG1[],clone(output:1,set_field:0x5->reg0),resubmit(,3),resubmit:4,resubmit(5,6),resubmit:7,set_field:0x5/0xf->reg2,load:0x5->NXM_NX_REG0[3..7],move:NXM_NX_REG0[0..15]->NXM_NX_REG1[16..31],set_field:0x5->xxreg0,set_field:10.0.0.1->ip_src,exit",
    ),
    (
        "actions=learn(table=20,idle_timeout=3,hard_timeout=300,fin_idle_timeout=2,fin_hard_timeout=4,priority=1,cookie=0x5,limit=7,delete_learned,send_flow_rem,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],eth_type=0x800,ip_dst=10.0.0.1,in_port=5,reg1[0..3]=5,load:0->NXM_OF_VLAN_TCI[],load:5->reg0[1..9],load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],output:NXM_OF_IN_PORT[])",
        "actions=learn(table=20,idle_timeout=3,hard_timeout=300,fin_idle_timeout=2,fin_hard_timeout=4,priority=1,send_flow_rem,delete_learned,cookie=0x5,limit=7,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],eth_type=0x800,ip_dst=10.0.0.1,in_port=5,NXM_NX_REG1[0..3]=0x5,load:0->NXM_OF_VLAN_TCI[],load:0x5->NXM_NX_REG0[1..9],load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],output:NXM_OF_IN_PORT[])",
    ),
    ("table=2,ip actions=dec_ttl,output:7,goto_table:9", "ip actions=dec_ttl,output:7,goto_table:9"),
    (
        "udp,vlan_vid=0x5/0xf,vlan_pcp=3,tun_id=0x5/0xff,ip_frag=first actions=drop",
        "udp,tun_id=0x5/0xff,vlan_tci=0x7005/0xf00f,nw_frag=first actions=drop",
    ),
    ("udp,nw_src=10.1.0.1,nw_src=10.1.0.1/31,in_port=3,in_port=* actions=drop", "udp,nw_src=10.1.0.0/31 actions=drop"),
    ("dl_vlan=5,dl_vlan_pcp=1,dl_vlan=*,reg0=5,xreg0=0/3 actions=drop", "reg1=0/0x3,dl_vlan_pcp=1 actions=drop"),
    ("ip,nw_ecn=1,nw_tos=8,nw_tos=*,dl_vlan=5,dl_vlan=* actions=drop", "ip,nw_ecn=1 actions=drop"),
    ("icmp6,icmp_type=136,icmp_code=7,nd_target=::1 actions=drop", "icmp6,icmp_type=136,icmp_code=7 actions=drop"),
    ("dl_vlan=3 actions=set_field:5->vlan_vid", "dl_vlan=3 actions=set_field:4101->vlan_vid"),
    ("icmp,tp_src=8/0xff,tp_dst=1 actions=drop", "icmp,icmp_type=8,icmp_code=1 actions=drop"),
];

#[test]
fn prints_as_ovs_does() {
    for (written, printed) in PRINTED {
        assert_eq!(shown(written), printed, "of {written}");
    }
}

#[test]
fn prints_what_it_reads() {
    for (_, printed) in PRINTED {
        assert_eq!(shown(printed), printed);
    }
}

#[test]
fn importance_is_kept_and_shown() {
    let mut bench = Bench::new(0);
    bench.add(&["importance=7,send_flow_rem,priority=5 actions=drop"]);
    let now = bench.now;
    let flow = bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge").remove(0);
    assert_eq!(flow.importance, 7);
    assert!(flow.line.ends_with("send_flow_rem importance=7, idle_age=0, priority=5 actions=drop"), "{}", flow.line);
}

#[test]
fn errors_point_at_the_character() {
    let mut bench = Bench::new(1);
    for (text, at) in [
        ("ip, nw_src=1.2.3 actions=1", 11),
        ("ip,foo=3 actions=1", 3),
        ("ip,priority=99999 actions=1", 12),
        ("in_port=1 actions=output:2,foo", 27),
        ("actions=learn(table=1,NXM_OF_ETH_SRC[]=NXM_OF_IN_PORT[])", 39),
        ("actions=controller", 8),
        ("actions=controller(max_len=9)", 19),
        ("actions=controller(userdata=01.zz)", 28),
        ("actions=controller(userdata=1.ff)", 28),
        ("actions=controller(userdata=01f)", 28),
        ("actions=controller(userdata=.)", 28),
        ("actions=output:1,drop", 17),
        ("ip,nw_src=1.2.3.4/33 actions=drop", 18),
        ("ip", 2),
        ("actions=clone(output:1", 13),
        ("icmp6,tp_src=65535,reg0=1 actions=drop", 6),
        ("icmp_code=1,tp_dst=1/0x7,nw_proto=1,ip actions=drop", 12),
        ("ipv6_label=10,icmp actions=drop", 0),
        ("tp_dst=80,tcp,ip_frag=later actions=drop", 0),
        ("udp6,ip_frag=later,priority=3,udp_src=0 actions=drop", 30),
        ("ip_frag=later,tcp,tcp_flags=+syn actions=drop", 18),
    ] {
        let now = bench.now;
        let result = bench.switch().change_flows(&name("br"), &[FlowChange::Add(text.to_owned())], now);
        match result {
            Err(SwitchError::BadFlow { source, .. }) => assert_eq!(source.at, at, "{source}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_bad_flow_of_many_changes_nothing() {
    let mut bench = Bench::new(1);
    let changes = ["actions=drop", "actions=nonsense"].map(|text| FlowChange::Add(text.to_owned()));
    let now = bench.now;
    let error = bench.switch().change_flows(&name("br"), &changes, now).expect_err("the second is wrong");
    assert!(error.to_string().starts_with("flow 2 of 2: "), "{error}");
    assert!(bench.flows().is_empty());
}
