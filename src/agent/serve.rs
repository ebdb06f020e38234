//! The agent's control socket: each question answered from what is published, and from live data.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::api::agent::{Hello, Request};
use crate::api::{Refusal, VERSION};
use crate::control::{ControlError, Reply, Service};
use crate::plan::KernelState;
use crate::program::{BR_INT, BR_TUN, fixed};

use super::AgentConfig;
use super::events::{Event, Events};
use super::kernel_spec::kernel_spec;
use super::lookup;
use super::node::Held;
use super::shared::Shared;
use super::switch::Switch;
use super::tables::{self, Observed};
use super::ways;

/// The longest a question may wait for the main loop, which may be in the middle of a pass.
const KERNEL_LIMIT: Duration = Duration::from_secs(30);
/// The longest anybody may wait for convergence.
const WAIT_LIMIT: Duration = Duration::from_secs(3600);

/// What the agent says.
pub(super) struct Conversations {
    node: String,
    switch_socket: PathBuf,
    shared: Arc<Shared>,
    events: Events,
}

impl Conversations {
    pub(super) fn new(config: &AgentConfig, shared: Arc<Shared>, events: Events) -> Self {
        Self { node: config.node.clone(), switch_socket: config.switch_socket.clone(), shared, events }
    }

    fn held(&self) -> Result<Arc<Held>, Refusal> {
        self.shared.read().map(|(held, _)| held).ok_or_else(|| self.not_ready())
    }

    fn not_ready(&self) -> Refusal {
        Refusal {
            message: format!(
                "node `{}` does not know yet what it is to hold: `wait` says why, and the agent's log",
                self.node
            ),
            code: "not-ready".to_owned(),
        }
    }

    /// The kernel as the main loop, which alone talks to it, sees it now.
    fn kernel(&self) -> Result<KernelState, Refusal> {
        let refuse = |message: String| Refusal { message, code: "kernel".to_owned() };
        let (reply, answer) = sync_channel(1);
        self.events.tell(Event::Observe(reply));
        answer
            .recv_timeout(KERNEL_LIMIT)
            .map_err(|_| refuse("the agent is too busy to look at the kernel: ask again".to_owned()))?
            .map_err(refuse)
    }

    fn bridge(&self, switch: &mut Switch, name: &'static str) -> Result<Observed, Refusal> {
        let bridge = fixed(name);
        let refuse = |error: ControlError| match error.refusal() {
            Some(refusal) => refusal.clone(),
            None => Refusal { message: error.to_string(), code: "switch".to_owned() },
        };
        let show = switch.show().map_err(refuse)?;
        let ports = show.bridges.into_iter().find(|there| there.name == bridge).map(|there| there.ports);
        let flows = switch.flows(&bridge).map_err(refuse)?;
        Ok(Observed { ports: ports.unwrap_or_default(), flows })
    }

    fn switch(&self) -> Switch {
        Switch::new(self.switch_socket.clone(), None)
    }
}

fn internal(error: impl ToString) -> Refusal {
    Refusal { message: error.to_string(), code: "internal".to_owned() }
}

impl Service for Conversations {
    type Request = Request;

    fn greeting(&self, request: &Request) -> Option<u32> {
        if let Request::Hello { version } = request { Some(*version) } else { None }
    }

    fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        Ok(match request {
            Request::Hello { .. } => Reply::of(&Hello {
                version: VERSION,
                release: env!("CARGO_PKG_VERSION").to_owned(),
                node: self.node.clone(),
                pid: std::process::id(),
            }),
            Request::Show => {
                let (held, state) = self.shared.read().ok_or_else(|| self.not_ready())?;
                Reply::of(&tables::show(&held, state))
            }
            Request::Wait { timeout_millis } => {
                let limit = Duration::from_millis(timeout_millis).min(WAIT_LIMIT);
                Reply::of(&self.shared.wait(&self.events, limit))
            }
            Request::Neighbours => {
                let held = self.held()?;
                let spec =
                    kernel_spec(&held.view, held.attach, &held.passing).map_err(internal)?.check().map_err(internal)?;
                Reply::of(&tables::neighbours(&held, &spec, &self.kernel()?))
            }
            Request::Route { of, to } => {
                let held = self.held()?;
                let unknown = |message: String| Refusal { message, code: "unknown-place".to_owned() };
                Reply::of(&lookup::route(&held, &self.kernel()?, &of, to).map_err(|error| unknown(error.to_string()))?)
            }
            Request::Paths => Reply::of(&ways::tried(&self.held()?.view).map_err(internal)?),
            Request::Responders => {
                let held = self.held()?;
                let br_int = self.bridge(&mut self.switch(), BR_INT)?;
                Reply::of(&tables::responders(&held, &br_int).map_err(internal)?)
            }
            Request::Forwardings => {
                let held = self.held()?;
                let mut switch = self.switch();
                let br_int = self.bridge(&mut switch, BR_INT)?;
                let br_tun = self.bridge(&mut switch, BR_TUN)?;
                Reply::of(&tables::forwardings(&held, &br_int, &br_tun).map_err(internal)?)
            }
        })
    }
}
