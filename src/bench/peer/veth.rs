//! A veth pair for each way, between two machines and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use crate::netns::{Name, NetnsName};
use crate::plan::{KernelSpec, NamespaceSpec};
use crate::route::RouteSpec;

use super::super::Error;
use super::super::addresses::{MTU, Station};
use super::super::measure::Way;
use super::super::scene;
use super::super::traffic::End;

/// The pairs.
pub(super) struct Veth;

const fn device(way: Way) -> &'static str {
    match way {
        Way::Routed => "eth0",
        Way::Bridged => "eth1",
        Way::Local => "eth2",
    }
}

impl Veth {
    pub(super) fn build() -> Result<Self, Error> {
        let name = |station: Station| -> NetnsName {
            Name::new(station.name()).unwrap_or_else(|bad| unreachable!("a short word: {bad}")).into()
        };
        let (asker, _) = Way::Routed.ends();
        let mut first = NamespaceSpec::new(name(asker));
        let mut namespaces = Vec::new();
        for way in Way::ALL {
            let (from, to) = way.ends();
            let device = scene::ifname(device(*way));
            let ends = ((device.clone(), name(from)), (device.clone(), name(to)));
            let (mut one, mut other) = scene::pair(ends.0, ends.1, MTU);
            one.addresses = vec![scene::net(from.ip(), 32)];
            other.addresses = vec![scene::net(to.ip(), 32)];
            let route = |to: Station| RouteSpec {
                destination: scene::net(to.ip(), 32),
                gateway: None,
                ifname: Some(device.clone()),
            };
            first.links.push(one);
            first.routes.push(route(to));
            let mut last = NamespaceSpec::new(name(to));
            last.links.push(other);
            last.routes.push(route(from));
            namespaces.push(last);
        }
        namespaces.push(first);
        scene::apply(&KernelSpec { namespaces })?;
        Ok(Self)
    }
}

impl super::Peer for Veth {
    fn end(&self, station: Station) -> End {
        scene::end(station)
    }

    fn switches(&self) -> Vec<i32> {
        Vec::new()
    }

    fn wires(&self) -> Vec<(PathBuf, &'static str)> {
        let ends = Way::ALL.iter().map(|way| (way, way.ends()));
        ends.flat_map(|(way, (from, to))| [(from, device(*way)), (to, device(*way))])
            .map(|(station, device)| (scene::netns_path(station.name()), device))
            .collect()
    }

    fn forget(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn program(&mut self, _ports: u32) -> Result<Option<Duration>, Error> {
        Ok(None)
    }
}
