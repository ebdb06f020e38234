//! A whole lab, by the very program a user runs: up, looked into, tested, down; as whoever runs the tests, and as a plain
//! user if that is root, and with the kernel fast path where that can be had.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/fast.rs"]
mod fast;
#[path = "support/user.rs"]
mod user;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use user::User;

/// Whether a process is there; one that only waits for this machine's init to reap it is not.
fn lives(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Processes of this machine whose command line holds a text.
fn processes(text: &str) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(text) && line.contains("lab-init")).collect()
}

#[test]
fn the_example_works_and_leaves_nothing() {
    for user in fast::every_way("example") {
        let told = user.up(None);
        for word in ["node1", "node2", "blue1", "10.2.0.20", "first ping", "dvr lab down"] {
            assert!(told.contains(word), "`lab up` does not tell of {word}:\n{told}");
        }
        assert!(!told.contains("NO REPLY"), "{told}");
        let again = user.run(&["lab", "up"]);
        assert_eq!(again.status.code(), Some(1), "a second lab of the same name was started");

        let report = user.json(&["lab", "test", "-o", "json"]);
        assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}");
        assert_eq!(report["reach"], 12, "four VMs, all reach all others");
        assert_eq!(report["gateways"], 4);

        let listed = user.run_bare(&["lab", "ls", "-o", "json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let ours = listed.as_array().and_then(|labs| labs.iter().find(|lab| lab["name"] == user.lab.as_str()));
        let pid = &ours.expect("our lab is listed")["pid"];
        assert!(lives(pid));

        assert!(user.good(&["lab", "down"]).contains("is down"));
        assert_eq!(processes(&user.lab), Vec::<String>::new(), "processes are left");
        assert!(!lives(pid), "the lab's init is left");
        for root in ["/run/dvr/labs".to_owned(), format!("/tmp/dvr-{}/labs", user::NOBODY)] {
            assert!(!Path::new(&root).join(&user.lab).exists(), "files are left under {root}");
        }
        assert!(user.good(&["lab", "down"]).contains("is not there"), "a second down is as good");
    }
}

/// Ctrl-C while a large lab starts: its exit code says so, and neither process nor file is left.
#[test]
fn a_start_that_is_interrupted_leaves_nothing() {
    let user = User::new("interrupt", nix::unistd::geteuid().is_root());
    let uid = if user.plain { user::NOBODY } else { nix::unistd::geteuid().as_raw() };
    let dir = format!("/tmp/dvr-{uid}/labs/{}", user.lab);
    let large = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/topologies/large.yaml");
    let copy = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::copy(large, &copy).expect("a copy that a plain user may read");
    let mut command = user.command(&["lab", "up", &copy.display().to_string(), "--name", &user.lab]);
    let mut child = command.env_remove("XDG_RUNTIME_DIR").spawn().expect("the program starts");
    while !Path::new(&dir).exists() {
        assert_eq!(child.try_wait().expect("our child"), None, "it ended before it had begun");
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("our child is there");
    assert_eq!(child.wait().expect("our child").code(), Some(130));
    std::fs::remove_file(&copy).expect("our copy");
    assert!(!Path::new(&dir).exists(), "files are left in {dir}");
    // Its processes end by themselves, perhaps a moment after their lab.
    while !processes(&user.lab).is_empty() {
        std::thread::yield_now();
    }
}

/// A command in a machine, when the program that runs it is told a signal to pass on, asked to end, or killed outright.
/// Output: the command does not outlive it. (Not SIGINT: in the background of a shell all inherit it ignored.)
#[test]
fn a_command_ends_with_who_runs_it() {
    use nix::sys::signal::{Signal, kill};
    let user = User::new("ends", false);
    user.up(None);
    for (turn, signal) in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        let seconds = format!("{}{turn}", std::process::id());
        let words = ["lab", "exec", "blue1", "--name", &user.lab, "--", "sleep", &seconds];
        let mut child = user.command(&words).spawn().expect("the program starts");
        let sleeps = || {
            let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
            let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
            lines.filter(|line| *line == format!("sleep\0{seconds}\0").into_bytes()).count()
        };
        while sleeps() == 0 {
            assert_eq!(child.try_wait().expect("our child"), None, "{signal}: it ended before it had begun");
            std::thread::yield_now();
        }
        kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("process ids fit")), signal).expect("it runs");
        child.wait().expect("our child");
        // Killed by the kernel, it takes a moment.
        while sleeps() > 0 {
            std::thread::yield_now();
        }
    }
}

