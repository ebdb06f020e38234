//! Figures, on request: `cargo test --release --lib datapath::tests::measure -- --ignored --nocapture`.

#![expect(clippy::disallowed_methods, reason = "it measures, on request")]

use std::time::Instant;

use super::*;

fn each(count: u32, mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        run();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

#[test]
#[ignore = "measures"]
fn figures() {
    let mut bench = Bench::new(2);
    bench.add(&["in_port=1,udp actions=mod_dl_src:02:00:00:00:00:99,mod_vlan_vid:5,strip_vlan,output:2"]);
    let frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), &[0; 18]);
    let mut room = [vec![0; HEADROOM], frame].concat();
    let ingress = Ingress { port: DpPort(1), tunnel: None };
    let mut wire = Nowhere(0);
    let Bench { switch, worker, now } = &mut bench;
    let exact = each(1_000_000, || {
        let end = room.len();
        let mut packet = Packet::new(&mut room, HEADROOM, end, &[], Offload::default());
        worker.process(switch, &ingress, &mut packet, *now, &mut wire);
    });
    let mut port = 0_u16;
    let masked = each(1_000_000, || {
        port = port.wrapping_add(1);
        room[HEADROOM + 34..HEADROOM + 36].copy_from_slice(&port.to_be_bytes());
        let end = room.len();
        let mut packet = Packet::new(&mut room, HEADROOM, end, &[], Offload::default());
        worker.process(switch, &ingress, &mut packet, *now, &mut wire);
    });
    println!("exact hit {exact:.0} ns, masked hit {masked:.0} ns, {:?}, sent {}", worker.counters(), wire.0);

    let changes: Vec<FlowChange> = (0..100_000_u32)
        .map(|number| {
            let [_, b, c, d] = number.to_be_bytes();
            FlowChange::Add(format!("table=20,priority=2,dl_vlan={},dl_dst=fa:16:3e:{b:02x}:{c:02x}:{d:02x} actions=strip_vlan,set_tunnel:0x{number:x},output:2", number % 4000))
        })
        .collect();
    let start = Instant::now();
    bench.switch().change_flows(&name("br"), &changes, Timestamp::from_secs(1)).expect("legal flows");
    println!("100,000 flows added in {:?}", start.elapsed());
}

struct Nowhere(u64);

impl Egress for Nowhere {
    fn transmit(&mut self, _: DpPort, _: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        self.0 += u64::from(packet.head()[0] != 0xff);
    }
}
