//! One node made to match: observe, plan, apply, verify.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::api::switch::{Request, Show};
use crate::control::ControlError;
use crate::link::LinkOp;
use crate::model::view::{Attachment, NodeView};
use crate::netns::{NetnsName, Ownership, PORTS_NETNS};
use crate::plan::kernel::Kernel;
use crate::plan::monitor::Monitor;
use crate::plan::{self, Checked, KernelSpec, KernelState, Op};
use crate::program::{self, local_vlans};
use crate::types::IfName;

use super::desired::Desired;
use super::kernel_spec::kernel_spec;
use super::switch::Switch;
use super::switch_spec::{self, BridgeSpec};
use super::vlans::{self, Vlans};
use super::{AgentConfig, Attach, Attachment as Wish, flows, provider_spec};

/// Rounds of kernel, switch, kernel… in one pass. Two make a node from nothing and a third finds nothing to do; what
/// takes more is being changed by somebody else meanwhile.
const ROUNDS_MAX: usize = 5;

/// Errors kept of one pass: the first say what is wrong.
const ERRORS_MAX: usize = 64;

/// What the node holds, or is to hold.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) view: NodeView,
    pub(super) vlans: Vlans,
    pub(super) attach: Attach,
}

/// What one pass came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) operations: usize,
    pub(super) errors: Vec<String>,
}

impl Outcome {
    fn fails(&mut self, error: impl ToString) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error.to_string());
        }
    }
}

/// The node: its desired state and the ways to its kernel and its switch.
pub(super) struct Node<D> {
    config: AgentConfig,
    desired: D,
    kernel: Kernel,
    monitor: Monitor,
    switch: Switch,
    ownership: Ownership,
    vlans: Vlans,
    view: Option<NodeView>,
    attach: Option<Attach>,
}

impl<D: Desired> Node<D> {
    pub(super) fn new(
        config: AgentConfig,
        desired: D,
        (kernel, monitor): (Kernel, Monitor),
        switch: Switch,
        vlans: Vlans,
    ) -> Self {
        let ownership = Ownership::agent();
        Self { config, desired, kernel, monitor, switch, ownership, vlans, view: None, attach: None }
    }

    /// What is to be held, once it is known.
    pub(super) fn held(&self) -> Option<Held> {
        let (view, attach) = (self.view.clone()?, self.attach?);
        Some(Held { view, vlans: self.vlans.clone(), attach })
    }

    /// Waits until the kernel tells of a change.
    pub(super) async fn drift(&mut self) {
        match self.monitor.next().await {
            Ok(pulse) => tracing::trace!(?pulse, "drift"),
            // The look that follows meets the same trouble, and tells.
            Err(error) => tracing::debug!(%error, "cannot listen for drift"),
        }
    }

    /// The switch is another, or gone: the next pass asks anew.
    pub(super) fn switch_lost(&mut self) {
        self.switch.close();
    }

    /// Whether what is desired is known to be another since the last [`Self::reload`].
    pub(super) fn has_news(&self) -> bool {
        self.desired.has_news()
    }

