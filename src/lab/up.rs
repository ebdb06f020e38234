//! Bringing a lab up, and the first ping through it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::outline::{Outline, Promise};
use super::pinger::{self, Patience, Probe};
use super::report::{self, Listener, Report};
use super::state::{self, Process};
use super::{Daemon, Error, Lab, LabName, Labs, Place, Record, TunnelsOf, down, init, now, space, tunnels};
use crate::agent::FastPath;
use crate::api;
use crate::control::{Client, ControlError};
use crate::rpc::Addresses;

/// How long the lab's processes may take to start, and then its nodes to converge.
/// An upper bound only: nothing waits for it to pass.
const LIMIT: Duration = Duration::from_secs(300);
/// How the first ping is tried: soon and often, since the nodes have converged.
const FIRST_PING: Patience =
    Patience { first_interval: Duration::from_millis(20), limit: Duration::from_secs(10), silence: Duration::ZERO };
/// How long `lab up` waits for anything before it looks whether it was told to stop; twice as long each time that an
/// agent's pass did not fit into it.
const SLICE: Duration = Duration::from_millis(100);
/// How much longer than it was given an agent may take to answer.
const GRACE: Duration = Duration::from_secs(10);
/// How long the processes of a lab that failed may go on writing into its directory while they are being ended.
const CLEARANCE: Duration = Duration::from_secs(1);
/// Lines of each log shown with a failure.
const LOG_LINES: usize = 6;

/// What is to be brought up.
#[derive(Debug, Clone)]
pub struct Request {
    /// The lab's name.
    pub name: LabName,
    /// What the document is called, for messages.
    pub source: String,
    /// The document.
    pub text: String,
    /// Controllers to use instead of one of its own; what they desire is what the lab becomes.
    pub controllers: Option<Addresses>,
    /// What is to make tunnels, on which nodes.
    pub tunnels: Vec<TunnelsOf>,
    /// Whether the nodes have the fast path.
    pub fast_path: FastPath,
    /// How many workers each switch has, if not as many as it likes.
    pub workers: Option<usize>,
    /// Whether a lab that fails stays, to be looked at.
    pub keep: bool,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Raised {
    /// Where it is.
    pub lab: Lab,
    /// What it is made of.
    pub outline: Outline,
    /// What its first ping came to; `None` if its topology promises nobody anything.
    pub first_ping: Option<FirstPing>,
    /// From the start to converged nodes.
    pub converged_after: Duration,
    /// From the start to the first reply, or to the end.
    pub took: Duration,
}

/// The first ping through a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstPing {
    /// The VM that asked.
    pub from: String,
    /// The VM that was asked, and its address.
    pub to: (String, core::net::IpAddr),
    /// Whether a router was on the way.
    pub routed: bool,
    /// The round trip and the hops the reply had left; `None` if none came.
    pub reply: Option<(Duration, u8)>,
}

/// Brings a lab up. The document is read and checked whole before anything is touched. Needs one thread, and leaves this
/// process in the lab's user namespace.
///
/// # Errors
/// Whatever failed, or [`Error::Interrupted`] by SIGINT, SIGTERM or SIGHUP; the lab is gone again then, unless the request
/// says to keep one that fails.
pub fn up(labs: &Labs, request: &Request) -> Result<Raised, Error> {
    let begin = now();
    let outline = Outline::read(&request.source, &request.text)?;
    let absent = |node: &&String| !outline.views.contains_key(*node);
    if let Some(node) = request.tunnels.iter().filter_map(|wish| wish.node.as_ref()).find(absent) {
        let known: Vec<&str> = outline.views.keys().map(String::as_str).collect();
        let (lab, known) = (request.name.to_string(), format!("its nodes: {}", known.join(", ")));
        return Err(Error::NoPlace { lab, place: node.clone(), known });
    }
    let lab = labs.lab(&request.name);
    check_paths(&lab, &outline)?;
    let interrupts = Interrupts::watch()?;
    let _claim = lab.create()?;
    let raised = raise(&lab, &outline, request, (begin, &interrupts));
    let interrupted = interrupts.taken().map(|signal| Error::Interrupted { name: lab.name.to_string(), signal });
    if interrupted.is_some() || (raised.is_err() && !request.keep) {
        clear(&lab);
    }
    let (first_ping, converged_after) = interrupted.map_or(raised, Err)?;
    Ok(Raised { lab, outline, first_ping, converged_after, took: now() - begin })
}

/// The signals that end `dvr lab up`: held back, so that it can take down first what it has begun.
struct Interrupts(SignalFd);

