//! The agent against a real kernel, in namespaces of its own, and a switch that only remembers what it is told.

#![expect(clippy::disallowed_methods, reason = "these wait for a daemon, and say how long it took")]
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod agents;
mod support;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use agents::{Bench, LONG, empty};
use dvr::agent::{AgentError, purge};
use dvr::api::agent::{Converged, Forwarding, Neighbour, Request as Ask, Responder};
use dvr::api::switch::{Flow, FlowChange, PortConfig, PortKind};
use dvr::model::Topology;
use dvr::model::view::{RemotePort, ViewChange};
use dvr::program::{COOKIE, LEARNED_COOKIE};
use dvr::types::Mac;
use support::{in_namespace, ip, ip_json};

fn names(json: &serde_json::Value, key: &str) -> Vec<String> {
    json.as_array().expect("a list").iter().map(|row| row[key].as_str().unwrap_or("?").to_owned()).collect()
}

/// A kernel switch of a namespace.
fn switch(netns: &str, key: &str) -> String {
    let output = Command::new("ip").args(["netns", "exec", netns, "cat", &format!("/proc/sys/{key}")]).output();
    String::from_utf8(output.expect("iproute2").stdout).expect("text").trim().to_owned()
}

fn set(netns: &str, key: &str, value: &str) {
    let script = format!("echo {value} > /proc/sys/{key}");
    let status = Command::new("ip").args(["netns", "exec", netns, "sh", "-c", &script]).status();
    assert!(status.expect("iproute2").success(), "{key} cannot be set");
}

/// Input: the built-in example, node1. Output: its router and machines in the kernel, as iproute2 sees them.
#[test]
fn a_node_is_made_from_nothing_and_looked_at_without_change() {
    in_namespace("a_node_is_made_from_nothing_and_looked_at_without_change", || {
        let started = Instant::now();
        let mut bench = Bench::started();
        bench.settled();
        println!("converged in {:?}", started.elapsed());
        let (router, show) = bench.router();
        let topology = Topology::example();
        assert_eq!(show.host_mac, topology.nodes()["node1"].host_mac);
        assert_eq!(show.attachment, "veth");
        for port in &show.routers[0].interfaces {
            let link = &ip_json(&format!("-n {router} addr show dev {}", port.ifname))[0];
            assert_eq!(link["address"], port.mac.to_string());
            assert_eq!(link["addr_info"].as_array().map(Vec::len), Some(1), "no link-local address: {link}");
            assert_eq!(link["addr_info"][0]["local"], port.addresses[0].addr().to_string());
        }
        let neighbours = ip_json(&format!("-n {router} neigh"));
        assert_eq!(neighbours.as_array().map(Vec::len), Some(4), "{neighbours}");
        assert!(
            neighbours.as_array().expect("a list").iter().all(|row| row["state"] == serde_json::json!(["PERMANENT"])),
            "{neighbours}"
        );
        let vm = &ip_json("-n vm-blue1 route show default")[0];
        assert_eq!((vm["gateway"].as_str(), vm["dev"].as_str()), (Some("10.1.0.1"), Some("eth0")));
        // Somebody asks again: nothing changes.
        let changes = bench.switch.memory().changes;
        assert_eq!(bench.settled().operations, 0);
        assert_eq!(bench.switch.memory().changes, changes, "the switch was told something");
        bench.stop_agent();
        assert_eq!(names(&ip_json("-n vm-blue1 link show dev eth0"), "ifname"), ["eth0"], "it outlives the agent");
    });
}

