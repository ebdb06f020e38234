//! `dvr doctor`: what this kernel and user can do, what is missing, how to get it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::args::ReadArgs;
use super::error::{CliError, DONE, FAILED};
use super::{output, paths, probe, target};
use crate::fastpath::kernel::FastPath;
use crate::lab::{self, Daemon};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It goes without, and the finding says how.
    Limited,
    /// `dvr` does not work without.
    Missing,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub what: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

impl Finding {
    /// A finding in which nothing is wrong.
    pub(super) fn ok(what: &str, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    /// A finding that has a remedy.
    pub(super) fn bad(what: &str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.to_owned(), verdict, found: found.into(), remedy: remedy.into() }
    }
}

/// `dvr doctor`. The exit code is 1 if something is missing that `dvr` cannot do without. Nodes are looked at if a lab or
/// node is named, or if this host is one.
///
/// # Errors
/// When there is no such node, or the output cannot be written.
pub(super) fn doctor(args: &ReadArgs) -> Result<u8, CliError> {
    let mut findings = vec![machine(), namespaces(), tun()];
    findings.extend(probe::findings());
    findings.push(bpf());
    findings.extend(PROGRAMS.iter().map(program));
    if args.name.is_some() || args.node.is_some() || target::host().is_some() {
        let sites = target::sites(args.name.as_ref(), args.node.as_deref())?;
        findings.extend(sites.iter().filter(|site| !site.has_no(Daemon::Agent)).flat_map(paths::findings));
    }
    output::render(args.output.output, &findings, |findings| findings.iter().map(line).collect())?;
    let missing = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    Ok(if missing { FAILED } else { DONE })
}

fn line(finding: &Finding) -> String {
    let mark = match finding.verdict {
        Verdict::Ok => "ok     ",
        Verdict::Limited => "limited",
        Verdict::Missing => "MISSING",
    };
    let mut out = format!("{mark}  {:<18} {}\n", finding.what, finding.found);
    if !finding.remedy.is_empty() {
        out.push_str(&format!("{:28}→ {}\n", "", finding.remedy));
    }
    out
}

fn sysctl(key: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(key)).ok().map(|text| text.trim().to_owned())
}

fn machine() -> Finding {
    let release = sysctl("kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let who =
        if nix::unistd::geteuid().is_root() { "root".to_owned() } else { format!("uid {}", nix::unistd::geteuid()) };
    Finding::ok("kernel", format!("Linux {release}, as {who}"))
}

fn namespaces() -> Finding {
    const WHAT: &str = "user namespaces";
    let root = nix::unistd::geteuid().is_root();
    match lab::user_namespace_refused() {
        None => {
            Finding::ok(WHAT, if root { "allowed, and not needed by root" } else { "allowed: labs run without root" })
        }
        Some(error) => {
            let verdict = if root { Verdict::Limited } else { Verdict::Missing };
            Finding::bad(WHAT, verdict, format!("refused: {error}"), lab::namespace_remedy())
        }
    }
}

fn tun() -> Finding {
    const WHAT: &str = "/dev/net/tun";
    let path = Path::new(WHAT);
    let fallback = "labs attach VMs by veth and packet socket instead, with the same offloads";
    match fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Finding::ok(WHAT, "may be opened: ports are TAPs"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let remedy = "`sudo modprobe tun`, or build the kernel with CONFIG_TUN";
            Finding::bad(WHAT, Verdict::Limited, format!("not there; {fallback}"), remedy)
        }
        Err(error) => {
            let mode = fs::metadata(path).map_or(0, |meta| meta.permissions().mode() & 0o777);
            let remedy = "`sudo chmod 0666 /dev/net/tun` until the next boot; for good, the udev rule \
                 `KERNEL==\"tun\", MODE=\"0666\"` in /etc/udev/rules.d/90-tun.rules, or OWNER or GROUP of your own";
            Finding::bad(WHAT, Verdict::Limited, format!("mode {mode:04o}, opening it: {error}; {fallback}"), remedy)
        }
    }
}

fn bpf() -> Finding {
    const WHAT: &str = "BPF";
    match FastPath::load() {
        Ok(_) => Finding::ok(WHAT, "programs can be loaded: --fast-path on has the kernel carry frames"),
        Err(error) if !nix::unistd::geteuid().is_root() => {
            Finding::ok(WHAT, format!("not for this user, so no fast path; all else works: {error}"))
        }
        Err(error) => {
            let remedy = "the kernel needs CONFIG_BPF_SYSCALL, and this process the rights of the machine's own root";
            Finding::bad(WHAT, Verdict::Limited, format!("no fast path, all else works: {error}"), remedy)
        }
    }
}

/// Programs that `dvr` itself never runs, what each is good for, and the package it is in.
const PROGRAMS: [(&str, &str, &str); 5] = [
    ("ip", "looking into namespaces", "iproute2"),
    ("ping", "`dvr lab exec VM -- ping`", "iputils-ping"),
    ("tcpdump", "watching packets", "tcpdump"),
    ("iperf3", "measuring throughput", "iperf3"),
    ("nft", "reading packet filters", "nftables"),
];

fn program((name, purpose, package): &(&str, &str, &str)) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let found = std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => Finding::ok(name, format!("{}, for {purpose}", path.display())),
        None => Finding::bad(
            name,
            Verdict::Limited,
            format!("not installed; dvr does without, it is for {purpose}"),
            format!("`sudo apt install {package}`"),
        ),
    }
}
