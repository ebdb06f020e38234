//! `dvr add-br`, `del-br`, `add-port`, `del-port`, `set-port` and `fdb show|add|del|flush`: bridges of a user's own.

use std::path::PathBuf;

use super::args::Output;
use super::bridge_args::{
    AddBridgeArgs, AddPortArgs, DelBridgeArgs, DelPortArgs, FdbArgs, FdbCommand, Kind, SetPortArgs, VlanArgs, Vlans,
};
use super::error::{CliError, DONE};
use super::target::{self, Site};
use super::{output, tables};
use crate::api::switch::{FdbEntry, PortConfig, PortKind, Request, VlanMode};
use crate::lab::Daemon;
use crate::wire;

/// The port number that means the bridge itself (`OFPP_LOCAL`, OpenFlow 1.0 §5.2.1), as fdb/show prints it.
const LOCAL: (u32, &str) = (65_534, "LOCAL");

/// `dvr add-br`. A bridge that is there in the same mode is as good.
///
/// # Errors
/// When the switch refuses.
pub(super) fn add_bridge(args: &AddBridgeArgs) -> Result<u8, CliError> {
    let (site, bridge) = target::one_bridge(args.name.as_ref(), &args.bridge)?;
    tell(&site, &Request::AddBridge { bridge, mode: args.mode.into() })
}

/// `dvr del-br`.
///
/// # Errors
/// When there is none, unless that is as good.
pub(super) fn del_bridge(args: &DelBridgeArgs) -> Result<u8, CliError> {
    let (site, bridge) = target::one_bridge(args.name.as_ref(), &args.bridge)?;
    tolerate(tell(&site, &Request::DelBridge { bridge }), args.if_exists, "unknown-bridge")
}

/// `dvr add-port`. Prints nothing; a port that is there with the same configuration is as good.
///
/// # Errors
/// When the options do not fit the type, or the switch refuses.
pub(super) fn add_port(args: &AddPortArgs) -> Result<u8, CliError> {
    let port = PortConfig { name: args.port.clone(), kind: kind(args)?, vlan: vlans(&args.vlan)?, router: None };
    let (site, bridge) = target::one_bridge(args.name.as_ref(), &args.bridge)?;
    tell(&site, &Request::AddPort { bridge, port })
}

/// `dvr del-port`.
///
/// # Errors
/// When there is none, unless that is as good.
pub(super) fn del_port(args: &DelPortArgs) -> Result<u8, CliError> {
    let (site, bridge) = target::one_bridge(args.name.as_ref(), &args.bridge)?;
    let port = args.port.clone();
    tolerate(tell(&site, &Request::DelPort { bridge, port }), args.if_exists, "unknown")
}

/// `dvr set-port`.
///
/// # Errors
/// When nothing is said to be set, or the switch refuses.
pub(super) fn set_port(args: &SetPortArgs) -> Result<u8, CliError> {
    let VlanArgs { tag, trunks, vlan_mode } = &args.vlan;
    if tag.is_none() && trunks.is_empty() && vlan_mode.is_none() {
        return Err(CliError::Usage("say what to set: --tag, --trunks or --vlan-mode".to_owned()));
    }
    let vlan = vlans(&args.vlan)?;
    let (site, bridge) = target::one_bridge(args.name.as_ref(), &args.bridge)?;
    tell(&site, &Request::SetPort { bridge, port: args.port.clone(), vlan })
}

/// `dvr fdb`.
///
/// # Errors
/// When a daemon cannot be asked, or refuses.
pub(super) fn fdb(args: &FdbArgs) -> Result<u8, CliError> {
    let Some(command) = &args.command else { return tables::forwardings(&args.read) };
    match command {
        FdbCommand::Show { bridge, name, output } => {
            let (site, bridge) = target::one_bridge(name.as_ref(), bridge)?;
            show(&target::ask(&site, Daemon::Switch, &Request::Fdb { bridge })?, output.output)
        }
        FdbCommand::Add { bridge, port, vlan, mac, name } => {
            let (site, bridge) = target::one_bridge(name.as_ref(), bridge)?;
            tell(&site, &Request::PinFdb { bridge, port: port.clone(), vlan: *vlan, mac: *mac })
        }
        FdbCommand::Del { bridge, vlan, mac, name } => {
            let (site, bridge) = target::one_bridge(name.as_ref(), bridge)?;
            tell(&site, &Request::UnpinFdb { bridge, vlan: *vlan, mac: *mac })
        }
        FdbCommand::Flush { bridge, name } => {
            let (site, bridge) = target::one_bridge(name.as_ref(), bridge)?;
            tell(&site, &Request::FlushFdb { bridge })
        }
    }
}

/// The addresses as `ovs-appctl fdb/show` prints them.
fn show(entries: &Vec<FdbEntry>, form: Output) -> Result<u8, CliError> {
    output::render(form, entries, |entries| {
        let mut out = String::from(" port  VLAN  MAC                Age\n");
        for entry in entries {
            let port = if entry.port == LOCAL.0 { LOCAL.1.to_owned() } else { entry.port.to_string() };
            let age = if entry.pinned { "static".to_owned() } else { format!("{:3}", entry.age_secs) };
            out.push_str(&format!("{port:>5}  {:4}  {}  {age}\n", entry.vlan, entry.mac));
        }
        out
    })
}

fn tell(site: &Site, request: &Request) -> Result<u8, CliError> {
    let _done: serde_json::Value = target::ask(site, Daemon::Switch, request)?;
    Ok(DONE)
}