/// Input: an entry, a link and a namespace taken away, a foreign flow and a learned one added. Output: ours are back, the
/// others' stay.
#[test]
fn drift_is_repaired_and_foreign_flows_stay() {
    in_namespace("drift_is_repaired_and_foreign_flows_stay", || {
        let mut bench = Bench::started();
        bench.settled();
        let (router, show) = bench.router();
        let port = &show.routers[0].interfaces[0].ifname;
        let neighbours = || ip_json(&format!("-n {router} neigh")).as_array().map_or(0, Vec::len);
        // The agent may have put them back by the time anyone could look: `ip` itself says that it took some.
        let flushed = ip(&format!("-s -n {router} neigh flush dev {port} nud permanent"));
        assert!(flushed.contains("Round 1, deleting"), "{flushed}");
        bench.settled();
        assert_eq!(neighbours(), 4);
        let foreign = [
            "cookie=0x7,table=5,priority=1 actions=drop".to_owned(),
            format!(
                "cookie={LEARNED_COOKIE:#x},table=61,priority=1,vlan_tci=0x0001/0x0fff,dl_dst=02:00:00:00:00:09 \
                 actions=output:1"
            ),
        ];
        let before = bench.switch.flows("br-int");
        let strict = |flow: &Flow| format!("table={},priority={},{}", flow.table, flow.priority, flow.matching);
        let ours: Vec<&Flow> = before.iter().filter(|flow| !flow.matching.is_empty()).take(5).collect();
        let mut changes: Vec<FlowChange> =
            ours[..3].iter().map(|flow| FlowChange::DeleteStrict(strict(flow))).collect();
        changes.push(FlowChange::ModifyStrict(format!("{} actions=output:99", strict(ours[4]))));
        changes.push(FlowChange::Add(format!("cookie={COOKIE:#x},table=0,priority=9,in_port=99 actions=drop")));
        changes.extend(foreign.iter().cloned().map(FlowChange::Add));
        bench.switch.change("br-int", &changes);
        bench.settled();
        let after = bench.switch.flows("br-int");
        let text = |flow: &Flow| (flow.cookie, strict(flow), flow.actions.clone());
        let sorted = |flows: &[Flow]| {
            let mut ours: Vec<_> = flows.iter().filter(|flow| flow.cookie == COOKIE).map(text).collect();
            ours.sort();
            ours
        };
        assert_eq!(sorted(&after), sorted(&before));
        assert_eq!(after.len(), before.len() + foreign.len(), "a foreign flow was touched");
        ip("netns del vm-blue1");
        bench.settled();
        assert_eq!(names(&ip_json("-n vm-blue1 link show dev eth0"), "ifname"), ["eth0"]);
        // This kernel switch changes in silence: it is looked at with the rest.
        let ignore = "net/ipv4/conf/all/arp_ignore";
        set(&router, ignore, "0");
        bench.settled();
        assert_eq!(switch(&router, ignore), "1");
        bench.stop_agent();
    });
}

/// Input: twenty machines elsewhere, told of one by one, and one that leaves. Output: each is there by changes of its own; the
/// switch is hardly ever asked to show itself, as each whole pass does; and then nothing is left to do.
#[test]
fn a_machine_elsewhere_costs_what_it_is() {
    in_namespace("a_machine_elsewhere_costs_what_it_is", || {
        let mut bench = Bench::new();
        bench.start_switch();
        let view = dvr::placement::view(&Topology::example(), "node1").expect("it is there");
        let controller = bench.start_following(&view);
        bench.settled();
        let (router, show) = bench.router();
        let port = &show.routers[0].interfaces[0];
        let remote = |number: u8| RemotePort {
            name: format!("more{number}"),
            mac: Mac::new([2, 0, 0, 0, 1, number]),
            ips: vec![[10, 1, 0, 100 + number].into()],
            node: "node2".to_owned(),
            router: false,
            claimed: Vec::new(),
        };
        let is_there = |number: u8| {
            let RemotePort { mac, ips, .. } = remote(number);
            let entry = ip(&format!("-n {router} neigh show {} dev {} nud permanent", ips[0], port.ifname));
            let flows: usize = ["br-int", "br-tun"]
                .into_iter()
                .flat_map(|bridge| bench.switch.flows(bridge))
                .filter(|flow| flow.line.contains(&mac.to_string()))
                .count();
            (entry.contains(&mac.to_string()), flows)
        };
        let told = bench.switch.memory().changes;
        let shows = bench.switch.memory().shows;
        let network = || port.network.clone();
        for number in 0..20 {
            controller.tell(&[ViewChange::RemotePort { network: network(), port: remote(number) }]);
            let until = Instant::now() + LONG;
            while is_there(number) != (true, 3) {
                assert!(Instant::now() < until, "machine {number}: {:?}", is_there(number));
                thread::yield_now();
            }
        }
        let RemotePort { name, node, .. } = remote(0);
        controller.tell(&[ViewChange::RemotePortGone { network: network(), name, node }]);
        let until = Instant::now() + LONG;
        while is_there(0) != (false, 0) {
            assert!(Instant::now() < until, "machine 0 is left: {:?}", is_there(0));
            thread::yield_now();
        }
        // Every change is one request to each bridge. An audit may fall into this time.
        assert_eq!(bench.switch.memory().changes - told, 21 * 2);
        assert!(bench.switch.memory().shows - shows < 4, "a whole pass followed changes");
        let neighbours: Vec<Neighbour> = bench.client().call(&Ask::Neighbours).expect("it answers");
        assert_eq!(neighbours.len(), 4 + 19, "readers are told too");
        assert_eq!(bench.settled().operations, 0, "a whole pass wants something else");
        // Whole passes at the very time of changes lose none.
        for number in 20..40 {
            controller.tell(&[ViewChange::RemotePort { network: network(), port: remote(number) }]);
            bench.settled();
            let until = Instant::now() + LONG;
            while is_there(number) != (true, 3) {
                assert!(Instant::now() < until, "machine {number}: {:?}", is_there(number));
                thread::yield_now();
            }
        }
        bench.stop_agent();
    });
}

