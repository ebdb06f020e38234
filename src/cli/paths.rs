//! The ways to other nodes, as readers are told of them: a line of `dvr show`, findings of `dvr doctor`.

use super::doctor::{Finding, Verdict};
use super::error::CliError;
use super::target::{self, Site};
use crate::api::agent::{PeerPath, Request, Room, Show};
use crate::lab::Daemon;

/// What a node's agent finds when it tries the ways.
///
/// # Errors
/// When it does not answer.
pub(super) fn ask(site: &Site) -> Result<Vec<PeerPath>, CliError> {
    target::ask(site, Daemon::Agent, &Request::Paths)
}

/// One way, in words.
#[must_use]
pub(super) fn text(path: &PeerPath) -> String {
    let needed = path.needed;
    let answer = match path.answered_micros {
        Some(micros) => format!("answers in {micros} µs"),
        None => "does not answer".to_owned(),
    };
    let room = match &path.room {
        Room::Enough if needed > 0 => format!(", {needed} octets pass"),
        Room::Enough | Room::Unknown => String::new(),
        Room::Interface { mtu } => format!(", {needed} octets do not pass: this node's interface takes {mtu}"),
        Room::Hop { hop, mtu } => format!(", {needed} octets do not pass: {hop} takes {mtu}"),
        Room::Silent { passes } => format!(", {needed} octets vanish on the way, {passes} pass"),
    };
    format!("{answer}{room}")
}

/// What is to be said of a node's tunnels and their ways: one finding if all is well, one for each way that is not.
#[must_use]
pub(super) fn findings(site: &Site) -> Vec<Finding> {
    let what = format!("tunnels of {}", site.node);
    let asked = target::ask(site, Daemon::Agent, &Request::Show).and_then(|show: Show| Ok((show, ask(site)?)));
    let (show, paths) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            let remedy = "start its agent, or see its log";
            return vec![Finding::bad(&what, Verdict::Limited, error.to_string(), remedy)];
        }
    };
    let mut findings: Vec<Finding> = paths.iter().filter_map(|path| trouble(&site.node, path)).collect();
    let mut by = format!("by {}, {}", show.tunnel_backend, show.tunnels_why);
    for network in &show.networks {
        if let Some(mtu) = network.narrowed {
            by.push_str(&format!("; senders on {} are told to send {mtu} octets at most", network.name));
        }
    }
    if findings.is_empty() {
        let most = paths.iter().map(|path| path.needed).max().unwrap_or(0);
        let ways = format!("{by}; {} of {} nodes answer, {most} octets pass", paths.len(), show.peers.len());
        findings.push(Finding::ok(&what, ways));
    } else {
        findings.insert(0, Finding::ok(&what, by));
    }
    findings
}

/// What is wrong with a way, if something is.
fn trouble(node: &str, path: &PeerPath) -> Option<Finding> {
    let (what, needed) = (format!("{node} to {}", path.node), path.needed);
    let smaller = |mtu: u32| format!("or have `underlay: {{mtu: {mtu}}}` in the topology");
    let remedy = match &path.room {
        Room::Enough => return None,
        Room::Interface { mtu } => {
            format!("give the interface that leads to {} an MTU of {needed}, {}", path.tunnel_ip, smaller(*mtu))
        }
        Room::Hop { hop, mtu } => format!("give the link behind {hop} an MTU of {needed}, {}", smaller(*mtu)),
        Room::Silent { passes } => {
            let among = "a bridge, card or veth pair between them has a smaller MTU: give each";
            format!("{among} {needed}, {}", smaller(*passes))
        }
        Room::Unknown if path.answered_micros.is_some() => return None,
        Room::Unknown => "see whether that node is up, and whether something between them drops ICMP".to_owned(),
    };
    Some(Finding::bad(&what, Verdict::Limited, format!("{} {}", path.tunnel_ip, text(path)), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hop_that_is_too_small_is_named() {
        let path = |answered_micros, room| PeerPath {
            node: "node2".to_owned(),
            tunnel_ip: [10, 0, 0, 2].into(),
            needed: 1550,
            answered_micros,
            room,
        };
        let hop = Room::Hop { hop: [10, 0, 9, 1].into(), mtu: 1480 };
        for (path, found, remedy) in [
            (path(Some(70), Room::Interface { mtu: 1500 }), "this node's interface takes 1500", "mtu: 1500"),
            (path(Some(70), hop), "1550 octets do not pass: 10.0.9.1 takes 1480", "link behind 10.0.9.1"),
            (path(Some(70), Room::Silent { passes: 1492 }), "1550 octets vanish on the way, 1492 pass", "mtu: 1492"),
            (path(None, Room::Unknown), "does not answer", "is up"),
        ] {
            let told = trouble("node1", &path).expect("trouble");
            assert!(told.found.contains(found) && told.remedy.contains(remedy), "{told:?}");
        }
        assert_eq!(trouble("node1", &path(Some(70), Room::Enough)), None);
        assert_eq!(text(&path(Some(70), Room::Enough)), "answers in 70 µs, 1550 octets pass");
    }
}