/// Takes a refusal whose code begins with `code` for success, if `tolerant`.
fn tolerate(done: Result<u8, CliError>, tolerant: bool, code: &str) -> Result<u8, CliError> {
    match done {
        Err(CliError::Daemon { source, .. })
            if tolerant && source.refusal().is_some_and(|refusal| refusal.code.starts_with(code)) =>
        {
            Ok(DONE)
        }
        other => other,
    }
}

fn kind(args: &AddPortArgs) -> Result<PortKind, CliError> {
    let AddPortArgs { kind, peer, remote, local, udp_port, netns, device, mac, .. } = args;
    let given = [
        ("--peer", peer.is_some(), [Kind::Patch].as_slice()),
        ("--remote", remote.is_some(), &[Kind::Vxlan]),
        ("--local", local.is_some(), &[Kind::Vxlan]),
        ("--udp-port", udp_port.is_some(), &[Kind::Vxlan]),
        ("--netns", netns.is_some(), &[Kind::Tap, Kind::Packet]),
        ("--device", device.is_some(), &[Kind::Tap, Kind::Packet]),
        ("--mac", mac.is_some(), &[Kind::Tap]),
    ];
    let name = match kind {
        Kind::Packet => "packet",
        Kind::Tap => "tap",
        Kind::Patch => "patch",
        Kind::Vxlan => "vxlan",
    };
    if let Some((option, ..)) = given.iter().find(|(_, is_given, kinds)| *is_given && !kinds.contains(kind)) {
        return Err(CliError::Usage(format!(
            "a port of type {name} has no {option}: leave it out, or give another --type"
        )));
    }
    let missing = |option: &str| CliError::Usage(format!("a port of type {name} needs {option}"));
    let netns = netns.as_ref().map(|netns| netns_path(netns));
    Ok(match kind {
        Kind::Packet => PortKind::Packet { netns, device: device.clone(), fast: false },
        Kind::Tap => PortKind::Tap { netns, device: device.clone(), mac: *mac },
        Kind::Patch => PortKind::Patch { peer: peer.clone().ok_or_else(|| missing("--peer"))? },
        Kind::Vxlan => PortKind::Vxlan {
            remote: remote.ok_or_else(|| missing("--remote"))?,
            local: local.ok_or_else(|| missing("--local"))?,
            udp_port: udp_port.unwrap_or(wire::vxlan::PORT),
        },
    })
}

/// Where a namespace is: where iproute2 puts those with a name (ip-netns(8)).
fn netns_path(netns: &str) -> PathBuf {
    if netns.contains('/') { PathBuf::from(netns) } else { PathBuf::from("/run/netns").join(netns) }
}

fn vlans(args: &VlanArgs) -> Result<VlanMode, CliError> {
    let VlanArgs { tag, trunks, vlan_mode } = args;
    let mode = vlan_mode.unwrap_or(if tag.is_some() { Vlans::Access } else { Vlans::Trunk });
    let wrong = |what: &str| Err(CliError::Usage(what.to_owned()));
    let trunks = trunks.clone();
    Ok(match (mode, *tag) {
        (Vlans::Access, Some(tag)) if trunks.is_empty() => VlanMode::Access(tag),
        (Vlans::Access, Some(_)) => {
            return wrong("an access port has one VLAN: leave out --trunks, or give --vlan-mode native-untagged");
        }
        (Vlans::Trunk, None) if trunks.is_empty() => VlanMode::Trunk,
        (Vlans::Trunk, None) => VlanMode::Trunks(trunks),
        (Vlans::Trunk, Some(_)) => {
            return wrong("a trunk port has no VLAN of its own: leave out --tag, or give --vlan-mode native-untagged");
        }
        (Vlans::NativeTagged, Some(tag)) => VlanMode::NativeTagged { tag, trunks },
        (Vlans::NativeUntagged, Some(tag)) => VlanMode::Native { tag, trunks },
        (Vlans::Access | Vlans::NativeTagged | Vlans::NativeUntagged, None) => {
            return wrong("which VLAN untagged frames are in is not said: give --tag");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::VlanId;

    fn vlan(number: u32) -> VlanId {
        VlanId::new(number).expect("in range")
    }

    #[test]
    fn vlans_follow_from_the_options_as_in_ovs() {
        let of = |tag: Option<u32>, trunks: &[u32], vlan_mode| {
            let trunks = trunks.iter().map(|number| vlan(*number)).collect();
            vlans(&VlanArgs { tag: tag.map(vlan), trunks, vlan_mode })
        };
        let (one, two) = (vlan(1), vlan(2));
        assert_eq!(of(None, &[], None).expect("all"), VlanMode::Trunk);
        assert_eq!(of(None, &[1, 2], None).expect("some"), VlanMode::Trunks(vec![one, two]));
        assert_eq!(of(Some(1), &[], None).expect("one"), VlanMode::Access(one));
        assert_eq!(
            of(Some(1), &[2], Some(Vlans::NativeUntagged)).expect("both"),
            VlanMode::Native { tag: one, trunks: vec![two] }
        );
        assert_eq!(
            of(Some(1), &[], Some(Vlans::NativeTagged)).expect("both"),
            VlanMode::NativeTagged { tag: one, trunks: Vec::new() }
        );
        for (tag, trunks, mode) in [
            (Some(1), [2].as_slice(), None),
            (Some(1), &[], Some(Vlans::Trunk)),
            (None, &[], Some(Vlans::Access)),
            (None, &[1], Some(Vlans::NativeTagged)),
        ] {
            assert!(of(tag, trunks, mode).is_err(), "{tag:?} {trunks:?} {mode:?}");
        }
    }
}