/// Waits until it is so, for less long than until the agent looks with no reason at all.
fn until(what: &str, is: &dyn Fn() -> bool) {
    const SOON: Duration = Duration::from_secs(10);
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < SOON, "{what} was not repaired before an audit may have been due");
        thread::yield_now();
    }
    println!("{what}: repaired in {:?}", started.elapsed());
}

/// Input: drift that nobody asks about. Output: it is repaired all the same, sooner than an audit may find it.
#[test]
fn the_kernel_itself_tells_of_drift() {
    in_namespace("the_kernel_itself_tells_of_drift", || {
        let mut bench = Bench::started();
        bench.settled();
        let (router, show) = bench.router();
        let port = &show.routers[0].interfaces[0].ifname;
        let neighbours = || ip_json(&format!("-n {router} neigh")).as_array().map_or(0, Vec::len);
        ip(&format!("-n {router} neigh flush dev {port} nud permanent"));
        until("neighbours", &|| neighbours() == 4);
        ip(&format!("-n {router} addr flush dev {port}"));
        until("address", &|| ip(&format!("-n {router} -o -4 addr show dev {port}")).contains("10."));
        // What somebody else put beside ours stays, and what of ours goes comes back.
        ip("-n vm-blue1 route add 198.51.100.0/24 via 10.1.0.1");
        ip(&format!("-n {router} neigh add 10.1.0.250 lladdr 02:00:00:00:00:fa nud reachable dev {port}"));
        ip("-n vm-blue1 route del default");
        until("route", &|| ip("-n vm-blue1 route").contains("default via 10.1.0.1"));
        assert!(ip("-n vm-blue1 route").contains("198.51.100.0/24"), "a foreign route was touched");
        assert!(ip(&format!("-n {router} neigh")).contains("10.1.0.250"), "a foreign entry was touched");
        ip(&format!("-n {router} neigh del 10.1.0.250 dev {port}"));
        ip("-n vm-blue1 link set eth0 down");
        until("link", &|| ip("-n vm-blue1 -o link show dev eth0").contains(",UP"));
        ip("-n vm-blue1 link del eth0");
        until("veth", &|| ip("-n vm-blue1 -o addr").contains("10.1.0."));
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            bench.settled();
            set(&router, key, "0");
            until(key, &|| switch(&router, key) == "1");
        }
        ip(&format!("netns del {router}"));
        until("namespace", &|| {
            // Its name is listed before it is mounted, and cannot be entered between.
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
            mounts.contains(&router) && neighbours() == 4
        });
        bench.stop_agent();
    });
}

/// Input: flows of ours removed and changed, flows of others' added, and a bridge removed, through the switch's own socket,
/// and a port that fails; nobody asks the agent. Output: it looks sooner than an audit may come, and counts that; ours are
/// back, the others' stay.
#[test]
fn the_switch_itself_tells_of_drift() {
    in_namespace("the_switch_itself_tells_of_drift", || {
        let mut bench = Bench::started();
        let disturbed = bench.settled().disturbed;
        let flows = |bridge: &str| -> Vec<String> {
            let mut all: Vec<String> = bench.switch.flows(bridge).iter().map(dvr::datapath::without_stats).collect();
            all.sort();
            all
        };
        let whole = flows("br-int");
        let socket = bench.config.switch_socket.clone();
        let mut other = dvr::control::Client::connect(&socket, LONG).expect("it listens");
        let hello = dvr::api::switch::Request::Hello { version: dvr::api::VERSION };
        let _: dvr::api::switch::Hello = other.call(&hello).expect("it answers");
        let mut change = |changes: Vec<FlowChange>| -> usize {
            let request = dvr::api::switch::Request::Flows { bridge: "br-int".parse().expect("a name"), changes };
            other.call(&request).expect("good flows")
        };
        assert!(change(vec![FlowChange::Delete("table=21".to_owned())]) > 4);
        until("removed flows", &|| flows("br-int") == whole);
        assert!(change(vec![FlowChange::Modify("table=60 actions=drop".to_owned())]) > 1);
        until("changed flows", &|| flows("br-int") == whole);
        let foreign = "cookie=0x7,table=5,priority=1 actions=drop";
        assert_eq!(
            change(vec![FlowChange::Delete(String::new()), FlowChange::Add(foreign.to_owned())]),
            whole.len() + 1
        );
        until("all flows", &|| flows("br-int").len() == whole.len() + 1);
        let request = dvr::api::switch::Request::DelBridge { bridge: "br-tun".parse().expect("a name") };
        other.call::<_, ()>(&request).expect("it is there");
        let is_there = || {
            bench
                .switch
                .memory()
                .engine
                .bridges()
                .iter()
                .any(|bridge| bridge.flows > 0 && bridge.name.as_str() == "br-tun")
        };
        until("a bridge", &is_there);
        let state = bench.settled();
        let shows = || bench.switch.memory().shows;
        let before = shows();
        bench.switch.fail();
        until("a failed port", &|| shows() > before);
        // What comes while the agent looks is one with what it looks at.
        assert!(state.disturbed > disturbed, "{state:?}");
        assert_eq!(flows("br-int").len(), whole.len() + 1, "a foreign flow was touched");
        bench.stop_agent();
    });
}

