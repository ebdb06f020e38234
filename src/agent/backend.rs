//! What makes a node's tunnels: as asked, or chosen by trying what can be had here.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

use super::{FastPath, Tunnels};
use crate::api::switch::{PortKind, Show};
use crate::datapath::port::{self, PortError};
use crate::model::view::{Backend, NodeView, TunnelKind};
use crate::netlink::{Connection, Error};
use crate::netns::TUNNELS_NETNS;
use crate::types::{IfName, Vni};
use crate::{gre, vxlan, wire};

/// What a node's tunnels are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    local: IpAddr,
    udp_port: u16,
    kinds: BTreeSet<TunnelKind>,
}

impl Needs {
    pub(super) fn of(view: &NodeView) -> Self {
        let kinds = view.networks.iter().filter_map(|network| network.segment.kind().tunnel()).collect();
        Self { local: view.node.tunnel_ip, udp_port: view.vxlan_port, kinds }
    }
}

/// What makes the tunnels, for what needs, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) needs: Needs,
    pub(super) backend: Backend,
    pub(super) why: String,
}

/// Chooses. What is asked for is not tried first: what cannot be made says so when it is.
pub(super) fn choose(wish: (Tunnels, FastPath), needs: Needs, netns_dir: &Path, show: &Show) -> Choice {
    let (backend, why) = match wish {
        (Tunnels::Kernel, _) => (Backend::Kernel, "as asked".to_owned()),
        (Tunnels::Userspace, _) => (Backend::Userspace, "as asked".to_owned()),
        (Tunnels::Auto, FastPath::On) => by_fast_path(by_the_kernel(&needs)),
        (Tunnels::Auto, FastPath::Off) => {
            // Whoever changes what works interrupts it.
            let kept = netns_dir.join(TUNNELS_NETNS).exists();
            decide(kept, || by_the_switch(&needs, show), || by_the_kernel(&needs))
        }
    };
    Choice { needs, backend, why }
}

/// The choice under the fast path, which sends by interfaces, given whether the kernel's devices can be had.
fn by_fast_path(kernel: Result<(), String>) -> (Backend, String) {
    match kernel {
        Ok(()) => {
            (Backend::Kernel, "chosen: the fast path sends by interfaces, not by the switch's sockets".to_owned())
        }
        Err(error) => {
            (Backend::Userspace, format!("chosen: what is tunnelled has no fast path, for the kernel: {error}"))
        }
    }
}

/// The choice among what can be had.
fn decide(
    kept: bool,
    switch: impl FnOnce() -> Result<(), String>,
    kernel: impl Fn() -> Result<(), String>,
) -> (Backend, String) {
    if kept && kernel().is_ok() {
        let why = "kept: this node's tunnels are devices already; `--tunnels userspace` replaces them";
        return (Backend::Kernel, why.to_owned());
    }
    let Err(refused) = switch() else {
        let why = "chosen: only the switch knows which node a frame is from";
        return (Backend::Userspace, why.to_owned());
    };
    match kernel() {
        Ok(()) => (Backend::Kernel, format!("chosen: the switch cannot: {refused}")),
        Err(error) => (Backend::Userspace, format!("neither can: the switch: {refused}; the kernel: {error}")),
    }
}

/// Whether the switch's sockets can be had: the port may be another's, raw sockets forbidden.
fn by_the_switch(needs: &Needs, show: &Show) -> Result<(), String> {
    for kind in &needs.kinds {
        let tried = match kind {
            TunnelKind::Vxlan if has_port(needs, show) => Ok(()),
            TunnelKind::Vxlan => port::vxlan::open(None, needs.local, needs.udp_port, 1).map(drop),
            TunnelKind::Gre => port::gre::open(None, needs.local, 1).map(drop),
        };
        match tried {
            // An address that is yet to come says nothing of what there will be.
            Err(PortError::Kernel { source, .. }) if source.kind() == std::io::ErrorKind::AddrNotAvailable => {}
            tried => tried.map_err(|error| error.to_string())?,
        }
    }
    Ok(())
}

/// Whether the switch has the UDP port already.
fn has_port(needs: &Needs, show: &Show) -> bool {
    show.bridges.iter().flat_map(|bridge| &bridge.ports).any(|port| {
        let same = matches!(&port.config.kind, PortKind::Vxlan { local, udp_port, .. }
            if (*local, *udp_port) == (needs.local, needs.udp_port));
        same && port.fault.is_none()
    })
}

/// Whether the kernel's devices can be made, tried in a namespace that ends with the trial.
fn by_the_kernel(needs: &Needs) -> Result<(), String> {
    let (kinds, v6) = (&needs.kinds, needs.local.is_ipv6());
    let trial = || -> Result<(), String> {
        // This thread's alone.
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("no namespace to try devices in: {errno}"))?;
        let mut connection = Connection::open().map_err(|error| error.to_string())?;
        for kind in kinds {
            try_tunnel(&mut connection, *kind, v6).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(trial).join())
        .unwrap_or_else(|_| unreachable!("a trial of devices does not panic"))
}

/// Makes a tunnel device as agents do, between addresses for documentation (RFC 5737, RFC 3849): with nothing given, a
/// `gretap` would be the one that each namespace is born with.
///
/// # Errors
/// The kernel's, which has no such devices, or forbids them.
pub(crate) fn try_tunnel(connection: &mut Connection, kind: TunnelKind, v6: bool) -> Result<(), Error> {
    const KEY: Vni = match Vni::new(1) {
        Ok(key) => key,
        Err(_) => unreachable!(),
    };
    let end = |last: u8| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)).into()
        } else {
            Ipv4Addr::new(192, 0, 2, last).into()
        }
    };
    let word = match kind {
        TunnelKind::Vxlan => "try-vxlan",
        TunnelKind::Gre if v6 => "try-ip6gretap",
        TunnelKind::Gre => "try-gretap",
    };
    let Ok(name) = IfName::new(word) else { unreachable!("words of at most thirteen letters") };
    match kind {
        TunnelKind::Vxlan => {
            let device = vxlan::DeviceSpec { vni: KEY, local: end(1), udp_port: wire::vxlan::PORT };
            vxlan::kernel::create(connection, &name, &device, None)
        }
        TunnelKind::Gre => {
            let device = gre::DeviceSpec { key: KEY, local: end(1), remote: end(2) };
            gre::kernel::create(connection, &name, &device, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_before_the_kernel_and_what_is_there_before_both() {
        let no = |why: &str| Err(why.to_owned());
        for (kept, switch, kernel, backend, word) in [
            (false, Ok(()), Ok(()), Backend::Userspace, "chosen: only the switch"),
            (false, Ok(()), no("no devices"), Backend::Userspace, "chosen: only the switch"),
            (false, no("port taken"), Ok(()), Backend::Kernel, "the switch cannot: port taken"),
            (false, no("port taken"), no("no devices"), Backend::Userspace, "port taken; the kernel: no devices"),
            (true, Ok(()), Ok(()), Backend::Kernel, "kept"),
            (true, Ok(()), no("no devices"), Backend::Userspace, "chosen: only the switch"),
        ] {
            let (chosen, why) = decide(kept, || switch.clone(), || kernel.clone());
            assert!(chosen == backend && why.contains(word), "{chosen:?}: {why}");
        }
    }

    #[test]
    fn without_devices_the_fast_path_leaves_tunnels_to_the_switch() {
        assert_eq!(by_fast_path(Ok(())).0, Backend::Kernel);
        let (backend, why) = by_fast_path(Err("no gretap".to_owned()));
        assert!(backend == Backend::Userspace && why.contains("no gretap"), "{why}");
    }
}
