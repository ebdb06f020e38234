//! One node made to match: observe, plan, apply, verify.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::switch::{Request, Show, Standing, Synced};
use crate::control::ControlError;
use crate::link::LinkOp;
use crate::model::view::{Backend, NodeView, ViewChange};
use crate::neigh::NeighbourChange;
use crate::netns::{NetnsName, Ownership, TUNNELS_NETNS};
use crate::plan::kernel::Kernel;
use crate::plan::monitor::{Monitor, Pulse};
use crate::plan::{self, Checked, KernelSpec, KernelState, Op, Plan};
use crate::program::{BR_INT, BR_TUN, fixed, local_vlans};
use crate::types::IfName;

use super::backend::{self, Choice, Needs};
use super::delta::{Bearers, Delta, EarlyFull, Extent};
use super::desired::{Desired, News};
use super::kernel_spec::{kernel_spec, router_links};
use super::known::Known;
use super::less::{faults, lost_ports, without};
use super::room::{self, Passing};
use super::switch::Switch;
use super::switch_spec::{self, attach};
use super::told::{self, Ahead, Told};
use super::vlans::{self, Vlans};
use super::{AgentConfig, Attach};

/// Rounds of kernel, switch, kernel… in one pass. Two make a node from nothing and a third finds nothing to do; what
/// takes more is being changed by somebody else meanwhile.
const ROUNDS_MAX: usize = 5;

/// Errors kept of one pass: the first say what is wrong.
const ERRORS_MAX: usize = 64;

/// What the node holds, or is to hold.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) view: Arc<NodeView>,
    pub(super) vlans: Vlans,
    pub(super) attach: Attach,
    /// Why its tunnels are made by what makes them.
    pub(super) tunnels_why: String,
    /// What passes to other nodes, where that is less than tunnels need.
    pub(super) passing: Passing,
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

/// A node that is as desired, and what changed since.
struct Following {
    bearers: Bearers,
    delta: Delta,
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
    /// Shared while flows are told ahead.
    view: Option<Arc<NodeView>>,
    attach: Option<Attach>,
    tunnels: Option<Choice>,
    passing: Passing,
    known: Known,
    /// The networks that routers' links are on, by namespace and ifindex.
    router_links: BTreeMap<(NetnsName, u32), String>,
    /// Whether the last whole pass left nothing to do.
    settled: bool,
    /// Set while changes may be made one by one.
    following: Option<Following>,
    /// What readers have yet to be told: everything, or these changes.
    untold: (bool, Vec<ViewChange>),
}

impl<D: Desired> Node<D> {
    pub(super) fn new(
        config: AgentConfig,
        desired: D,
        (kernel, monitor): (Kernel, Monitor),
        switch: Switch,
        vlans: Vlans,
    ) -> Self {
        Self {
            passing: room::load(&config.run_dir),
            config,
            desired,
            kernel,
            monitor,
            switch,
            ownership: Ownership::agent(),
            vlans,
            view: None,
            attach: None,
            tunnels: None,
            known: Known::default(),
            router_links: BTreeMap::new(),
            settled: false,
            following: None,
            untold: (false, Vec::new()),
        }
    }

    /// What is to be held, once it is known, if readers do not know it yet.
    pub(super) fn untold(&mut self) -> Option<Held> {
        let (view, attach) = (self.view.as_ref()?, self.attach?);
        let (whole, changes) = core::mem::take(&mut self.untold);
        let tunnels_why = self.tunnels.as_ref().map(|choice| choice.why.clone()).unwrap_or_default();
        let passing = self.passing.clone();
        let held = || Held { view: Arc::clone(view), vlans: self.vlans.clone(), attach, tunnels_why, passing };
        (whole || !changes.is_empty()).then(held)
    }

    /// The changes that readers do not know yet, after a pass that made only those.
    pub(super) fn untold_changes(&mut self) -> Vec<ViewChange> {
        core::mem::take(&mut self.untold.1)
    }