/// Input: a `/dev/net/tun` that opens and makes nothing. Output: the switch says so at once, and so ports are veth pairs.
#[test]
fn a_tun_device_that_makes_nothing_is_told_from_one_that_does() {
    in_namespace("a_tun_device_that_makes_nothing_is_told_from_one_that_does", || {
        let (from, to) = ("/dev/null", "/dev/net/tun");
        if !std::path::Path::new(to).exists() {
            return println!("LEFT OUT: this machine has no {to} to put another device on");
        }
        let mounted = nix::mount::mount(Some(from), to, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>);
        mounted.expect("a mount namespace of its own");
        let refused = dvr::datapath::port::tap::probe().expect("no TAP comes of it");
        assert!(refused.contains("though /dev/net/tun opens"), "{refused}");
    });
}

/// Input: a switch that starts late, then restarts empty. Output: it is told everything each time.
#[test]
fn a_switch_may_be_late_and_may_forget() {
    in_namespace("a_switch_may_be_late_and_may_forget", || {
        let mut bench = Bench::new();
        bench.start_agent();
        let early: Converged = bench.client().call(&Ask::Wait { timeout_millis: 1 }).expect("it answers");
        assert!(!early.converged);
        bench.start_switch();
        bench.settled();
        let flows = |bench: &Bench| -> Vec<usize> {
            bench.switch.memory().engine.bridges().iter().map(|bridge| bridge.flows).collect()
        };
        let before = flows(&bench);
        assert!(before.len() == 2 && before.iter().all(|count| *count > 10), "{before:?}");
        // Its memory is gone, and nobody tells the agent: what it observes does.
        *bench.switch.memory() = empty();
        bench.settled();
        assert_eq!(flows(&bench), before);
        bench.stop_agent();
    });
}

/// Input: a node attached by veth pairs, then an agent whose switch makes TAPs. Output: no veth of the same name passes for
/// the TAP: all of them go, and the switch is asked for TAPs instead.
#[test]
fn another_attachment_takes_the_old_one_away() {
    in_namespace("another_attachment_takes_the_old_one_away", || {
        let mut bench = Bench::started();
        bench.settled();
        let (router, show) = bench.router();
        let port = show.routers[0].interfaces[0].ifname.clone();
        let veths = |netns: &str| ip(&format!("-n {netns} -o link show type veth")).lines().count();
        assert_eq!((veths(&router), veths("vm-blue1")), (2, 1));
        bench.stop_agent();
        bench.switch.memory().taps = true;
        bench.start_agent();
        // This switch's TAPs are words only: the node never converges, and the agent goes on asking for them.
        let is_tap = |port: &PortConfig| matches!(&port.kind, PortKind::Tap { netns: Some(_), .. });
        let until = Instant::now() + LONG;
        while !bench.switch.memory().ports.get(&port).is_some_and(is_tap) {
            assert!(Instant::now() < until, "no TAP is asked for");
            thread::yield_now();
        }
        bench.stop_agent();
        assert!(!ip("netns list").contains("dvr-ports"), "the outer ends are left");
        assert_eq!((veths(&router), veths("vm-blue1")), (0, 0));
    });
}

