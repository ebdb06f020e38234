//! What a switch answers to its clients.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::table::Table;
use super::worker::{self, Stale, WorkerLink};
use super::{Shared, lock};
use crate::api::switch::{Bridge, BridgeMode, FlowChange, Hello, PASSING_MAX, Port, Request, Show};
use crate::api::{self, Refusal};
use crate::clock;
use crate::control::{Reply, Service};
use crate::datapath::port::{PortError, tap};
use crate::datapath::{self, DropReason, FlowBook, PortView, SwitchError, TraceInput};
use crate::types::{IfName, Mac};

/// The greatest VLAN of a frame (IEEE 802.1Q-2018 table 9-2).
const VLAN_MAX: u16 = 4094;

/// How long a client that asks for notices waits for one at most.
const NOTICE_WAIT: Duration = Duration::from_secs(5);

/// Why a request is refused, before it becomes an answer.
pub(super) struct SwitchRefusal(Refusal);

pub(super) fn refused(code: &str, message: String) -> SwitchRefusal {
    SwitchRefusal(Refusal { message, code: code.to_owned() })
}

impl From<SwitchError> for SwitchRefusal {
    fn from(error: SwitchError) -> Self {
        let code = match &error {
            SwitchError::UnknownBridge(_) => "unknown-bridge",
            SwitchError::UnknownPort { .. } => "unknown-port",
            SwitchError::BridgeExists(_) | SwitchError::PortExists { .. } => "exists",
            SwitchError::UnknownStation { .. } => "unknown-station",
            SwitchError::TooManyBridges(_) | SwitchError::TableFull { .. } | SwitchError::StationsFull { .. } => {
                "limit"
            }
            SwitchError::BadNumber { .. } | SwitchError::Taken { .. } => "taken",
            SwitchError::BadFlow { .. } | SwitchError::Overlap { .. } | SwitchError::BadFilter(_) => "bad-flow",
        };
        refused(code, error.to_string())
    }
}

impl From<PortError> for SwitchRefusal {
    fn from(error: PortError) -> Self {
        refused("kernel", error.to_string())
    }
}

impl From<Stale> for SwitchRefusal {
    fn from(stale: Stale) -> Self {
        refused("busy", stale.to_string())
    }
}

/// The switch, to its clients.
#[derive(Debug)]
pub(super) struct SwitchService {
    shared: Arc<Shared>,
    links: Arc<[WorkerLink]>,
    /// Changes of bridges and ports, one at a time.
    table: Mutex<Table>,
    instance: String,
}

impl SwitchService {
    pub(super) fn new(shared: Arc<Shared>, links: Arc<[WorkerLink]>) -> Self {
        // The kernel makes a random one at every read; a process id and a clock are nearly as good.
        let instance = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_or_else(
            |_| format!("{}-{}", std::process::id(), clock::monotonic().as_nanos()),
            |text| text.trim().to_owned(),
        );
        Self { shared, links, table: Mutex::new(Table::default()), instance }
    }

    fn hello(&self) -> Hello {
        Hello {
            version: api::VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            instance: self.instance.clone(),
            workers: self.links.len(),
            tap_refused: tap::probe(),
        }
    }

    fn show(&self) -> Result<Show, SwitchRefusal> {
        let cache = super::refresh(&self.shared, &self.links)?;
        let mut table = lock(&self.table);
        let overruns = table.overruns(clock::monotonic());
        let (views, mut drops, routers) = {
            let switch = lock(&self.shared.switch);
            (switch.bridges(), switch.drops(), switch.routers())
        };
        for reason in DropReason::ALL {
            let count: u64 = self.shared.drops.iter().map(|drops| drops.get(reason)).sum();
            if count != 0 {
                *drops.entry(reason.name().to_owned()).or_default() += count;
            }
        }
        if overruns != 0 {
            *drops.entry(DropReason::Overrun.name().to_owned()).or_default() += overruns;
        }
        let none = BTreeMap::new();
        let bridges = views.into_iter().map(|view| {
            let known = table.bridges.get(&view.name).unwrap_or(&none);
            let port = |there: PortView| {
                let port = known.get(&there.name)?;
                // What crosses a patch or goes past a router never leaves the engine, which counts it.
                let mut counters = there.counters;
                port.add_counters(&mut counters);
                let fast_path = port.line().and_then(|line| self.shared.fast.state(line.dp));
                let (number, config, fault) = (there.number, port.config.clone(), port.fault());
                Some(Port { number, config, counters, fault, fast_path })
            };
            let ports = view.ports.into_iter().filter_map(port).collect();
            Bridge { name: view.name, mode: view.mode, flows: view.flows, ports, revision: view.revision }
        });
        let fast_path = self.shared.fast.counters();
        let passing = BTreeMap::clone(&lock(&self.shared.passing));
        Ok(Show { bridges: bridges.collect(), drops, cache, fast_path, routers, passing })
    }

    fn pass(&self, octets: BTreeMap<IpAddr, u32>) -> Result<(), SwitchRefusal> {
        if octets.len() > PASSING_MAX {
            let message =
                format!("{} endpoints with what passes to them, and {PASSING_MAX} are the most", octets.len());
            return Err(refused("limit", message));
        }
        let octets = Arc::new(octets);
        // Told under the lock, so that the workers' last word is the one that is kept.
        let mut passing = lock(&self.shared.passing);
        worker::pass(&self.links, &octets);
        *passing = octets;
        Ok(())
    }