    /// Asks for desired state.
    ///
    /// # Errors
    /// As the source says; what was desired before still is.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        let view = self.desired.view().map_err(|error| error.to_string())?;
        let vlans = local_vlans(&self.vlans, view.networks.iter().map(|network| network.id));
        let vlans = vlans.map_err(|error| error.to_string())?;
        if vlans != self.vlans {
            // Written before they are used: a crash in between must not renumber a network that carries frames.
            vlans::save(&self.config.run_dir, &vlans).map_err(|error| error.to_string())?;
            self.vlans = vlans;
        }
        self.view = Some(view);
        Ok(())
    }

    /// The kernel as it is.
    ///
    /// # Errors
    /// When there is nothing desired yet, or the kernel cannot be read whole.
    pub(super) async fn observe(&mut self) -> Result<KernelState, String> {
        let spec = self.kernel_spec()?;
        self.kernel.observe(&spec).await.map_err(|error| error.to_string())
    }

    fn kernel_spec(&self) -> Result<Checked, String> {
        let (Some(view), Some(attach)) = (&self.view, self.attach) else {
            return Err("the agent does not know yet what the node is to hold: wait for it".to_owned());
        };
        let spec: KernelSpec = kernel_spec(view, attach).map_err(|error| error.to_string())?;
        spec.check().map_err(|error| error.to_string())
    }

    /// Makes the node match, in as many rounds as it takes.
    pub(super) async fn converge(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(error) = self.settle(&mut outcome).await {
            outcome.fails(error);
        }
        outcome
    }

    async fn settle(&mut self, outcome: &mut Outcome) -> Result<(), String> {
        let hello = self.switch.hello().map_err(|error| error.to_string())?;
        let refused = hello.tap_refused.as_deref();
        self.attach = Some(attach(self.config.attachment, refused)?);
        let spec = self.kernel_spec()?;
        for round in 0..ROUNDS_MAX {
            let before = outcome.operations;
            let lost = self.kernel_step(&spec, outcome).await?;
            // What changes before this listens is met by the next round: there is one after each that did something.
            self.monitor.watch(&spec).map_err(|error| error.to_string())?;
            self.switch_step(round, &lost, outcome).map_err(|error| error.to_string())?;
            if outcome.operations == before || !outcome.errors.is_empty() {
                return Ok(());
            }
        }
        Err(format!("the node did not settle in {ROUNDS_MAX} rounds: somebody else changes it at the same time"))
    }

    /// Brings the kernel to `spec`. Returns the ports whose interfaces are not there, or not the ones they were.
    async fn kernel_step(&mut self, spec: &Checked, outcome: &mut Outcome) -> Result<BTreeSet<IfName>, String> {
        let observed = self.kernel.observe(spec).await.map_err(|error| error.to_string())?;
        let plan = plan::diff(spec, &observed, &self.ownership);
        for blocked in &plan.blocked {
            outcome.fails(blocked);
        }
        let lost = self.lost_ports(&plan);
        if plan.is_empty() {
            // Awaited links are the switch's to make, in this round.
            if plan.awaited.is_empty()
                && let Err(drifts) = plan::verify(spec, &observed)
            {
                drifts.iter().for_each(|drift| outcome.fails(drift));
            }
            return Ok(lost);
        }
        for op in &plan.ops {
            tracing::debug!(%op, "kernel");
        }
        match self.kernel.apply(&plan).await {
            Ok(applied) => outcome.operations += applied.done,
            Err(failure) => {
                outcome.operations += failure.done;
                failure.failures.iter().for_each(|failed| outcome.fails(failed));
            }
        }
        Ok(lost)
    }

    fn lost_ports(&self, plan: &plan::Plan) -> BTreeSet<IfName> {
        let mut ports = BTreeMap::new();
        for vm in self.view.iter().flat_map(|view| &view.networks).flat_map(|network| &network.local_ports) {
            if let Attachment::Netns { netns, ifname } = &vm.attach {
                ports.insert((netns.clone(), ifname.clone()), vm.port.clone());
            }
        }
        let port_of = |netns: &NetnsName, link: &IfName| {
            let at = (netns.to_string(), link.clone());
            // A router's port bears its interface's name, and so does the outer end of every veth pair.
            ports.get(&at).cloned().unwrap_or_else(|| link.clone())
        };
        let remade = plan.ops.iter().filter_map(|op| match op {
            Op::Link(netns, LinkOp::CreateVeth { name, peer, .. }) if netns.to_string() == PORTS_NETNS => {
                Some(port_of(netns, name)).filter(|_| !peer.as_str().is_empty())
            }
            Op::Link(netns, LinkOp::CreateVeth { name, .. }) => Some(port_of(netns, name)),
            Op::Link(..) | Op::Netns(_) | Op::Sysctl(..) | Op::Bridge(..) | Op::Neigh(..) | Op::Route(..) => None,
        });
        plan.awaited.iter().map(|(netns, link)| port_of(netns, link)).chain(remade).collect()
    }

    /// Brings the switch to what is desired: ports, then the flows of each bridge at one instant, then ports that no
    /// flow names any more.
    fn switch_step(
        &mut self,
        round: usize,
        lost: &BTreeSet<IfName>,
        outcome: &mut Outcome,
    ) -> Result<(), ControlError> {
        let Some(Held { view, vlans, attach }) = self.held() else { return Ok(()) };
        let netns_dir = self.config.netns_dir.clone();
        let bridges = |view: &NodeView| switch_spec::bridges(view, &vlans, attach, &netns_dir);
        let mut spec = match bridges(&view) {
            Ok(spec) => spec,
            Err(error) => {
                outcome.fails(error);
                return Ok(());
            }
        };
        let mut show: Show = self.switch.show()?;
        // What failed right after it was made fails again: once is enough, the rest is for the next pass.
        let mut broken = faults(&spec, &show);
        if round > 0 {
            broken.iter().for_each(|(port, fault)| outcome.fails(format!("port {port} carries nothing: {fault}")));
            broken.clear();
        }
        let lost = lost.iter().cloned().chain(broken.into_keys()).collect();
        let requests = switch_spec::preparation(&spec, &show, &lost);
        if !requests.is_empty() {
            let failed = self.ask_all(&requests, outcome)?;
            if !failed.is_empty() {
                // The rest of the node works without them.
                match bridges(&without(&view, &failed)) {
                    Ok(less) => spec = less,
                    Err(error) => outcome.fails(error),
                }
            }
            show = self.switch.show()?;
        }
        for bridge in &spec {
            self.flow_step(bridge, &show, outcome)?;
        }
        let stale = switch_spec::removals(&spec, &show);
        self.ask_all(&stale, outcome)?;
        Ok(())
    }

    fn flow_step(&mut self, bridge: &BridgeSpec, show: &Show, outcome: &mut Outcome) -> Result<(), ControlError> {
        let ports = show.bridges.iter().find(|there| there.name == bridge.name).map_or(&[][..], |there| &there.ports);
        let observed = self.switch.flows(&bridge.name)?;
        let changes = match flows::changes(&bridge.flows, &observed, ports) {
            Ok(changes) => changes,
            Err(error) => {
                outcome.fails(format!("{}: {error}", bridge.name));
                return Ok(());
            }
        };
        if changes.is_empty() {
            return Ok(());
        }
        let count = changes.len();
        tracing::debug!(bridge = %bridge.name, changes = count, "flows");
        match self.switch.change(&bridge.name, changes) {
            Ok(()) => outcome.operations += count,
            Err(error) if error.refusal().is_some() => outcome.fails(format!("flows of {}: {error}", bridge.name)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Asks each thing; what is refused is told, and the ports it concerns are returned.
    fn ask_all(&mut self, requests: &[Request], outcome: &mut Outcome) -> Result<BTreeSet<IfName>, ControlError> {
        let mut failed = BTreeSet::new();
        for request in requests {
            tracing::debug!(?request, "switch");
            match self.switch.ask(request) {
                Ok(()) => outcome.operations += 1,
                Err(error) if error.refusal().is_some() => {
                    outcome.fails(error);
                    if let Request::AddPort { port, .. } = request {
                        failed.insert(port.name.clone());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(failed)
    }
}

/// How ports are attached, given what is wished and why the switch makes no TAPs, if it does not.
fn attach(wish: Wish, tap_refused: Option<&str>) -> Result<Attach, String> {
    match (wish, tap_refused) {
        (Wish::Auto | Wish::Tap, None) => Ok(Attach::Tap),
        (Wish::Auto, Some(_)) | (Wish::Veth, _) => Ok(Attach::Veth),
        (Wish::Tap, Some(why)) => {
            Err(format!("ports are to be TAPs, and the switch cannot make any: {why}; allow it, or use veth"))
        }
    }
}

/// Wanted ports that are there and carry nothing, each with the reason.
fn faults(spec: &[BridgeSpec], show: &Show) -> BTreeMap<IfName, String> {
    let wanted = |name: &IfName| spec.iter().any(|bridge| bridge.ports.contains_key(name));
    show.bridges
        .iter()
        .flat_map(|bridge| &bridge.ports)
        .filter(|port| wanted(&port.config.name))
        .filter_map(|port| Some((port.config.name.clone(), port.fault.clone()?)))
        .collect()
}

/// The view without what is behind these ports.
fn without(view: &NodeView, ports: &BTreeSet<IfName>) -> NodeView {
    let mut view = view.clone();
    provider_spec::without(&mut view, ports);
    let endpoints: BTreeMap<String, IpAddr> =
        view.peers.iter().map(|peer| (peer.name.clone(), peer.tunnel_ip)).collect();
    for network in &mut view.networks {
        let tunnel = |ip: &IpAddr| Some(program::tunnel_port(network.segment.kind().tunnel()?, *ip));
        let cut = |node: &String| endpoints.get(node).and_then(tunnel).is_some_and(|port| ports.contains(&port));
        network.local_ports.retain(|vm| !ports.contains(&vm.port));
        network.remote_ports.retain(|port| !cut(&port.node));
        network.flood.retain(|node| !cut(node));
    }
    for router in &mut view.routers {
        router.interfaces.retain(|port| !ports.contains(&port.ifname));
    }
    view
}
