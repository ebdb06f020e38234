//! The agent's life: from its first look to its last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::agent::Converged;
use crate::api::switch::Request;
use crate::control::Server;
use crate::netns::Ownership;
use crate::plan::kernel::Kernel;
use crate::plan::monitor::Monitor;
use crate::plan::{self, KernelSpec};
use crate::program::{BR_INT, BR_TUN, fixed};

use super::desired::{Desired, Source, TopologyFile};
use super::events::{Events, Inbox, Told};
use super::node::Node;
use super::serve::Conversations;
use super::shared::Shared;
use super::switch::Switch;
use super::{AgentConfig, AgentError, DesiredFrom, link, notices, provider_spec, room, saved, vlans};

/// The first wait after a pass that failed; each failure in a row doubles it.
const RETRY_FIRST: Duration = Duration::from_millis(5);
/// The longest wait between passes that fail: a switch that starts late is met at most this late.
const RETRY_MOST: Duration = Duration::from_millis(500);
/// Changes come in bursts: what follows within this time is seen by the same pass.
const BURST: Duration = Duration::from_millis(10);
/// The least time the event loop is given to meet signals.
const TURN: Duration = Duration::from_millis(1);
/// How often everything is looked at with no reason at all: of most kernel switches (`arp_ignore`, `send_redirects`,
/// `accept_ra` and their like) nobody is told when they change.
const AUDIT: Duration = Duration::from_secs(15);
/// How many times as long as the last look took there is none for what others do to the switch, and how long at most: who
/// goes on changing it does not keep the agent from all else.
const REST: (u32, Duration) = (4, Duration::from_millis(500));

/// Runs the agent until SIGTERM or SIGINT. What it made stays and goes on forwarding.
///
/// # Errors
/// When it cannot begin: no run directory, a living agent on its socket, no netlink. A topology that cannot be read, a
/// switch that is not there or anything that fails later is told on the control socket and tried again.
pub fn run(config: AgentConfig) -> Result<(), AgentError> {
    let system = |what| {
        let node = config.node.clone();
        move |source| AgentError::System { node, what, source }
    };
    std::fs::create_dir_all(&config.run_dir)
        .map_err(|source| AgentError::RunDir { path: config.run_dir.clone(), source })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start its event loop"))?;
    let (events, inbox) = Events::new();
    let shared = Arc::new(Shared::default());
    let server = Server::bind(&config.socket())?;
    let stopper = server.stopper();
    let conversations = Arc::new(Conversations::new(&config, Arc::clone(&shared), events.clone()));
    let serve = move || {
        if let Err(error) = server.serve(&conversations) {
            tracing::error!(%error, "the agent goes on without its control socket");
        }
    };
    let thread = std::thread::Builder::new().name("control-accept".to_owned()).spawn(serve);
    let thread = thread.map_err(system("start its control socket"))?;
    let watched = room::watch(config.run_dir.clone(), Arc::clone(&shared), events.clone());
    watched.map_err(system("start to try the ways to other nodes"))?;
    let ended = runtime.block_on(live(config, &shared, events, inbox));
    stopper.stop();
    // It has nothing more to say; a panic there was told when it happened.
    let _joined = thread.join();
    ended
}

/// What reaches the agent from outside.
struct Outside {
    inbox: Inbox,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    disturbance: Disturbance,
}

/// What others do to the switch.
struct Disturbance {
    /// Whether they did something since everything was looked at.
    is_pending: bool,
    /// How often they did.
    count: u64,
    /// When it may be looked at.
    rest_until: Instant,
}

impl Disturbance {
    fn came(&mut self) {
        self.count += u64::from(!self.is_pending);
        self.is_pending = true;
    }

    /// Everything was looked at, which took so long.
    fn looked(&mut self, now: Instant, took: Duration) {
        let (times, most) = REST;
        *self = Self { is_pending: false, count: self.count, rest_until: now + (took * times).min(most) };
    }

    /// When to look if nothing else makes it necessary before `deadline`.
    fn due(&self, deadline: Instant) -> Instant {
        if self.is_pending { deadline.min(self.rest_until) } else { deadline }
    }
}