    fn add_bridge(&self, bridge: IfName, mode: BridgeMode) -> Result<(), SwitchRefusal> {
        let mut table = lock(&self.table);
        let mut switch = lock(&self.shared.switch);
        match switch.bridges().into_iter().find(|view| view.name == bridge) {
            Some(view) if view.mode == mode => {}
            Some(_) => {
                let message = format!("bridge {bridge} exists in another mode: remove it first");
                return Err(refused("exists", message));
            }
            None => switch.add_bridge(&bridge, mode)?,
        }
        table.bridges.entry(bridge).or_default();
        Ok(())
    }

    fn pin(&self, bridge: &IfName, port: &IfName, vlan: u16, mac: Mac) -> Result<(), SwitchRefusal> {
        if vlan > VLAN_MAX {
            return Err(refused("bad-vlan", format!("there is no VLAN {vlan}: give 1 to {VLAN_MAX}, or 0 for none")));
        }
        if mac.is_multicast() {
            return Err(refused("bad-mac", format!("{mac} is a group's address, which is behind no port")));
        }
        Ok(lock(&self.shared.switch).pin(bridge, port, (vlan, mac), clock::monotonic())?)
    }

    /// Makes a bridge's flows these; what takes long is done while packets still find the tables.
    fn replace(&self, bridge: &IfName, flows: Vec<String>) -> Result<usize, SwitchRefusal> {
        let views = lock(&self.shared.switch).bridges();
        let unknown = || SwitchError::UnknownBridge(bridge.clone());
        let view = views.into_iter().find(|view| view.name == *bridge).ok_or_else(unknown)?;
        let mut book = FlowBook::new(view.ports.into_iter().map(|port| (port.number, port.name)))?;
        book.change(&flows.into_iter().map(FlowChange::Add).collect::<Vec<_>>())?;
        let wanted = book.flows(false)?;
        Ok(datapath::replace_flows(&self.shared.switch, bridge, &wanted, clock::monotonic())?)
    }

    fn obey(&self, request: Request) -> Result<Reply, SwitchRefusal> {
        let switch = || lock(&self.shared.switch);
        Ok(match request {
            Request::Hello { .. } => Reply::of(&self.hello()),
            Request::AddBridge { bridge, mode } => Reply::of(&self.add_bridge(bridge, mode)?),
            Request::DelBridge { bridge } => {
                let mut table = lock(&self.table);
                switch().del_bridge(&bridge)?;
                table.forget_bridge(&bridge, &self.shared, &self.links);
                Reply::of(&())
            }
            Request::AddPort { bridge, port } => {
                Reply::of(&lock(&self.table).add(&bridge, port, &self.shared, &self.links)?)
            }
            Request::DelPort { bridge, port } => {
                lock(&self.table).remove(&bridge, &port, &self.shared, &self.links)?;
                Reply::of(&())
            }
            Request::SetPort { bridge, port, vlan } => {
                lock(&self.table).set_vlan(&bridge, &port, vlan, &self.shared)?;
                Reply::of(&())
            }
            Request::Show => Reply::of(&self.show()?),
            Request::Flows { bridge, changes } => {
                Reply::of(&datapath::change_flows(&self.shared.switch, &bridge, &changes, clock::monotonic())?)
            }
            Request::ReplaceFlows { bridge, flows } => Reply::of(&self.replace(&bridge, flows)?),
            Request::SyncFlows { bridge, cookie, flows } => {
                let wanted = (cookie, flows.as_str());
                Reply::of(&datapath::sync_flows(&self.shared.switch, &bridge, wanted, clock::monotonic())?)
            }
            Request::DumpFlows { bridge, filter, names } => {
                super::refresh(&self.shared, &self.links)?;
                Reply::of(&datapath::dump_flows(&self.shared.switch, &bridge, &filter, names, clock::monotonic())?)
            }
            Request::Trace { bridge, flow, frame, generate } => {
                let input = TraceInput::of(flow, frame).map_err(|error| refused("bad-flow", error.to_string()))?;
                Reply::of(&switch().trace(&bridge, &input, generate, clock::monotonic())?)
            }
            Request::Follow { bridge, port, tunnel, frame } => {
                Reply::of(&switch().follow(&bridge, &port, (tunnel, &frame), clock::monotonic())?)
            }
            Request::FastPath => {
                self.shared.fast.engage();
                Reply::of(&())
            }
            Request::Passing { octets } => Reply::of(&self.pass(octets)?),
            Request::Offloaded { most } => {
                super::refresh(&self.shared, &self.links)?;
                Reply::of(&self.shared.fast.list(most, clock::monotonic()))
            }
            Request::Notices { wait_millis, heard, standing } => {
                let wait = Duration::from_millis(wait_millis).min(NOTICE_WAIT);
                Reply::of(&self.shared.notices.take(heard, standing.as_ref(), wait))
            }
            Request::Fdb { bridge } => {
                super::refresh(&self.shared, &self.links)?;
                Reply::of(&switch().fdb(&bridge, clock::monotonic())?)
            }
            Request::PinFdb { bridge, port, vlan, mac } => Reply::of(&self.pin(&bridge, &port, vlan, mac)?),
            Request::UnpinFdb { bridge, vlan, mac } => Reply::of(&switch().unpin(&bridge, vlan, mac)?),
            Request::FlushFdb { bridge } => {
                // What the caches still hold of frames seen before is credited before, not after.
                super::refresh(&self.shared, &self.links)?;
                Reply::of(&switch().flush_fdb(&bridge)?)
            }
        })
    }
}

impl Service for SwitchService {
    type Request = Request;

    fn greeting(&self, request: &Request) -> Option<u32> {
        if let Request::Hello { version } = request { Some(*version) } else { None }
    }

    fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        let answer = self.obey(request);
        // Whoever hears that something changed finds it changed in the kernel too.
        self.shared.fast.revalidate();
        self.shared.notices.look(&self.shared.switch);
        answer.map_err(|SwitchRefusal(refusal)| refusal)
    }
}
