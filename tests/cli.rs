//! The command line from outside: help, refusals, exit codes, and a switch without an agent. Nothing here starts a lab.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs the program in a directory of its own, where no lab is known.
fn dvr(arguments: &[&str]) -> (Output, String, String) {
    let nowhere = scratch();
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    let output = Command::new(env!("CARGO_BIN_EXE_dvr"))
        .args(arguments)
        .current_dir(&nowhere)
        .env("XDG_RUNTIME_DIR", &nowhere)
        .output()
        .expect("the program starts");
    let out = String::from_utf8(output.stdout.clone()).expect("text");
    let err = String::from_utf8(output.stderr.clone()).expect("text");
    (output, out, err)
}

fn scratch() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli");
    std::fs::create_dir_all(&dir).expect("a scratch directory");
    dir
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let (output, out, _) = dvr(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "lab",
        "controller",
        "apply",
        "diff",
        "get",
        "describe",
        "delete",
        "certs",
        "agent",
        "switch",
        "purge",
        "add-br",
        "add-port",
        "diff-flows",
        "replace-flows",
        "show",
        "dump-flows",
        "add-flow",
        "fdb",
        "arp",
        "neigh",
        "doctor",
        "completions",
        "man",
    ] {
        assert!(
            out.lines().any(|line| line.trim_start().starts_with(&format!("{word} ")) || line.trim() == word),
            "{word} is not in the help"
        );
    }
    for code in ["0    done", "1    ", "2    ", "3    "] {
        assert!(out.contains(code), "exit code {code} is not documented");
    }
    assert!(!out.contains("lab-init") && !out.contains("lab-keep"), "what only a lab starts is shown to users");
}

