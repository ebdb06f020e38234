//! Announcements of every kind by which a virtual address fails over, as frames of our own: how long until traffic from
//! another node arrives at whoever announced it last.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "what is measured is told, and not asserted")]
#![expect(clippy::disallowed_methods, reason = "what is measured is time")]

#[path = "support/frames.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod frames;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod user;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dvr::datapath::port::{frame, packet};
use dvr::datapath::{HEADROOM, Offload, Packet};
use dvr::types::{IfName, Mac};
use dvr::wire::checksum;
use frames::{arp, nd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use user::User;

/// Two machines that may take the same addresses, on nodes of their own, and one in another subnet on a third.
const TOPOLOGY: &str = "version: 1
nodes:    {node1: {}, node2: {}, node3: {}}
networks:
  blue:   {subnets: [{cidr: 10.1.0.0/24}, {cidr: 'fd00:1::/64'}]}
  orange: {subnets: [{cidr: 10.2.0.0/24}, {cidr: 'fd00:2::/64'}]}
routers:  {r1: {interfaces: [blue, orange]}}
vms:
  a: {node: node1, network: blue, port_security: true,
      allowed_address_pairs: [{ip: 10.1.0.100}, {ip: 10.1.0.101}, {ip: 'fd00:1::64'}]}
  b: {node: node2, network: blue, port_security: true,
      allowed_address_pairs: [{ip: 10.1.0.100}, {ip: 10.1.0.101}, {ip: 'fd00:1::64'}]}
  o: {node: node3, network: orange}
";
/// An address for each kind of announcement: one that moves more often than four times in a row waits for its next move.
const ASKED: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const ANSWERED: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 101);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x64);
/// How long traffic may take to arrive before there is none.
const LIMIT: Duration = Duration::from_secs(20);

/// Something that runs until it is ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// An unsolicited neighbour advertisement that overrides (RFC 4861 §7.2.6).
fn advertisement(mac: Mac) -> Vec<u8> {
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut frame = nd(Mac::new([0x33, 0x33, 0, 0, 0, 1]), mac, (V6, everybody), 136, V6, (2, mac));
    (frame[56], frame[57], frame[58]) = (0, 0, 0x20);
    let sum = checksum::pseudo(&V6.octets(), &everybody.octets(), 58, frame.len() - 54);
    let sum = !checksum::fold(checksum::add(sum, &frame[54..]));
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Whether a frame is a packet to this address.
fn is_to(frame: &[u8], ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => frame.get(12..14) == Some(&[8, 0]) && frame.get(30..34) == Some(&ip.octets()),
        IpAddr::V6(ip) => frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(38..54) == Some(&ip.octets()),
    }
}

/// Sends a frame by a machine's interface, and tells how long it took until a packet to the address came.
#[test]
#[ignore = "a machine that takes an address: started by another test, inside one"]
fn taker() {
    let variable = |name| std::env::var(name).expect("set by who started it");
    let text = variable("DVR_TEST_FRAME");
    let octet = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    let announcement: Vec<u8> = (0..text.len()).step_by(2).map(octet).collect();
    let ip: IpAddr = variable("DVR_TEST_ADDRESS").parse().expect("an address");
    let links = std::fs::read_dir("/sys/class/net").expect("sysfs").map(|entry| entry.expect("an entry").file_name());
    let link = links.filter_map(|name| name.into_string().ok()).find(|name| name != "lo").expect("an interface");
    let socket = packet::open(None, &IfName::new(&link).expect("a legal name"), 1).expect("a packet socket").remove(0);
    let mut room = [&[0; HEADROOM], &announcement[..]].concat();
    let end = room.len();
    let begun = Instant::now();
    frame::write(&socket, &Packet::new(&mut room, HEADROOM, end, &[], Offload::default())).expect("it leaves");
    let mut buffer = vec![0; 1 << 17];
    loop {
        let left = LIMIT.checked_sub(begun.elapsed()).expect("nothing comes");
        let timeout = PollTimeout::try_from(left).expect("a short time");
        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout).expect("a sound socket");
        let mut came = false;
        let _ready = frame::read(socket.as_fd(), &mut buffer, |packet| came = is_to(packet.head(), ip));
        if came {
            return println!("followed after {} us", begun.elapsed().as_micros());
        }
    }
}

/// Has a machine announce an address. Gives how long it took until what is for it arrived there, in microseconds.
fn take(user: &User, vm: &str, ip: IpAddr, announcement: &[u8]) -> u64 {
    let program = std::env::current_exe().expect("the test binary's path").display().to_string();
    let words =
        ["lab", "exec", vm, "--name", &user.lab, "--", &program, "taker", "--exact", "--ignored", "--nocapture"];
    let mut command = user.command(&words);
    command.env("DVR_TEST_FRAME", hex(announcement)).env("DVR_TEST_ADDRESS", ip.to_string()).stdin(Stdio::null());
    let output = command.output().expect("the program starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let told = out.split_once("followed after ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    told.unwrap_or_else(|| panic!("{vm} took {ip} and nothing came: {out}{err}"))
}

/// Input: two machines that take turns in announcing an address, by each kind of frame, while a third on another node pings
/// it. Output: the pings arrive at whoever announced it last, every time; told is how soon.
#[test]
fn traffic_follows_every_kind_of_announcement() {
    let user = User::new("announce", false);
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, TOPOLOGY).expect("the temporary directory is writable");
    user.up(Some(&file));
    std::fs::remove_file(&file).expect("ours");
    let ping = |ip: IpAddr| {
        let words = ["lab", "exec", "o", "--name", &user.lab, "--", "ping", "-n", "-q", "-i", "0.02", &ip.to_string()];
        let mut command = user.command(&words);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Running(child.expect("it starts"))
    };
    let _pings = [ping(ASKED.into()), ping(ANSWERED.into()), ping(V6.into())];
    let mac = |vm: &str| -> Mac {
        let shown = user.json(&["get", "vm", vm, "-o", "json"]);
        shown[0]["mac"].as_str().and_then(|mac| mac.parse().ok()).expect("it has a MAC")
    };
    let macs = [("a", mac("a")), ("b", mac("b"))];
    type Kind = (&'static str, IpAddr, fn(Mac) -> Vec<u8>);
    let kinds: [Kind; 3] = [
        ("gratuitous ARP request", ASKED.into(), |mac| arp(Mac::BROADCAST, 1, (mac, ASKED), (Mac::ZERO, ASKED))),
        ("gratuitous ARP reply", ANSWERED.into(), |mac| {
            arp(Mac::BROADCAST, 2, (mac, ANSWERED), (Mac::BROADCAST, ANSWERED))
        }),
        ("unsolicited neighbour advertisement", V6.into(), advertisement),
    ];
    for (what, ip, announcement) in kinds {
        let turns = [macs, macs].concat();
        let times = turns.into_iter().map(|(vm, mac)| take(&user, vm, ip, &announcement(mac)));
        let times: Vec<String> = times.map(|micros| format!("{}.{}", micros / 1000, micros / 100 % 10)).collect();
        eprintln!("{what}: another node's pings, one in 20 ms, followed after {} ms", times.join(", "));
    }
}