    /// Waits until the kernel tells of a change that is not what the node is to hold anyway.
    pub(super) async fn drift(&mut self) {
        loop {
            match self.monitor.next().await {
                Ok(Pulse::Neighbours(netns, changes)) if self.are_desired(&netns, &changes) => {}
                Ok(pulse) => return tracing::trace!(?pulse, "drift"),
                // The look that follows meets the same trouble, and tells.
                Err(error) => return tracing::debug!(%error, "cannot listen for drift"),
            }
        }
    }

    /// Whether neighbour entries of routers became what they are to be: then it was most likely this agent.
    fn are_desired(&self, netns: &NetnsName, changes: &[NeighbourChange]) -> bool {
        let (Some(view), Some(Following { bearers, .. })) = (&self.view, &self.following) else { return false };
        changes.iter().all(|change| {
            let Some(network) = self.router_links.get(&(netns.clone(), change.link)) else { return false };
            bearers.neighbour(view, network, change.ip) == change.permanent
        })
    }

    /// Other packets pass to the other nodes than did: the next pass makes tunnels take no larger ones.
    pub(super) fn passes(&mut self, passing: Passing) {
        tracing::info!(node = %self.config.node, narrow = %passing, "what passes to other nodes");
        self.passing = passing;
        self.untold.0 = true;
    }

    /// The switch is another, or gone: the next pass asks anew.
    pub(super) fn switch_lost(&mut self) {
        self.switch.close();
    }

    /// Whether what the switch says of itself is worth a look: somebody else changed it, or one of its ports failed.
    pub(super) fn is_disturbed(&mut self, standing: &Standing) -> bool {
        self.known.is_disturbed(standing)
    }

    /// Lets whoever desires know what the last pass came to.
    pub(super) fn came_to(&mut self, errors: &[String]) {
        self.desired.came_to(errors);
    }