/// The topologies that come with the program: all pairs, both families, tenants with the same addresses.
#[test]
fn every_example_keeps_its_promises() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/topologies");
    for (file, reach, isolated) in [("dual-stack", 24, 0), ("tenants", 12, 18), ("large", 748, 1_000)] {
        for user in fast::every_way(file) {
            let text = std::fs::read_to_string(dir.join(file).with_extension("yaml")).expect("an example");
            // Where a plain user may read it, too.
            let copy = std::env::temp_dir().join(format!("{}.yaml", user.lab));
            std::fs::write(&copy, text).expect("a copy");
            user.up(Some(&copy));
            std::fs::remove_file(&copy).expect("our copy");
            let report = user.json(&["lab", "test", "-o", "json"]);
            assert_eq!(report["failures"], Value::Array(Vec::new()), "{file}");
            assert_eq!(report["reach"], reach, "{file}");
            assert_eq!(report["isolated"], isolated, "{file}");
        }
    }
}

/// A cut wire is noticed: a test that cannot fail proves nothing.
#[test]
fn a_cut_wire_fails_the_test_until_it_is_healed() {
    for user in fast::every_way("cut") {
        user.up(None);
        user.good(&["lab", "cut", "node1", "node2"]);
        let output = user.run(&["lab", "test", "-o", "json"]);
        assert_eq!(output.status.code(), Some(1));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let failures = report["failures"].as_array().expect("a list").len();
        assert_eq!(failures, 8, "each of four VMs misses the two on the other node: {report}");
        user.good(&["lab", "heal", "node1", "node2"]);
        user.good(&["lab", "test"]);
    }
}

#[test]
fn the_router_is_the_same_on_every_node() {
    for user in User::everybody("router") {
        user.up(None);
        let ports = |node: &str| -> BTreeMap<String, (String, Vec<String>)> {
            let links = user.exec_json(&format!("{node}/r1"), &["ip", "-j", "addr"]);
            let links = links.as_array().expect("a list").clone();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let port = |link: &Value| {
                let addresses = link["addr_info"].as_array().cloned().unwrap_or_default();
                let global = addresses.iter().filter(|address| address["scope"] == "global");
                (
                    text(&link["ifname"]),
                    (text(&link["address"]), global.map(|address| text(&address["local"])).collect()),
                )
            };
            links.iter().map(port).filter(|(name, _)| name.starts_with("qr-")).collect()
        };
        assert_eq!(ports("node1"), ports("node2"));
        assert_eq!(ports("node1").len(), 2, "one interface a network");
        for node in ["node1", "node2"] {
            let neighbours = user.exec_json(&format!("{node}/r1"), &["ip", "-j", "neigh"]);
            let neighbours = neighbours.as_array().expect("a list");
            assert!(neighbours.len() >= 4, "{neighbours:?}");
            for neighbour in neighbours {
                assert_eq!(neighbour["state"], serde_json::json!(["PERMANENT"]), "{neighbour}");
            }
            let named = user.good(&["lab", "exec", node, "--", "ip", "netns"]);
            assert!(named.contains("qrouter-"), "`ip netns` shows: {named}");
        }
    }
}