/// Why the agent looks again, gathered from all that came at once.
#[derive(Default)]
struct Reasons {
    /// To look at everything.
    look: bool,
    /// To ask what is desired.
    reload: bool,
    stop: bool,
}

impl Outside {
    fn new(inbox: Inbox) -> std::io::Result<Self> {
        Ok(Self {
            inbox,
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            disturbance: Disturbance { is_pending: false, count: 0, rest_until: Instant::now() },
        })
    }

    /// Waits for a reason, at most until `deadline`, which is one too.
    async fn reasons<D: Desired>(&mut self, deadline: Instant, node: &mut Node<D>) -> Reasons {
        let mut reasons = Reasons::default();
        while !(reasons.look || reasons.reload || reasons.stop) {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => reasons.stop = true,
                _ = self.interrupt.recv() => reasons.stop = true,
                _ = self.hangup.recv() => reasons.hangup(),
                told = self.inbox.told() => reasons.take(told, node, &mut self.disturbance).await,
                () = node.drift() => {
                    reasons.look = true;
                    sleep(BURST).await;
                }
                () = sleep_until(self.disturbance.due(deadline)) => reasons.look = true,
            }
        }
        // One turn of the event loop, so that a signal sent before a question was asked is met before its answer.
        sleep(TURN).await;
        if self.hangup.recv().now_or_never().is_some() {
            reasons.hangup();
        }
        reasons.stop |= self.terminate.recv().now_or_never().is_some();
        reasons.take(self.inbox.take(), node, &mut self.disturbance).await;
        reasons
    }
}

impl Reasons {
    const fn hangup(&mut self) {
        (self.look, self.reload) = (true, true);
    }

    async fn take<D: Desired>(&mut self, told: Told, node: &mut Node<D>, disturbance: &mut Disturbance) {
        let Told { look, desired, switch_lost, switch, passing, readers } = told;
        if let Some(passing) = passing {
            node.passes(passing);
            self.look = true;
        }
        if switch.is_some_and(|standing| node.is_disturbed(&standing)) {
            disturbance.came();
        }
        if switch_lost {
            node.switch_lost();
        }
        self.look |= look | switch_lost;
        self.reload |= desired;
        for reader in readers {
            // A reader that has left meanwhile misses nothing.
            let _left = reader.send(node.observe().await);
        }
    }
}

async fn live(config: AgentConfig, shared: &Shared, events: Events, inbox: Inbox) -> Result<(), AgentError> {
    let failed = |source| AgentError::System { node: config.node.clone(), what: "handle signals", source };
    let mut outside = Outside::new(inbox).map_err(failed)?;
    let kernel = Kernel::open(config.netns_dir.clone())?;
    let monitor = Monitor::new(config.netns_dir.clone());
    let system = |what| {
        let node = config.node.clone();
        move |source| AgentError::System { node, what, source }
    };
    let heard = notices::listen(config.switch_socket.clone(), events.clone());
    let heard = heard.map_err(system("listen to the switch"))?;
    let desired = match config.desired.clone() {
        DesiredFrom::Topology(path) => {
            // Nobody is there to be told of announcements.
            drop(heard);
            Source::File(TopologyFile { path, node: config.node.clone() })
        }
        DesiredFrom::Controllers(controllers) => {
            let link = link::Link::start(&config.node, &config.run_dir, controllers, events.clone(), heard);
            Source::Link(link.map_err(system("start its link to the controllers"))?)
        }
    };
    let switch = Switch::new(config.switch_socket.clone(), Some(events));
    let kept = vlans::load(&config.run_dir)?;
    let name = config.node.clone();
    let mut node = Node::new(config, desired, (kernel, monitor), switch, kept);
    let mut reasons = Reasons { look: true, reload: true, stop: false };
    let mut undesired = None;
    let mut retry = RETRY_FIRST;
    let mut told = Vec::new();
    let mut deadline = Instant::now();
    while !reasons.stop {
        shared.begin();
        let started = Instant::now();
        if reasons.reload {
            undesired = node.reload().err();
        }
        let amended = node.amend().await;
        let whole = reasons.look || amended.is_none();
        let outcome = match amended {
            Some(outcome) if !whole => outcome,
            amended => node.converge(amended).await,
        };
        let took_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let errors: Vec<String> = undesired.iter().cloned().chain(outcome.errors).collect();
        let (operations, disturbed) = (outcome.operations, outside.disturbance.count);
        let state = Converged { converged: errors.is_empty(), operations, took_micros, disturbed, errors };
        node.came_to(&state.errors);
        let converged = state.converged;
        if whole {
            outside.disturbance.looked(Instant::now(), started.elapsed());
            tell(&name, &state, &mut told);
            shared.end(node.untold(), state);
            node.follow();
            retry = if converged { RETRY_FIRST } else { (retry * 2).min(RETRY_MOST) };
            // Changes made one by one do not put it off.
            deadline = Instant::now() + if converged { AUDIT } else { retry };
        } else {
            tracing::debug!(node = %name, operations = state.operations, took_micros, "changed");
            shared.amend(node.untold_changes(), state);
        }
        reasons = outside.reasons(deadline, &mut node).await;
    }
    tracing::info!(node = %name, "the agent ends; what it made stays");
    Ok(())
}

