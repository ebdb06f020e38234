//! Machines that ask: a DHCP client (Debian: udhcpc), a router discovery client (ndisc6), and the kernel, which takes the MTU
//! of an advertisement. Where a client is not installed a line says so, and it is left out; with `DVR_REQUIRE_PEERS=1`, as in
//! CI, that is a failure.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/user.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod user;

use std::os::unix::fs::PermissionsExt;

use user::User;

const TOPOLOGY: &str = "version: 1
nodes: {node1: {}, node2: {}}
networks:
  blue: {type: vxlan, mtu: 1432, subnets: [{cidr: 10.1.0.0/24, gateway: 10.1.0.254}, {cidr: 'fd00:1::/64'}]}
  lonely: {type: vxlan, subnets: [{cidr: 10.2.0.0/24}]}
  silent: {type: vxlan, subnets: [{cidr: 10.3.0.0/24, advertise: false}]}
routers: {r1: {distributed: true, interfaces: [blue]}}
vms:
  blue1: {node: node1, network: blue, ips: [10.1.0.11, 'fd00:1::11']}
  lonely1: {node: node1, network: lonely, ips: [10.2.0.11]}
  silent1: {node: node1, network: silent, ips: [10.3.0.11]}
  blue2: {node: node2, network: blue, ips: [10.1.0.12, 'fd00:1::12']}
";

/// Prints what a client was given, a name and a value a line.
const SCRIPT: &str = "#!/bin/sh
[ \"$1\" = bound ] && for name in ip subnet router mtu serverid lease; do eval echo $name \\$$name; done
exit 0
";

fn is_installed(program: &str, package: &str) -> bool {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).chain(["/usr/sbin".into(), "/sbin".into()]);
    let installed = found.into_iter().any(|dir| dir.join(program).is_file());
    if !installed {
        let missing = format!("{program} is not installed (Debian: {package}): not tried with it");
        assert!(std::env::var_os("DVR_REQUIRE_PEERS").is_none(), "{missing}");
        println!("{missing}");
    }
    installed
}

fn up(user: &User) {
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, TOPOLOGY).expect("a file that a plain user may read");
    user.up(Some(&file));
    std::fs::remove_file(&file).expect("our file");
}

/// Runs the DHCP client on a machine once; what it was given, or nothing.
fn lease(user: &User, machine: &str) -> Vec<(String, String)> {
    let script = std::env::temp_dir().join(format!("{}.sh", user.lab));
    std::fs::write(&script, SCRIPT).expect("our script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("our script");
    let path = script.to_str().expect("UTF-8");
    let client = ["udhcpc", "-f", "-q", "-n", "-t", "3", "-T", "1", "-i", "eth0", "-O", "mtu", "-s", path];
    let output = user.run(&[&["lab", "exec", machine, "--"], &client[..]].concat());
    std::fs::remove_file(&script).expect("our script");
    let given = String::from_utf8(output.stdout).expect("text");
    let pair = |line: &str| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned()));
    given.lines().filter_map(pair).collect()
}

#[test]
fn a_dhcp_client_is_given_its_address_and_mtu() {
    if !is_installed("udhcpc", "udhcpc") {
        return;
    }
    let told = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    for user in User::everybody("dhcp") {
        up(&user);
        let blue = [
            ("ip", "10.1.0.11"),
            ("subnet", "255.255.255.0"),
            ("router", "10.1.0.254"),
            ("mtu", "1432"),
            ("serverid", "10.1.0.254"),
            ("lease", "3600"),
        ];
        assert_eq!(lease(&user, "blue1"), told(&blue));
        let lonely = lease(&user, "lonely1");
        assert_eq!(lonely[0], ("ip".to_owned(), "10.2.0.11".to_owned()));
        assert!(lonely.iter().all(|(name, _)| name != "router"), "no router is on its network: {lonely:?}");
        assert_eq!(lease(&user, "silent1"), Vec::new(), "who is told nothing was told something");
        // The router's replica is where the machine is, and so is who answers: nothing has crossed the wire.
        let asked = user.good(&["dump-flows", "node2/br-int"]);
        assert!(asked.lines().filter(|flow| flow.contains("tp_dst=67")).all(|flow| flow.contains("n_packets=0")));
    }
}

#[test]
fn a_machine_that_solicits_routers_is_told_the_mtu() {
    if !is_installed("rdisc6", "ndisc6") {
        return;
    }
    for user in User::everybody("ra") {
        up(&user);
        let shell = |line: &str| user.good(&["lab", "exec", "blue1", "--", "sh", "-c", line]);
        // The agent would set these right at once: the machine is to know nothing but what it is told.
        user.good(&["lab", "kill", "node1", "agent"]);
        let conf = "/proc/sys/net/ipv6/conf/eth0";
        shell(&format!("ip link set eth0 mtu 1500; echo 2 > {conf}/accept_ra"));
        assert_eq!(shell(&format!("cat {conf}/mtu")).trim(), "1500");
        // One advertisement, from the router's link-local address.
        let said = shell("PATH=$PATH:/sbin:/usr/sbin rdisc6 -1 eth0");
        let has = |words: &[&str]| said.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(has(&["MTU", "1432"]) && has(&["Prefix", "fd00:1::/64"]), "{said}");
        assert!(has(&["Router lifetime", "0 "]) && has(&["from fe80::"]), "{said}");
        assert_eq!(shell(&format!("cat {conf}/mtu")).trim(), "1432", "the kernel has taken it");
    }
}