/// Input: a port the switch refuses. Output: an error that names it, and the rest of the node at work.
#[test]
fn one_port_in_trouble_is_not_the_nodes_trouble() {
    in_namespace("one_port_in_trouble_is_not_the_nodes_trouble", || {
        let mut bench = Bench::new();
        let topology = Topology::example();
        let view = dvr::placement::view(&topology, "node1").expect("it is there");
        let port = view.networks[0].local_ports[0].port.to_string();
        bench.switch.memory().refuse_port = Some(port.clone());
        bench.start_switch();
        bench.start_agent();
        let state: Converged = bench.client().call(&Ask::Wait { timeout_millis: 2000 }).expect("it answers");
        assert!(!state.converged && state.errors.iter().any(|error| error.contains(&port)), "{state:?}");
        let flows: Vec<String> = bench.switch.flows("br-int").into_iter().map(|flow| flow.line).collect();
        assert!(
            flows.len() > 20 && flows.iter().all(|flow| !flow.contains(&port)),
            "a flow names a port that is not there"
        );
        bench.switch.memory().refuse_port = None;
        bench.settled();
        bench.stop_agent();
    });
}

/// Input: readers. Output: what they are shown is what the kernel and the switch have.
#[test]
fn readers_see_live_data() {
    in_namespace("readers_see_live_data", || {
        let mut bench = Bench::started();
        bench.settled();
        let mut client = bench.client();
        let neighbours: Vec<Neighbour> = client.call(&Ask::Neighbours).expect("it answers");
        assert_eq!(neighbours.len(), 4);
        assert!(neighbours.iter().all(|row| row.state == "PERMANENT"), "{neighbours:?}");
        let responders: Vec<Responder> = client.call(&Ask::Responders).expect("it answers");
        assert_eq!(responders.len(), 6, "two networks of two machines and a router: {responders:?}");
        assert!(responders.iter().all(|row| row.answers == 0), "{responders:?}");
        let (_, show) = bench.router();
        let peer = show.peers[0].ports.first().cloned().expect("networks are shared");
        let learned = format!(
            "cookie={LEARNED_COOKIE:#x},table=20,priority=1,vlan_tci=0x0001/0x0fff,dl_dst=02:00:00:00:00:09 \
             actions=load:0->NXM_OF_VLAN_TCI[],load:0x1->NXM_NX_TUN_ID[],output:{peer}"
        );
        bench.switch.change("br-tun", &[FlowChange::Add(learned)]);
        let forwardings: Vec<Forwarding> = client.call(&Ask::Forwardings).expect("it answers");
        let count = |origin: &str| forwardings.iter().filter(|row| row.origin == origin).count();
        assert_eq!((count("populated"), count("learned")), (6, 1), "{forwardings:?}");
        let row = forwardings.iter().find(|row| row.origin == "learned").expect("counted");
        assert_eq!((row.node.as_deref(), row.age_secs), (Some("node2"), Some(0)));
        bench.stop_agent();
    });
}

/// Input: a machine that moves to the other node, by SIGHUP; then a purge. Output: it is gone here; then everything is.
#[test]
fn a_new_topology_is_taken_and_a_purge_leaves_nothing() {
    in_namespace("a_new_topology_is_taken_and_a_purge_leaves_nothing", || {
        let mut bench = Bench::started();
        bench.settled();
        ip("netns add foreign");
        let text = std::fs::read_to_string(&bench.topology).expect("written above");
        let moved = text.replace("blue1:   {node: node1", "blue1:   {node: node2");
        assert_ne!(text, moved, "the example has another shape");
        std::fs::write(&bench.topology, moved).expect("ours");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).expect("a signal to oneself");
        bench.settled();
        let listed = ip("netns list");
        assert!(!listed.contains("vm-blue1") && listed.contains("vm-orange2"), "{listed}");
        std::fs::write(&bench.topology, "version: 99").expect("ours");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).expect("a signal to oneself");
        let refused = |state: &Converged| state.errors.iter().any(|error| error.contains("topology.yaml"));
        let begun = Instant::now();
        loop {
            let state: Converged = bench.client().call(&Ask::Wait { timeout_millis: 100 }).expect("it answers");
            if !state.converged && refused(&state) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{state:?}");
        }
        assert!(ip("netns list").contains("vm-orange2"), "a mistake in the file takes nothing away");
        assert!(matches!(purge(&bench.config), Err(AgentError::Running { .. })), "beside a living agent");
        bench.stop_agent();
        purge(&bench.config).expect("everything goes");
        assert_eq!(ip("netns list").trim(), "foreign");
        assert!(bench.switch.memory().engine.bridges().is_empty());
        let kept = std::fs::read_dir(&bench.config.run_dir).expect("there").filter_map(Result::ok);
        assert!(kept.map(|file| file.file_name()).all(|name| name != "local-vlans.json"));
        assert_eq!(purge(&bench.config).expect("twice is no error"), 0);
    });
}