/// Tells the log what changed: a repeated error is told once.
fn tell(node: &str, state: &Converged, told: &mut Vec<String>) {
    let Converged { converged, operations, took_micros, disturbed: _, errors } = state;
    for error in errors.iter().filter(|error| !told.contains(error)) {
        tracing::warn!(%node, %error, "not as desired");
    }
    if *converged && (*operations > 0 || !told.is_empty()) {
        tracing::info!(%node, operations, took_micros, "as desired");
    }
    told.clone_from(errors);
}

/// Removes everything that agents manage on this node: namespaces with what is in them, their bridges, local VLANs. A
/// switch that is not there holds nothing. Gives the number of namespaces and bridges
/// that went.
///
/// # Errors
/// [`AgentError::Running`] while an agent runs, which would make it all again; else everything that could not be removed:
/// the rest is.
pub fn purge(config: &AgentConfig) -> Result<usize, AgentError> {
    let socket = config.socket();
    if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        return Err(AgentError::Running { socket });
    }
    let system = |source| AgentError::System { node: config.node.clone(), what: "start its event loop", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    runtime.block_on(remove_all(config))
}

async fn remove_all(config: &AgentConfig) -> Result<usize, AgentError> {
    let (mut done, mut left) = (0, Vec::new());
    let mut switch = Switch::new(config.switch_socket.clone(), None);
    match switch.show() {
        Ok(show) => {
            for bridge in provider_spec::ours(&show).cloned().chain([fixed(BR_TUN), fixed(BR_INT)]) {
                if !show.bridges.iter().any(|there| there.name == bridge) {
                    continue;
                }
                match switch.ask(&Request::DelBridge { bridge }) {
                    Ok(()) => done += 1,
                    Err(error) => left.push(error.to_string()),
                }
            }
            if !show.passing.is_empty()
                && let Err(error) = switch.ask(&Request::Passing { octets: BTreeMap::new() })
            {
                left.push(error.to_string());
            }
        }
        Err(error) if error.is_absent() => {}
        Err(error) => left.push(error.to_string()),
    }
    let mut kernel = Kernel::open(config.netns_dir.clone())?;
    let nothing = KernelSpec::default().check().map_err(|error| AgentError::Purge(vec![error.to_string()]))?;
    let observed = kernel.observe(&nothing).await?;
    match kernel.apply(&plan::diff(&nothing, &observed, &Ownership::agent())).await {
        Ok(applied) => done += applied.done,
        Err(failure) => left.extend(failure.failures.iter().map(ToString::to_string)),
    }
    vlans::forget(&config.run_dir)?;
    if let Err(error) = room::forget(&config.run_dir) {
        left.push(format!("what passes to other nodes, in {}: {error}", config.run_dir.display()));
    }
    if let Err(error) = saved::forget(&config.run_dir) {
        left.push(format!("the last view in {}: {error}", config.run_dir.display()));
    }
    if left.is_empty() { Ok(done) } else { Err(AgentError::Purge(left)) }
}