    /// Asks for desired state.
    ///
    /// # Errors
    /// As the source says; what was desired before still is.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        match self.desired.news().map_err(|error| error.to_string())? {
            News::Whole(view) => {
                // What makes the tunnels goes on making them, if what they are to be is the same.
                let backend = self.tunnels.as_ref().map_or(view.backend, |choice| choice.backend);
                self.view = Some(Arc::new(NodeView { backend, ..*view }));
                self.untold = (true, Vec::new());
                self.forget_known();
                Ok(())
            }
            News::Changes(changes) => self.take(changes).map_err(|error| error.to_string()),
        }
    }

    /// Nothing is known to be as the view asks.
    fn forget_known(&mut self) {
        self.following = None;
        self.known.forget_all();
    }

    /// Takes changes into the view, and notes what comes of them as far as that can be told without a whole pass.
    fn take(&mut self, changes: Vec<ViewChange>) -> Result<(), EarlyFull> {
        let Some(view) = self.view.as_mut().map(Arc::make_mut) else { return Ok(()) };
        for change in changes {
            if !self.untold.0 {
                // Else everything is to be told anyway.
                self.untold.1.push(change.clone());
            }
            let extent = match &mut self.following {
                Some(Following { bearers, delta }) => bearers.take(view, &self.vlans, change, delta)?,
                None if view.apply(change) => Extent::Whole,
                None => return Err(EarlyFull),
            };
            if extent == Extent::Whole {
                self.following = None;
                self.known.forget_all();
            }
        }
        Ok(())
    }

    /// Settles what makes the tunnels, again whenever what they are to be is something else.
    fn choose_tunnels(&mut self) -> Result<(), String> {
        let Some(needs) = self.view.as_deref().map(Needs::of) else { return Ok(()) };
        if self.tunnels.as_ref().is_some_and(|choice| choice.needs == needs) {
            return Ok(());
        }
        let show = self.switch.show().map_err(|error| error.to_string())?;
        let choice =
            backend::choose((self.config.tunnels, self.config.fast_path), needs, &self.config.netns_dir, &show);
        tracing::info!(node = %self.config.node, tunnels = choice.backend.name(), why = %choice.why, "tunnels");
        if let Some(view) = self.view.as_mut().filter(|view| view.backend != choice.backend) {
            Arc::make_mut(view).backend = choice.backend;
            self.forget_known();
        }
        self.tunnels = Some(choice);
        self.untold.0 = true;
        Ok(())
    }

    /// Gives each network of the view its local VLAN.
    fn number(&mut self) -> Result<(), String> {
        let networks = self.view.iter().flat_map(|view| &view.networks).map(|network| network.id);
        let vlans = local_vlans(&self.vlans, networks);
        let vlans = vlans.map_err(|error| error.to_string())?;
        if vlans != self.vlans {
            // Written before they are used: a crash in between must not renumber a network that carries frames.
            vlans::save(&self.config.run_dir, &vlans).map_err(|error| error.to_string())?;
            self.vlans = vlans;
            self.untold.0 = true;
            self.forget_known();
        }
        Ok(())
    }

    /// Prepares to make changes one by one, if the node is as desired. Where the kernel makes the tunnels, a change of a
    /// remote port is one of its devices too, which takes a whole pass.
    pub(super) fn follow(&mut self) {
        if self.settled
            && self.following.is_none()
            && let Some(view) = &mut self.view
            && view.backend == Backend::Userspace
        {
            // Readers have theirs: it is copied while nobody waits, and not for the first change.
            Arc::make_mut(view);
            self.following = Some(Following { bearers: Bearers::of(view), delta: Delta::default() });
        }
    }

    /// Makes the changes that came since the node was as desired, and looks at nothing else. `None` if it takes a whole
    /// pass.
    pub(super) async fn amend(&mut self) -> Option<Outcome> {
        let delta = core::mem::take(&mut self.following.as_mut()?.delta);
        let mut outcome = Outcome::default();
        match self.make(&delta, &mut outcome).await {
            Ok(()) => Some(outcome),
            Err(error) => {
                tracing::debug!(%error, "a change could not be made by itself");
                self.forget_known();
                None
            }
        }
    }

    async fn make(&mut self, delta: &Delta, outcome: &mut Outcome) -> Result<(), String> {
        for (bridge, changes) in [fixed(BR_INT), fixed(BR_TUN)].into_iter().zip(delta.flows()) {
            if changes.is_empty() {
                continue;
            }
            outcome.operations += changes.len();
            let asked = changes.len();
            let touched = self.switch.change(&bridge, changes).map_err(|error| error.to_string())?;
            if touched < asked {
                return Err(format!("{bridge}: {touched} of {asked} flows were as they were believed to be"));
            }
            self.known.amended(&bridge);
        }
        let ops = delta.neighbours().map_err(|error| error.to_string())?;
        let plan = Plan { ops, ..Plan::default() };
        outcome.operations += self.kernel.apply(&plan).await.map_err(|failure| failure.to_string())?.done;
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
        let spec: KernelSpec = kernel_spec(view, attach, &self.passing).map_err(|error| error.to_string())?;
        spec.check().map_err(|error| error.to_string())
    }

    /// Makes the node match, in as many rounds as it takes. What is noted of changes is made by [`Self::amend`] first, which
    /// gave `amended`.
    pub(super) async fn converge(&mut self, amended: Option<Outcome>) -> Outcome {
        let mut outcome = amended.unwrap_or_default();
        if let Err(error) = self.settle(&mut outcome).await {
            outcome.fails(error);
        }
        self.settled = outcome.errors.is_empty();
        if !self.settled {
            self.following = None;
        }
        outcome
    }

    async fn settle(&mut self, outcome: &mut Outcome) -> Result<(), String> {
        let hello = self.switch.hello().map_err(|error| error.to_string())?;
        self.known.is_of(&hello.instance);
        let attach = Some(attach(self.config.attachment, self.config.fast_path, hello.tap_refused.as_deref())?);
        self.untold.0 |= self.attach != attach;
        self.attach = attach;
        self.choose_tunnels()?;
        self.number()?;
        for round in 0..ROUNDS_MAX {
            let ahead = self.begin_ahead().map_err(|error| error.to_string())?;
            let kernel = self.kernel_steps(ahead.is_some(), outcome).await;
            if let Some(ahead) = ahead {
                self.end_ahead(ahead, outcome).await?;
            }
            let (lost, is_quiet) = kernel?;
            let before = outcome.operations;
            self.switch_step(round, &lost, outcome).map_err(|error| error.to_string())?;
            if is_quiet && outcome.operations == before || !outcome.errors.is_empty() {
                return Ok(());
            }
        }
        Err(format!("the node did not settle in {ROUNDS_MAX} rounds: somebody else changes it at the same time"))
    }

    /// Begins to make the flows what they are to be, if the ports that they name are so already: neither waits for the
    /// kernel then, nor the kernel for them.
    fn begin_ahead(&mut self) -> Result<Option<Ahead>, ControlError> {
        let (Some(view), Some(attach)) = (&self.view, self.attach) else { return Ok(None) };
        let wanted: BTreeSet<IfName> =
            switch_spec::names(view).into_iter().filter(|bridge| !self.known.has(bridge)).collect();
        // What is wrong with a spec is told by the step that needs it.
        let Ok(spec) = switch_spec::bridges(view, attach, &self.config.netns_dir) else { return Ok(None) };
        if wanted.is_empty() || !switch_spec::preparation(&spec, &self.switch.show()?, &BTreeSet::new()).is_empty() {
            return Ok(None);
        }
        // Whoever needs the switch meanwhile opens a conversation of its own.
        let other = Switch::new(self.config.switch_socket.clone(), None);
        let switch = core::mem::replace(&mut self.switch, other);
        Ok(Some(Ahead::begin(switch, Arc::clone(view), self.vlans.clone(), wanted)))
    }

    async fn end_ahead(&mut self, ahead: Ahead, outcome: &mut Outcome) -> Result<(), String> {
        let failed = |error: tokio::task::JoinError| format!("the switch could not be told its flows: {error}");
        let (switch, told) = ahead.end().await.map_err(failed)?;
        self.switch = switch;
        self.note(told, true, outcome).map_err(|error| error.to_string())
    }

    /// Brings the kernel to what is desired, and if there is time looks at what came of it. Returns the ports whose
    /// interfaces are not there, or not the ones they were; and whether nothing is left to do.
    async fn kernel_steps(
        &mut self,
        has_time: bool,
        outcome: &mut Outcome,
    ) -> Result<(BTreeSet<IfName>, bool), String> {
        let spec = self.kernel_spec()?;
        let mut lost = BTreeSet::new();
        let mut is_quiet = false;
        for _ in 0..if has_time { 2 } else { 1 } {
            let before = outcome.operations;
            let (more, is_told) = self.kernel_step(&spec, outcome).await?;
            lost.extend(more);
            // What changes before this listens is met by the next look: there is one after each step that did something, unless
            // the kernel told what came of it, and tells what others make of it since.
            let begins = self.monitor.watch(&spec).map_err(|error| error.to_string())?;
            is_quiet = outcome.operations == before || is_told && !begins;
            if is_quiet || !outcome.errors.is_empty() {
                break;
            }
        }
        Ok((lost, is_quiet))
    }

    /// Brings the kernel to `spec`. Returns the ports whose interfaces are not there, or not the ones they were; and whether
    /// a look could tell no more of what was done than the kernel did.
    async fn kernel_step(&mut self, spec: &Checked, outcome: &mut Outcome) -> Result<(BTreeSet<IfName>, bool), String> {
        let observed = self.kernel.observe(spec).await.map_err(|error| error.to_string())?;
        self.router_links = self.view.as_ref().map(|view| router_links(view, &observed)).unwrap_or_default();
        let plan = plan::diff(spec, &observed, &self.ownership);
        for blocked in &plan.blocked {
            outcome.fails(blocked);
        }
        let lost = self.view.as_ref().map(|view| lost_ports(view, &plan)).unwrap_or_default();
        self.make_room(&plan, outcome)?;
        if plan.is_empty() {
            // Awaited links are the switch's to make, in this round.
            if plan.awaited.is_empty()
                && let Err(drifts) = plan::verify(spec, &observed)
            {
                drifts.iter().for_each(|drift| outcome.fails(drift));
            }
            return Ok((lost, false));
        }
        for op in &plan.ops {
            tracing::debug!(%op, "kernel");
        }
        match self.kernel.apply(&plan).await {
            Ok(applied) => {
                outcome.operations += applied.done;
                Ok((lost, plan.is_neighbours()))
            }
            Err(failure) => {
                outcome.operations += failure.done;
                failure.failures.iter().for_each(|failed| outcome.fails(failed));
                Ok((lost, false))
            }
        }
    }

    /// Has the switch let go of its tunnels' UDP port before the kernel's take it.
    fn make_room(&mut self, plan: &Plan, outcome: &mut Outcome) -> Result<(), String> {
        let netns = self.attach.map_or(TUNNELS_NETNS, Attach::tunnels_netns);
        let sets_up = |op: &Op| matches!(op, Op::Link(at, LinkOp::Up(_)) if at.to_string() == netns);
        let kernels = self.view.as_ref().is_some_and(|view| view.backend == Backend::Kernel);
        if !kernels || !plan.ops.iter().any(sets_up) {
            return Ok(());
        }
        let show = self.switch.show().map_err(|error| error.to_string())?;
        let failed = self.ask_all(&switch_spec::tunnels_of_the_switch(&show), outcome);
        failed.map(drop).map_err(|error| error.to_string())
    }

    /// Brings the switch to what is desired: ports, then the flows of each bridge at one instant, then ports that no
    /// flow names any more.
    fn switch_step(
        &mut self,
        round: usize,
        lost: &BTreeSet<IfName>,
        outcome: &mut Outcome,
    ) -> Result<(), ControlError> {
        let (Some(view), Some(attach)) = (&self.view, self.attach) else { return Ok(()) };
        let netns_dir = self.config.netns_dir.clone();
        let bridges = |view: &NodeView| switch_spec::bridges(view, attach, &netns_dir);
        let mut spec = match bridges(view) {
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
        let mut less = None;
        if !requests.is_empty() {
            self.known.forget_all();
            let failed = self.ask_all(&requests, outcome)?;
            if !failed.is_empty() {
                // The rest of the node works without them.
                less = self.view.as_ref().map(|view| without(view, &failed));
                match less.as_ref().map(bridges) {
                    Some(Ok(bridges)) => spec = bridges,
                    Some(Err(error)) => outcome.fails(error),
                    None => {}
                }
            }
            show = self.switch.show()?;
        }
        self.flow_step(&show, less.as_ref(), outcome)?;
        let stale = switch_spec::removals(&spec, &show);
        self.ask_all(&stale, outcome)?;
        self.ask_all(switch_spec::fast_path(&show), outcome)?;
        let passing = self.view.as_ref().and_then(|view| switch_spec::passing(&show, view, &self.passing));
        self.ask_all(passing.as_slice(), outcome)?;
        Ok(())
    }

    /// Makes the flows of each bridge what the view asks for, or what `less` does.
    fn flow_step(&mut self, show: &Show, less: Option<&NodeView>, outcome: &mut Outcome) -> Result<(), ControlError> {
        let revisions: BTreeMap<&IfName, u64> =
            show.bridges.iter().map(|there| (&there.name, there.revision)).collect();
        let is_known = |bridge: &IfName| less.is_none() && self.known.holds(bridge, revisions.get(bridge).copied());
        let Some(view) = less.or(self.view.as_deref()) else { return Ok(()) };
        let wanted: BTreeSet<IfName> =
            switch_spec::names(view).into_iter().filter(|bridge| !is_known(bridge)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.iter().for_each(|bridge| self.known.forget(bridge));
        let told = told::tell(&mut self.switch, view, &self.vlans, &wanted);
        self.note(told, less.is_none(), outcome)
    }

    /// Takes note of what the switch said of flows, which are the view's or lack some.
    fn note(&mut self, told: Told, is_all: bool, outcome: &mut Outcome) -> Result<(), ControlError> {
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                outcome.fails(error);
                return Ok(());
            }
        };
        for (bridge, synced) in told {
            match synced {
                Ok(Synced { changes, revision }) => {
                    tracing::debug!(%bridge, changes, "flows");
                    outcome.operations += changes;
                    if is_all {
                        self.known.made(bridge, revision);
                    }
                }
                Err(error) if error.refusal().is_some() => outcome.fails(format!("flows of {bridge}: {error}")),
                Err(error) => return Err(error),
            }
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