impl Interrupts {
    fn watch() -> Result<Self, Error> {
        init::watch(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]).map(Self)
    }

    /// Whether one came.
    fn pending(&self) -> bool {
        report::readable(self.0.as_fd(), Duration::ZERO).unwrap_or(false)
    }

    /// The one that came first.
    fn taken(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok().flatten()?;
        i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

/// Removes what there is of a lab that failed. Its processes end by themselves when nobody listens to them any more; one
/// that makes a file meanwhile makes the removal fail, so it is tried again.
fn clear(lab: &Lab) {
    let deadline = now() + CLEARANCE;
    // The first error is the one to tell; what of the lab is left after all tries, `lab down` removes.
    while down::wreck(lab).is_err() && now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn check_paths(lab: &Lab, outline: &Outline) -> Result<(), Error> {
    let sockets = outline.views.keys().map(|node| Daemon::Switch.socket(&lab.node_dir(node)));
    for path in sockets.chain([lab.controller_socket()]) {
        let len = path.as_os_str().len();
        if len > state::SOCKET_PATH_MAX {
            return Err(Error::SocketPath { path, len });
        }
    }
    Ok(())
}

fn raise(
    lab: &Lab,
    outline: &Outline,
    request: &Request,
    (begin, interrupts): (Instant, &Interrupts),
) -> Result<(Option<FirstPing>, Duration), Error> {
    furnish(lab, outline, request)?;
    let listener = start(lab)?;
    let (record, early) = gather(lab, outline, request, (&listener, interrupts))?;
    lab.write(&record)?;
    let outcome = early.map_or_else(|| settle(lab, outline, &record, &listener, (begin, interrupts)), Err);
    if outcome.is_ok() || request.keep {
        listener.keep().map_err(|source| Error::os(format!("tell lab `{}` to stay", lab.name), source))?;
    }
    outcome
}

/// Writes what the lab's processes will read.
fn furnish(lab: &Lab, outline: &Outline, request: &Request) -> Result<(), Error> {
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|source| Error::os(format!("write {}", path.display()), source))
    };
    let make = |dir: &Path| fs::create_dir(dir).map_err(|source| Error::os(format!("make {}", dir.display()), source));
    write(&lab.topology_path(), &request.text)?;
    for node in outline.views.keys() {
        let dir = lab.node_dir(node);
        make(&dir)?;
        tunnels::choose_tunnels(&dir, tunnels::wished(&request.tunnels, node))?;
        tunnels::choose_fast_path(&dir, request.fast_path)?;
        request.workers.map_or(Ok(()), |workers| tunnels::choose_workers(&dir, workers))?;
    }
    let dir = lab.controller_dir();
    make(&dir)?;
    match &request.controllers {
        Some(others) => write(&dir.join(state::OTHERS), &others.to_string()),
        None => Ok(()),
    }
}

fn start(lab: &Lab) -> Result<Listener, Error> {
    let (listener, theirs) = Listener::pair()?;
    let path = lab.dir.join("init.log");
    let log = File::create(&path).map_err(|source| Error::os(format!("make {}", path.display()), source))?;
    let errors =
        log.try_clone().map_err(|source| Error::os(format!("duplicate the handle on {}", path.display()), source))?;
    let mut command = space::own_program();
    command.arg("lab-init").arg("--name").arg(lab.name.as_str()).arg("--dir").arg(&lab.dir);
    command.stdin(Stdio::from(theirs)).stdout(log).stderr(errors);
    let mut first = command.spawn().map_err(|source| Error::os("start the lab's init", source))?;
    // It ends as soon as it has started process 1 of the lab, or has reported why not.
    first.wait().map_err(|source| Error::os("wait for the lab's init to be started", source))?;
    Ok(listener)
}