#[test]
fn commands_run_where_they_are_told() {
    for user in User::everybody("exec") {
        user.up(None);
        assert_eq!(user.good(&["lab", "exec", "blue1", "--", "hostname"]), "blue1\n");
        assert_eq!(user.good(&["lab", "exec", "node2", "--", "hostname"]), "node2\n");
        let code = |words: &[&str]| {
            let all: Vec<&str> = ["lab", "exec", "blue1", "--"].into_iter().chain(words.iter().copied()).collect();
            user.run(&all).status.code()
        };
        assert_eq!(code(&["sh", "-c", "exit 7"]), Some(7));
        assert_eq!(code(&["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
        assert_eq!(code(&["no-such-command"]), Some(127));
        let nowhere = user.run(&["lab", "exec", "green9", "--", "true"]);
        assert_eq!(nowhere.status.code(), Some(3));
        let told = String::from_utf8_lossy(&nowhere.stderr).into_owned();
        assert!(told.contains("blue1") && told.contains("node1/r1"), "what there is instead is not told: {told}");
        let ping = user.good(&["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "2", "10.2.0.20"]);
        assert!(ping.contains("ttl=63"), "one router, one hop less: {ping}");
    }
}

#[test]
fn readers_speak_json_and_yaml() {
    for user in User::everybody("read") {
        user.up(None);
        let shown = user.json(&["show", "-o", "json"]);
        let nodes: Vec<&str> =
            shown.as_array().expect("a list").iter().filter_map(|node| node["node"].as_str()).collect();
        assert_eq!(nodes, ["node1", "node2"]);
        assert!(user.good(&["show", "node1"]).contains("Bridge br-int"));
        assert!(user.good(&["show", "-o", "yaml"]).contains("node: node1"));
        for reader in ["fdb", "arp", "neigh"] {
            let rows = user.json(&[reader, "-o", "json"]);
            assert!(!rows.as_array().expect("a list").is_empty(), "`dvr {reader}` shows nothing");
        }
        let flows = user.good(&["dump-flows", "node1/br-tun"]);
        assert!(flows.lines().all(|line| line.starts_with(" cookie=") && line.contains(" actions=")), "{flows}");
        let dumps = user.json(&["dump-flows", "node1/br-tun", "--json"]);
        assert_eq!(dumps[0]["flows"].as_array().map(Vec::len), Some(flows.lines().count()));
        assert_eq!(user.run(&["dump-flows", "node1/no-such"]).status.code(), Some(3));
    }
}

#[test]
fn flows_can_be_added_and_removed() {
    let user = User::new("flows", false);
    user.up(None);
    let count = || user.good(&["dump-flows", "node1/br-int", "table=200"]).lines().count();
    assert_eq!(count(), 0);
    user.good(&["add-flow", "node1/br-int", "table=200,priority=7,ip,nw_dst=192.0.2.1,actions=drop"]);
    assert_eq!(count(), 1);
    user.good(&["del-flows", "node1/br-int", "table=200,ip"]);
    assert_eq!(count(), 0);
    assert_eq!(user.run(&["add-flow", "node1/br-int", "no such flow"]).status.code(), Some(2));
    assert_eq!(user.run(&["add-flow", "br-int", "actions=drop"]).status.code(), Some(2), "which node is not said");
}

#[test]
fn a_killed_daemon_is_missed_and_comes_back() {
    for user in fast::every_way("kill") {
        user.up(None);
        assert!(user.good(&["lab", "kill", "node1", "all"]).contains("agent"));
        assert_eq!(user.run(&["show", "node1"]).status.code(), Some(1), "its daemons are gone");
        user.good(&["lab", "restart", "node1", "all"]);
        user.good(&["show", "node1"]);
        let parents = user.good(&["lab", "exec", "node1", "--", "ps", "-C", "dvr", "-o", "ppid=,args="]);
        let orphans = parents.lines().filter(|line| line.contains("dvr agent") || line.contains("dvr switch"));
        assert!(
            orphans.clone().count() == 4 && orphans.clone().all(|line| !line.trim().starts_with("0 ")),
            "not the lab's own: {parents}"
        );
    }
}

/// Input: a file applied to a running lab, its controller killed and started anew, a wrong file. Output: a machine comes,
/// one moves, one goes, all while the lab runs; without a controller everything forwards; what is wrong changes nothing.
#[test]
fn a_running_lab_is_changed_by_applying_a_file() {
    let user = User::new("live", nix::unistd::geteuid().is_root());
    user.up(None);
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    let path = file.display().to_string();
    let write = |vms: &str| {
        let text = format!(
            "version: 1
nodes:    {{node1: {{}}, node2: {{}}}}
networks: {{blue: {{subnets: [{{cidr: 10.1.0.0/24}}]}}, orange: {{subnets: [{{cidr: 10.2.0.0/24}}]}}}}
routers:  {{r1: {{interfaces: [blue, orange]}}}}
vms:      {{blue1: {{node: node1, network: blue}}, {vms}}}
"
        );
        std::fs::write(&file, text).expect("a file");
    };
    let kept = |reach: u64| {
        // What was applied is on its way to the agents.
        let report = std::iter::repeat_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            user.run(&["lab", "test", "-o", "json"])
        });
        let good = report.take(200).find(|output| output.status.success()).expect("it becomes as promised");
        let report: Value = serde_json::from_slice(&good.stdout).expect("JSON");
        assert_eq!(report["reach"], reach, "{report}");
    };
    write("blue3: {node: node2, network: blue}, orange1: {node: node1, network: orange, ip: 10.2.0.20}");
    let told = user.good(&["apply", "-f", &path, "--prune"]);
    for line in ["+ port `blue3`", "~ port `orange1`: node node2 → node1", "- port `blue2`", "- port `orange2`"] {
        assert!(told.contains(line), "{told}");
    }
    kept(6);
    assert!(
        user.good(&["diff", "-f", &path, "--prune"]).contains("nothing to change"),
        "a second time changes nothing"
    );

    assert!(user.good(&["lab", "kill", "controller"]).contains("killed"));
    assert_eq!(user.run(&["get", "nodes"]).status.code(), Some(3), "nobody answers");
    kept(6);
    user.good(&["lab", "restart", "controller"]);
    let ports = user.json(&["get", "ports", "-o", "json"]);
    assert_eq!(ports.as_array().map(Vec::len), Some(3), "{ports}");
    user.good(&["delete", "vm", "blue3"]);
    kept(2);

    write("x: {node: node2, network: blue, ip: 10.1.0.2}");
    let refused = user.run(&["apply", "-f", &path]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains(&format!("{path}:5:")) && told.contains("10.1.0.2"), "{told}");
    std::fs::remove_file(&file).expect("ours");
}