#[test]
fn bad_usage_is_exit_code_2() {
    for arguments in [
        &["frobnicate"][..],
        &["lab"],
        &["lab", "up", "--name", "../x"],
        &["lab", "down", "--all", "--name", "x"],
        &["show", "-o", "xml"],
    ] {
        let (output, _, err) = dvr(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(!err.is_empty(), "{arguments:?} was refused without a word");
    }
}

#[test]
fn a_lab_that_is_not_there_is_exit_code_3() {
    for arguments in [
        &["lab", "exec", "--name", "no-such-lab", "blue1", "--", "true"][..],
        &["lab", "test", "--name", "no-such-lab"],
        &["lab", "kill", "node1", "switch", "--name", "no-such-lab"],
        &["show", "--name", "no-such-lab"],
        &["dump-flows", "node1/br-int", "--name", "no-such-lab"],
        &["neigh", "--name", "no-such-lab", "-o", "json"],
    ] {
        let (output, _, err) = dvr(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {err}");
        assert!(err.starts_with("dvr: lab `no-such-lab` is not running"), "{arguments:?}: {err}");
    }
}

#[test]
fn down_is_done_when_nothing_is_up() {
    let (output, out, err) = dvr(&["lab", "down", "--name", "no-such-lab"]);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(out, "lab `no-such-lab` is not there\n");
}

#[test]
fn a_bad_topology_names_its_place_and_touches_nothing() {
    let dir = scratch();
    let file = dir.join("bad.yaml");
    let text = "version: 1\nnodes: {node1: {}}\nnetworks: {blue: {type: vxlan, subnets: [{cidr: 10.1.0.0/24}]}}\nvms:\n  blue1: {node: node7, network: blue}\n";
    std::fs::write(&file, text).expect("a file");
    let path = file.display().to_string();
    let (output, out, err) = dvr(&["lab", "up", &path, "--name", "bad-topology"]);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert_eq!(out, "");
    let place = format!("{path}:5:17");
    assert!(err.contains(&place), "the mistake's place {place} is not told: {err}");
    assert!(err.contains("node7"), "the mistake's value is not told: {err}");
    assert!(!dir.join("dvr").exists(), "a refused topology left a directory");
    let (_, listed, _) = dvr(&["lab", "ls", "-o", "json"]);
    assert!(!listed.contains("bad-topology"), "a refused topology left a lab: {listed}");
}

#[test]
fn a_file_that_is_not_there_is_bad_input() {
    let (output, _, err) = dvr(&["lab", "up", "no-such-file.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(err, "dvr: cannot read no-such-file.yaml: No such file or directory (os error 2); check the path\n");
}

#[test]
fn doctor_says_the_same_to_people_and_programs() {
    let (_, text, err) = dvr(&["doctor"]);
    let (_, json, _) = dvr(&["doctor", "-o", "json"]);
    let findings: Vec<serde_json::Value> =
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}{err}"));
    assert!(findings.len() > 8, "doctor looked at {} things only", findings.len());
    for finding in &findings {
        let what = finding["what"].as_str().expect("a name");
        assert!(text.contains(what), "{what} is told to programs only");
        let fine = finding["verdict"] == "ok";
        assert_eq!(
            finding["remedy"].as_str().expect("a text").is_empty(),
            fine,
            "{what}: a remedy where one is needed"
        );
    }
}

#[test]
fn completions_and_manual_are_generated() {
    let (output, bash, _) = dvr(&["completions", "bash"]);
    assert!(output.status.success() && bash.contains("dump-flows"));
    let (output, man, _) = dvr(&["man"]);
    assert!(output.status.success() && man.starts_with(".ie") && man.contains("Exit codes"), "{man}");
    assert!(man.contains("no\\-stats") && man.contains("lab"), "the commands' own options are missing");
}

/// Output: a page for each command, so that every page that one names is there.
#[test]
fn every_page_that_the_manual_names_is_there() {
    let dir = scratch().join("man");
    std::fs::create_dir_all(&dir).expect("a directory");
    let (output, _, err) = dvr(&["man", "--dir", &dir.display().to_string()]);
    assert!(output.status.success(), "{err}");
    let page = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("dvr-controller.1").contains("etcd") && page("dvr-lab-up.1").contains("fast"));
    for whole in ["dvr.1", "dvr-lab.1", "dvr-certs.1"] {
        let text = page(whole).replace('\\', "");
        let named: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix("(1)")).collect();
        assert!(named.len() > 2, "{whole} names {named:?}");
        named.into_iter().for_each(|name| assert!(!page(&format!("{name}.1")).is_empty()));
    }
}

/// Every file of flows that is compared is made from this one.
const FLOWS: &str = "\
# classify
table=0,priority=5,ip,nw_dst=10.0.0.0/8,actions=output:2
priority=0,actions=NORMAL
table=3,actions=drop
tcp,tp_dst=80,idle_timeout=100,hard_timeout=200,cookie=0x7,send_flow_rem,actions=1
table=1 priority=7 in_port=1 actions=resubmit(,2)  # on
table=1 priority=7 in_port=2 dl_src=00:00:00:00:00:01 actions=resubmit(,2)
";

fn file(name: &str, text: impl AsRef<[u8]>) -> String {
    // Each test its own: they run at the same time.
    let path = scratch().join(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[test]
fn files_of_flows_differ_as_ovs_ofctl_says_it() {
    let one = file("diff-one", FLOWS);
    let edited =
        FLOWS.replace("priority=5,", "priority=6,").replace("0x7", "0x8").replace("table=3,actions=drop\n", "");
    let two = file("diff-two", format!("{edited}table=9,reg0=1,priority=1,actions=drop\n"));
    let (output, out, err) = dvr(&["diff-flows", &one, &two]);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert_eq!(
        out,
        "-tcp,tp_dst=80 cookie=0x7 idle_timeout=100 hard_timeout=200 actions=output:1\n\
         +tcp,tp_dst=80 cookie=0x8 idle_timeout=100 hard_timeout=200 actions=output:1\n\
         +priority=6,ip,nw_dst=10.0.0.0/8 actions=output:2\n\
         -priority=5,ip,nw_dst=10.0.0.0/8 actions=output:2\n\
         -table=3  actions=drop\n\
         +table=9 priority=1,reg0=0x1 actions=drop\n"
    );
    let (output, out, _) = dvr(&["diff-flows", &one, &one]);
    assert_eq!((output.status.code(), out.as_str()), (Some(0), ""));
    let bad = file("diff-bad", "actions=drop\n  table=1,bogus=3,actions=drop");
    let (output, _, err) = dvr(&["diff-flows", &one, &bad]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        err,
        format!(
            "dvr: {bad}:2: a flow has no `bogus` (at character 11)\n    table=1,bogus=3,actions=drop\n            ^\n"
        )
    );
}

#[test]
fn captures_are_traced_frame_by_frame() {
    let flows = file("trace-flows", "in_port=1,dl_type=0x88b5,actions=2\nin_port=1,actions=drop\n");
    let frame = |kind: u16| {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        frame.extend(kind.to_be_bytes());
        frame.extend([0; 46]);
        frame
    };
    let mut pcap = [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65_535, 1].map(u32::to_be_bytes).concat();
    for kind in [0x88b5, 0x88b6] {
        pcap.extend([7_u32, 8, 60, 60].map(u32::to_be_bytes).concat());
        pcap.extend(frame(kind));
    }
    let capture = file("two.pcap", &pcap);
    let (output, out, err) = dvr(&["trace", "--flows", &flows, "in_port=1", "--pcap", &capture]);
    assert_eq!(output.status.code(), Some(0), "{err}");
    let told: Vec<&str> =
        out.lines().filter(|line| line.starts_with("Frame") || line.starts_with("Datapath")).collect();
    let summary = "02:00:00:00:00:01 > 02:00:00:00:00:02, type";
    assert_eq!(
        told,
        [
            format!("Frame 1 of 2: {summary} 0x88b5, 60 octets").as_str(),
            "Datapath actions: 2",
            format!("Frame 2 of 2: {summary} 0x88b6, 60 octets").as_str(),
            "Datapath actions: drop",
        ]
    );
    let hex: String = frame(0x88b5).iter().map(|octet| format!("{octet:02x}")).collect();
    let (_, one, _) = dvr(&["trace", "--flows", &flows, "in_port=1", "--frame", &hex]);
    assert!(out.contains(one.trim_end()), "hexadecimal is traced as the file's frame is:\n{one}");
    let cut = file("cut.pcap", &pcap[..pcap.len() - 70]);
    let (output, _, err) = dvr(&["trace", "--flows", &flows, "in_port=1", "--pcap", &cut]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(err, format!("dvr: {cut}: the capture is cut off in a record's header that begins at octet 100\n"));
}

/// A switch without any agent, in namespaces of the test's own.
struct Running(std::process::Child);

impl Running {
    fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_dvr"));
        let child = command.args(["switch", "--run-dir", "/run/dvr", "--log", "warn"]).spawn();
        let mut running = Self(child.expect("the program starts"));
        while !std::path::Path::new("/run/dvr/switch.sock").exists() {
            assert_eq!(running.0.try_wait().expect("our child"), None, "the switch ended");
            std::thread::yield_now();
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What a command that must succeed prints.
fn good(arguments: &[&str]) -> String {
    let (output, out, err) = dvr(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {err}");
    out
}

/// The same of a command as one line.
fn good_line(line: &str) -> String {
    good(&line.split(' ').collect::<Vec<_>>())
}

/// What a command that must fail says, and its exit code.
fn bad(arguments: &[&str]) -> (Option<i32>, String) {
    let (output, _, err) = dvr(arguments);
    (output.status.code(), err)
}

#[test]
fn flows_of_a_bridge_of_ones_own() {
    support::in_namespace("flows_of_a_bridge_of_ones_own", || {
        let _switch = Running::start();
        let bare = |words: &[&str]| good(&[&["dump-flows", "br0", "--no-stats"], words].concat());
        good(&["add-br", "br0", "--mode", "flow"]);
        for port in ["p1", "p2"] {
            let peer = format!("{port}x");
            good(&["add-port", "br0", port, "--type", "patch", "--peer", &peer]);
        }
        let flows = file("own-flows", FLOWS);
        good(&["add-flow", "br0", "table=7,actions=drop"]);
        good(&["replace-flows", "br0", &flows]);
        let replaced = bare(&[]);
        assert_eq!(
            replaced,
            " cookie=0x7, idle_timeout=100, hard_timeout=200, send_flow_rem tcp,tp_dst=80 actions=output:1\n \
             priority=5,ip,nw_dst=10.0.0.0/8 actions=output:2\n priority=0 actions=NORMAL\n \
             table=1, priority=7,in_port=1 actions=resubmit(,2)\n \
             table=1, priority=7,in_port=2,dl_src=00:00:00:00:00:01 actions=resubmit(,2)\n \
             table=3, actions=drop\n"
        );
        assert_eq!(good(&["diff-flows", "br0", &flows]), "");
        assert_eq!(
            bare(&["--rsort=in_port", "--names"]).lines().next(),
            Some(" table=1, priority=7,in_port=p2,dl_src=00:00:00:00:00:01 actions=resubmit(,2)")
        );
        assert!(bare(&["--sort"]).starts_with(" priority=0 actions=NORMAL\n"));
        assert_eq!(bare(&["out_port=2"]), " priority=5,ip,nw_dst=10.0.0.0/8 actions=output:2\n");
        assert_eq!(bare(&["cookie=0x2/0x2"]).lines().count(), 1);
        assert_eq!(bare(&["table=1"]).lines().count(), 2);
        assert_eq!(bad(&["dump-flows", "br0", "--sort=bogus"]).0, Some(2));
        let full = good(&["dump-flows", "br0", "table=3"]);
        assert!(full.starts_with(" cookie=0x0, duration=") && full.ends_with(", actions=drop\n"), "{full}");

        // All or nothing.
        let broken = file("own-broken", "delete\nadd table=5,actions=drop\nmodify table=5,actions=bogus:3\n");
        let (code, err) = bad(&["add-flows", "br0", &broken]);
        assert_eq!(code, Some(2));
        assert!(
            err.starts_with(&format!("dvr: {broken}:3: ")) && err.contains("\n  modify table=5,actions=bogus:3\n"),
            "{err}"
        );
        assert_eq!(bare(&[]), replaced, "a refused bundle changed something");
        let bundle = "delete table=1\nmodify_strict table=3,actions=1\ndelete_strict priority=0\ntable=5,cookie=9,actions=drop\n";
        good(&["add-flows", "br0", &file("own-bundle", bundle)]);
        assert_eq!(
            bare(&[]),
            " cookie=0x7, idle_timeout=100, hard_timeout=200, send_flow_rem tcp,tp_dst=80 actions=output:1\n \
             priority=5,ip,nw_dst=10.0.0.0/8 actions=output:2\n table=3, actions=output:1\n \
             cookie=0x9, table=5, actions=drop\n"
        );
        good(&["mod-flows", "br0", "--strict", "table=3,actions=drop"]);
        good(&["del-flows", "br0", "cookie=0x1/0x1"]);
        assert_eq!(bare(&[]), " priority=5,ip,nw_dst=10.0.0.0/8 actions=output:2\n table=3, actions=drop\n");
        good(&["del-flows", "br0", "out_port=2"]);
        good(&["del-flows", "br0", "--strict", "table=3,priority=1"]);
        assert_eq!(bare(&[]), " table=3, actions=drop\n");
        // A node of Neutron's, as it was dumped there.
        let neutron = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/br-tun-gre.flows");
        good(&["replace-flows", "br0", neutron]);
        assert_eq!(good(&["diff-flows", "br0", neutron]), "");
        assert!(bare(&["table=20"]).contains("learn(") || bare(&[]).contains("learn("), "{}", bare(&[]));
        let (code, err) = bad(&["add-flow", "br0", "ip,nw_dst=10.0.0.999,actions=drop"]);
        assert_eq!((code, err.lines().last()), (Some(2), Some("            ^")), "{err}");
    });
}

#[test]
fn bridges_ports_and_stations_of_ones_own() {
    support::in_namespace("bridges_ports_and_stations_of_ones_own", || {
        let _switch = Running::start();
        good(&["add-br", "br0"]);
        good(&["add-br", "br0", "--mode", "normal"]);
        assert_eq!(bad(&["add-br", "br0", "--mode", "flow"]).0, Some(1), "it has another mode");
        support::ip("link add v0 type veth peer name v1");
        support::ip("link set v0 up");
        good(&["add-port", "br0", "v0", "--tag", "5"]);
        good(&["add-br", "br1", "--mode", "flow"]);
        good_line("add-port br0 p0 --type patch --peer p1 --tag 6 --vlan-mode native-untagged");
        good(&["add-port", "br1", "p1", "--type", "patch", "--peer", "p0"]);
        good_line("add-port br0 far --type vxlan --local 127.0.0.1 --remote 127.0.0.2 --udp-port 14789");
        let shown = good(&["show"]);
        for line in [
            "Bridge br0 (normal mode, 1 flows)",
            "Port v0 (number 1, tag 5)",
            "Port p0 (number 2, native tag 6, trunks [])",
        ] {
            assert!(shown.contains(line), "no `{line}` in:\n{shown}");
        }
        good(&["set-port", "br0", "p0", "--trunks", "7,8"]);
        assert!(good(&["show"]).contains("Port p0 (number 2, trunks [7, 8])"));
        for (arguments, code) in [
            (&["add-port", "br0", "v0", "--tag", "6"][..], 1),
            (&["add-port", "br0", "x0", "--type", "patch"], 2),
            (&["add-port", "br0", "x0", "--type", "tap", "--remote", "127.0.0.1"], 2),
            (&["add-port", "br0", "x0", "--tag", "4095"], 2),
            (&["set-port", "br0", "v0"], 2),
            (&["del-port", "br0", "x0"], 3),
            (&["del-br", "br9"], 3),
        ] {
            let (output, _, err) = dvr(arguments);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        }

        let head = " port  VLAN  MAC                Age\n";
        good(&["fdb", "add", "br0", "v0", "5", "02:00:00:00:00:01"]);
        let one = format!("{head}    1     5  02:00:00:00:00:01  static\n");
        assert_eq!(good(&["fdb", "show", "br0"]), one);
        good(&["fdb", "flush", "br0"]);
        assert_eq!(good(&["fdb", "show", "br0"]), one, "what was said by hand stays");
        // The address is looked for where it was said to be.
        let traced = good(&["trace", "br0", "in_port=p0,dl_vlan=5,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01"]);
        assert!(traced.contains("disallowed VLAN"), "{traced}");
        good(&["set-port", "br0", "p0", "--vlan-mode", "trunk"]);
        let traced = good(&["trace", "br0", "in_port=p0,dl_vlan=5,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01"]);
        assert!(traced.contains("forwarding to learned port"), "{traced}");
        assert_eq!(bad(&["fdb", "add", "br0", "v0", "5", "01:00:5e:00:00:01"]).0, Some(2), "a group is nowhere");
        assert_eq!(bad(&["fdb", "del", "br0", "5", "02:00:00:00:00:02"]).0, Some(3));
        good(&["fdb", "del", "br0", "5", "02:00:00:00:00:01"]);
        assert_eq!(good(&["fdb", "show", "br0"]), head);
        good(&["del-port", "br0", "v0"]);
        good(&["del-port", "br0", "v0", "--if-exists"]);
        good(&["del-br", "br0"]);
        assert!(!good(&["show"]).contains("br0"));
    });
}

/// The kernel takes the tag off a frame before a packet socket sees it, and says it beside.
#[test]
fn a_capture_shows_the_tags_that_were_on_the_wire() {
    use std::sync::atomic::AtomicBool;

    use dvr::capture::socket::{Selection, run};
    use dvr::capture::{file, pcapng};

    support::in_namespace("a_capture_shows_the_tags_that_were_on_the_wire", || {
        let _switch = Running::start();
        support::ip("link add v0 type veth peer name v1");
        support::ip("link add w0 type veth peer name w1");
        for end in ["v0", "v1", "w0"] {
            let path = format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6");
            std::fs::write(path, "1").expect("it is ours: nothing but the machine's frames crosses it");
            support::ip(&format!("link set {end} up"));
        }
        good(&["add-br", "br0"]);
        good(&["add-port", "br0", "v0"]);
        good(&["add-port", "br0", "w0", "--tag", "7"]);
        let mut out = Vec::new();
        let selection = Selection { interfaces: vec!["v1".to_owned()], count: Some(1) };
        let mut sink = pcapng::Writer::new(&mut out).expect("memory takes all");
        // Once it is up, the kernel looks for routers and for its own address by it.
        let begun = || drop(support::ip("link set w1 up"));
        let seen = run(&selection, &mut sink, &AtomicBool::new(false), begun).expect("root of its namespace");
        assert_eq!((seen.frames, seen.lost), (1, 0));
        let frames = file::read(out.as_slice()).expect("what was written");
        assert_eq!(frames[0].octets.get(12..16), Some(&[0x81, 0, 0, 7][..]), "{:02x?}", frames[0].octets);
    });
}

/// Numbers that look random and are the same on every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).expect("small")).expect("small")
    }

    fn one_of(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len())]
    }

    /// A line of a file of flows, few enough different ones that two files share some.
    fn flow(&mut self) -> String {
        let table = self.one_of(&["", "table=0,", "table=1,", "table=20,"]);
        let priority = self.one_of(&["", "priority=0,", "priority=7,", "priority=32768,"]);
        let matching = self.one_of(&[
            "",
            "in_port=1,",
            "ip,",
            "ip,nw_dst=10.1.2.3/8,",
            "tcp,tp_dst=80,",
            "tcp6,ipv6_dst=fd00::/8,",
            "arp,arp_op=1,arp_tpa=10.0.0.1,",
            "icmp6,icmp_type=135,nd_target=fd00::1,",
            "dl_vlan=5,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,",
            "vlan_tci=0x1005/0x1fff,reg0=1,",
            "tun_id=0x10,metadata=0x1/0xf,",
        ]);
        let rest =
            self.one_of(&["", "cookie=0x1,", "cookie=77,idle_timeout=5,", "hard_timeout=300,", "send_flow_rem,"]);
        let actions = self.one_of(&[
            "drop",
            "output:2",
            "NORMAL",
            "mod_vlan_vid:5,resubmit(,20)",
            "strip_vlan,set_tunnel:0x64,output:3",
            "learn(table=20,hard_timeout=300,priority=1,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])",
            "load:0x2->NXM_NX_REG1[],move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],IN_PORT",
        ]);
        format!("{table}{priority}{matching}{rest}actions={actions}\n")
    }
}

/// Open vSwitch keeps no order among the flows of a table, so lines are compared as a set.
#[test]
fn files_differ_as_the_real_ovs_ofctl_says() {
    let ours = |one: &str, two: &str| {
        let (output, out, err) = dvr(&["diff-flows", one, two]);
        assert_eq!(err, "");
        (output.status.code(), out)
    };
    #[expect(clippy::disallowed_methods, reason = "Open vSwitch is the oracle")]
    let theirs = |one: &str, two: &str| Command::new("ovs-ofctl").args(["diff-flows", one, two]).output();
    if theirs("/dev/null", "/dev/null").is_err() {
        println!("ovs-ofctl is not installed: only the recorded cases are compared");
        return;
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut differing = 0;
    for round in 0..100 {
        let mut text = || -> String { (0..12).map(|_| numbers.flow()).collect() };
        let one = file("real-one", text());
        let two = file("real-two", text());
        let (code, out) = ours(&one, &two);
        let output = theirs(&one, &two).expect("it ran before");
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(sorted(&out), sorted(&said), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(code, output.status.code(), "round {round}");
        differing += out.lines().count();
    }
    assert!(differing > 1_000, "{differing} lines only");
}