/// Waits until init and every keeper have reported. A daemon that ended meanwhile is told beside: the lab is there all the
/// same, and may be kept to be looked at.
fn gather(
    lab: &Lab,
    outline: &Outline,
    request: &Request,
    (listener, interrupts): (&Listener, &Interrupts),
) -> Result<(Record, Option<Error>), Error> {
    let deadline = now() + LIMIT;
    let mut init = None;
    let mut early = None;
    let mut nodes = BTreeMap::new();
    let failed = |why: String| Error::Start { name: lab.name.to_string(), why, log: String::new() };
    let silent =
        |why: String| Error::Start { name: lab.name.to_string(), why, log: lab.log_tail("init.log", LOG_LINES) };
    while init.is_none() || nodes.len() < outline.views.len() {
        let left = deadline.saturating_duration_since(now());
        let report = listener.next(left.min(SLICE)).map_err(|error| silent(error.to_string()))?;
        let Some((pid, report)) = report else {
            if !left.is_zero() && !interrupts.pending() {
                continue;
            }
            let missing: Vec<&str> =
                outline.views.keys().filter(|node| !nodes.contains_key(*node)).map(String::as_str).collect();
            return Err(silent(format!("nothing was heard of {} within {} s", missing.join(", "), LIMIT.as_secs())));
        };
        let process = || Process::of(pid).ok_or_else(|| silent(format!("process {pid} of it ended at once")));
        match report {
            Report::Init => init = Some(process()?),
            Report::Node { name } => drop(nodes.insert(name, process()?)),
            Report::Failed { why } => return Err(failed(why)),
            Report::Ended { node, what } => early = Some(ended(lab, &node, what)),
            Report::Keep => {}
        }
    }
    let Some(init) = init else { unreachable!("the loop ends with init known") };
    let record = Record {
        name: lab.name.clone(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: state::boot_id(),
        init,
        nodes,
        source: request.source.clone(),
    };
    Ok((record, early))
}

fn settle(
    lab: &Lab,
    outline: &Outline,
    record: &Record,
    listener: &Listener,
    (begin, interrupts): (Instant, &Interrupts),
) -> Result<(Option<FirstPing>, Duration), Error> {
    let deadline = now() + LIMIT;
    for node in outline.views.keys() {
        await_node(lab, node, (listener, interrupts), deadline)?;
    }
    let converged_after = now() - begin;
    Ok((first_ping(outline, record)?, converged_after))
}

/// Waits until a node's agent says that the node is what it should be.
fn await_node(
    lab: &Lab,
    node: &str,
    (listener, interrupts): (&Listener, &Interrupts),
    deadline: Instant,
) -> Result<(), Error> {
    let socket = Daemon::Agent.socket(&lab.node_dir(node));
    let mut slice = SLICE;
    loop {
        let left = deadline.saturating_duration_since(now());
        let waits = !left.is_zero() && !interrupts.pending();
        // A node that others were waited for so long is asked all the same.
        let pause = match converged(&socket, slice.min(left.max(SLICE))) {
            Ok(state) if state.converged => return Ok(()),
            // Only a pass that begins after the question answers it: with the same slice each time, one that takes
            // longer would never do.
            Ok(_) if waits => {
                slice *= 2;
                Duration::ZERO
            }
            Ok(state) => {
                let (limit, errors) = (LIMIT.as_secs(), state.errors.join("; "));
                return Err(ended(lab, node, format!("its agent has not converged within {limit} s: {errors}")));
            }
            Err(error) if error.is_absent() && waits => Duration::from_millis(2),
            Err(error) => return Err(ended(lab, node, error.to_string())),
        };
        match listener.next(pause) {
            Ok(Some((_, Report::Ended { node, what }))) => return Err(ended(lab, &node, what)),
            Ok(Some((_, Report::Init | Report::Node { .. } | Report::Failed { .. } | Report::Keep)) | None) => {}
            Err(error) => return Err(ended(lab, node, error.to_string())),
        }
    }
}

/// Waits until every node's agent that runs is done with what it has heard, at most `limit` each.
pub fn settled(lab: &Lab, record: &Record, limit: Duration) {
    for node in record.nodes.keys() {
        // Whether it is as promised is for the test to find out.
        let _whatever = converged(&Daemon::Agent.socket(&lab.node_dir(node)), limit);
    }
}

/// That a node will not get ready, with the last lines of its daemons' logs.
fn ended(lab: &Lab, node: &str, why: String) -> Error {
    let files = ["switch.log", "agent.log", "controller.log"].map(|file| format!("{node}/{file}"));
    let log = files.map(|file| lab.log_tail(&file, LOG_LINES));
    Error::NotReady { name: lab.name.to_string(), node: node.to_owned(), why, log: log.concat() }
}

/// What an agent says when its node has converged, or time is up.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn converged(socket: &Path, left: Duration) -> Result<api::agent::Converged, ControlError> {
    let mut client = Client::connect(socket, left + GRACE)?;
    let _hello: api::agent::Hello = client.call(&api::agent::Request::Hello { version: api::VERSION })?;
    let timeout_millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    client.call(&api::agent::Request::Wait { timeout_millis })
}

/// Pings along the promise that shows most: routed and between nodes, if there is one.
fn first_ping(outline: &Outline, record: &Record) -> Result<Option<FirstPing>, Error> {
    let shows = |promise: &&Promise| {
        let (from, to) = (&outline.stations[promise.from], &outline.stations[promise.to]);
        (
            promise.hops > 0,
            from.node != to.node,
            promise.target.is_ipv4(),
            core::cmp::Reverse((promise.from, promise.to)),
        )
    };
    let Some(promise) = outline.promises.iter().max_by_key(shows) else { return Ok(None) };
    let from = &outline.stations[promise.from];
    space::enter_user_of(record.init.pid)?;
    let place = Place { name: from.vm.clone(), node: from.node.clone(), netns: Some(from.netns.clone()) };
    let ears = pinger::listen(&[(from.vm.clone(), place.open_netns(record)?)])?;
    let probe = Probe { from: 0, target: promise.target, wanted: true };
    let outcomes = pinger::run(&ears, &[probe], FIRST_PING)?;
    Ok(Some(FirstPing {
        from: from.vm.clone(),
        to: (outline.stations[promise.to].vm.clone(), promise.target),
        routed: promise.hops > 0,
        reply: outcomes.first().and_then(|outcome| outcome.reply),
    }))
}
