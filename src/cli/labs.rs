//! `dvr lab …`: arguments in, text out.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use super::args::{FaultArgs, LabCommand, OutputArgs, Which, WireArgs};
use super::error::{CliError, DONE, FAILED};
use super::output;
use crate::agent::{FastPath, Tunnels};
use crate::lab::{
    self, CheckReport, Daemon, Downed, FirstPing, LabName, Labs, Outline, Place, Raised, Record, TunnelsOf,
};
use crate::model::EXAMPLE;
use crate::rpc::Addresses;

/// What a lab's controller is called where nodes are named.
const CONTROLLER: &str = "controller";

/// The lab of the built-in example.
const EXAMPLE_NAME: &str = "demo";

/// Runs `dvr lab …`.
///
/// # Errors
/// Whatever failed.
pub(super) fn run(command: LabCommand) -> Result<u8, CliError> {
    match command {
        LabCommand::Up { file, name, controllers, tunnels, fast_path, workers, keep } => {
            up(file, name, controllers, (tunnels, fast_path, workers), keep)
        }
        LabCommand::Exec { place, name, command } => exec(&place, name.as_ref(), command),
        LabCommand::Test { name, verbose, output } => test(name.as_ref(), verbose, output),
        LabCommand::Ls { output } => list(output),
        LabCommand::Down { name, all } => down(name, all),
        LabCommand::Kill(args) => kill(&args),
        LabCommand::Restart { which, tunnels, fast_path } => restart(&which, tunnels, fast_path),
        LabCommand::Cut(args) => cut(&args),
        LabCommand::Heal(args) => heal(&args),
    }
}

fn up(
    file: Option<PathBuf>,
    name: Option<LabName>,
    controllers: Option<Addresses>,
    (tunnels, fast_path, workers): (Vec<TunnelsOf>, FastPath, Option<u8>),
    keep: bool,
) -> Result<u8, CliError> {
    let (source, text) = match &file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| CliError::Read { path: path.clone(), source })?;
            (path.display().to_string(), text)
        }
        None => ("built-in example".to_owned(), EXAMPLE.to_owned()),
    };
    let name = name.map_or_else(|| name_of(file.as_ref()), Ok)?;
    let request =
        lab::Request { name, source, text, controllers, tunnels, fast_path, workers: workers.map(usize::from), keep };
    let raised = lab::up(&Labs::of_this_user()?, &request)?;
    output::print(&describe(&raised))?;
    Ok(if raised.first_ping.as_ref().is_some_and(|ping| ping.reply.is_none()) { FAILED } else { DONE })
}

/// The name of a lab that was given none: that of its file.
fn name_of(file: Option<&PathBuf>) -> Result<LabName, CliError> {
    let Some(file) = file else { return Ok(LabName::new(EXAMPLE_NAME).map_err(lab::Error::Name)?) };
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    LabName::new(stem).map_err(|bad| CliError::Usage(format!("{bad}; give the lab a name with --name")))
}

fn describe(raised: &Raised) -> String {
    let Raised { lab, outline, first_ping, converged_after, took } = raised;
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let networks: std::collections::BTreeSet<&str> =
        outline.views.values().flat_map(|view| &view.networks).map(|network| network.name.as_str()).collect();
    let routers: std::collections::BTreeSet<&str> =
        outline.views.values().flat_map(|view| &view.routers).map(|router| router.name.as_str()).collect();
    let mut out = format!(
        "lab `{}` is up: {}, {}, {}, {}\n\n{}\n",
        lab.name,
        count(outline.views.len(), "node"),
        count(networks.len(), "network"),
        count(routers.len(), "router"),
        count(outline.stations.len(), "VM"),
        lab::draw(outline),
    );
    out.push_str(
        &first_ping.as_ref().map_or_else(|| "first ping: this topology promises none\n".to_owned(), tell_ping),
    );
    out.push_str(&format!(
        "nodes converged after {:.2} s, all done after {:.2} s\n",
        converged_after.as_secs_f64(),
        took.as_secs_f64()
    ));
    out.push_str(&suggest(lab.name.as_str(), outline, first_ping.as_ref()));
    out
}

fn tell_ping(ping: &FirstPing) -> String {
    let FirstPing { from, to: (to, address), routed, reply } = ping;
    let way = if *routed { "routed" } else { "same network" };
    match reply {
        Some((time, ttl)) => {
            let millis = time.as_secs_f64() * 1e3;
            format!("first ping: {from} → {to} ({address}), {way}: {millis:.3} ms, ttl {ttl}\n")
        }
        None => format!("first ping: {from} → {to} ({address}), {way}: NO REPLY; see `dvr lab test`, `dvr show`\n"),
    }
}

fn suggest(name: &str, outline: &Outline, ping: Option<&FirstPing>) -> String {
    let option = if name == EXAMPLE_NAME { String::new() } else { format!(" --name {name}") };
    let mut lines = Vec::new();
    if let Some(FirstPing { from, to: (to, address), .. }) = ping {
        lines.push((format!("dvr lab exec {from}{option} -- ping -c 3 {address}"), format!("{from} asks {to}")));
    }
    let router = outline.views.iter().find_map(|(node, view)| Some((node, view.routers.first()?)));
    if let Some((node, router)) = router {
        lines
            .push((format!("dvr lab exec {node}/{}{option} -- ip neigh", router.name), "inside the router".to_owned()));
    }
    lines.push((format!("dvr lab test{option}"), "everybody asks everybody".to_owned()));
    lines.push((format!("dvr show{option}"), "what each node holds".to_owned()));
    if let Some(node) = outline.views.keys().next() {
        lines.push((format!("dvr dump-flows {node}/br-tun{option}"), "what its switch does".to_owned()));
    }
    lines.push((format!("dvr lab down{option}"), "away with it".to_owned()));
    let width = lines.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    let lines = lines.iter().map(|(command, what)| format!("  {command:<width$}  # {what}\n"));
    format!("\ntry next:\n{}", lines.collect::<String>())
}

fn exec(place: &str, name: Option<&LabName>, mut command: Vec<OsString>) -> Result<u8, CliError> {
    let (record, outline) = running(name)?;
    let place = Place::find(record.name.as_str(), &outline, place)?;
    if command.is_empty() {
        command.push(std::env::var_os("SHELL").unwrap_or_else(|| OsString::from("/bin/sh")));
    }
    Ok(lab::exec(&record, &place, &command)?)
}

/// A running lab and what it is made of.
///
/// # Errors
/// When there is none of that name.
pub(super) fn running(name: Option<&LabName>) -> Result<(Record, Outline), CliError> {
    let (lab, record) = Labs::of_this_user()?.choose(name)?;
    let outline = lab::present(&lab, &record)?;
    Ok((record, outline))
}

fn test(name: Option<&LabName>, verbose: bool, form: OutputArgs) -> Result<u8, CliError> {
    let (record, outline) = running(name)?;
    let report = lab::test(&record, &outline)?;
    output::render(form.output, &report, |report| report_text(report, verbose))?;
    Ok(if report.failures.is_empty() { DONE } else { FAILED })
}

fn report_text(report: &CheckReport, verbose: bool) -> String {
    let mut out = String::new();
    if verbose {
        for tested in &report.tested {
            let time = tested.round_trip_micros.map(|micros| format!(" {micros} µs")).unwrap_or_default();
            let verdict = if tested.wrong.is_empty() { "ok  " } else { "FAIL" };
            out.push_str(&format!(
                "{verdict} {:<9} {} → {} ({}){time}\n",
                tested.kind, tested.from, tested.to, tested.target
            ));
        }
    }
    for failure in &report.failures {
        out.push_str(&format!("FAIL {}: {}\n", failure.what, failure.why));
    }
    let CheckReport { lab, vms, reach, isolated, gateways, requests, failures, took_millis, .. } = report;
    out.push_str(&format!(
        "lab `{lab}`: {vms} VMs, {requests} requests, {:.1} s\n  \
         {reach:>6} times one VM reaches another's address, both ways, with the hops it should take\n  \
         {isolated:>6} ordered pairs of which one must get nothing from the other\n  \
         {gateways:>6} gateways answer\n",
        f64::from(u32::try_from(*took_millis).unwrap_or(u32::MAX)) / 1e3,
    ));
    let verdict = match failures.len() {
        0 => "all as promised".to_owned(),
        count => format!(
            "{count} not as promised; look with `dvr show`, `dvr dump-flows` and the logs in the lab's directory"
        ),
    };
    out.push_str(&format!("{verdict}\n"));
    out
}

/// A lab as `dvr lab ls` shows it.
#[derive(Debug, Serialize)]
struct Listed {
    name: LabName,
    pid: i32,
    release: String,
    source: String,
    directory: PathBuf,
    nodes: Vec<ListedNode>,
}

/// A node of it.
#[derive(Debug, Serialize)]
struct ListedNode {
    name: String,
    agent: bool,
    switch: bool,
}

fn list(form: OutputArgs) -> Result<u8, CliError> {
    let mut labs = Vec::new();
    for (lab, record) in Labs::of_this_user()?.running()? {
        let node = |name: &String| {
            let listens =
                |daemon: Daemon| std::os::unix::net::UnixStream::connect(daemon.socket(&lab.node_dir(name))).is_ok();
            ListedNode { name: name.clone(), agent: listens(Daemon::Agent), switch: listens(Daemon::Switch) }
        };
        let nodes = record.nodes.keys().map(node).collect();
        let Record { name, release, init, source, .. } = record;
        labs.push(Listed { name, pid: init.pid, release, source, directory: lab.dir, nodes });
    }
    output::render(form.output, &labs, |labs| {
        let row = |lab: &Listed| {
            let down = |node: &ListedNode| match (node.agent, node.switch) {
                (true, true) => node.name.clone(),
                (true, false) => format!("{} (no switch)", node.name),
                (false, true) => format!("{} (no agent)", node.name),
                (false, false) => format!("{} (down)", node.name),
            };
            let nodes: Vec<String> = lab.nodes.iter().map(down).collect();
            [lab.name.to_string(), lab.pid.to_string(), nodes.join(", "), lab.source.clone()]
        };
        let rows: Vec<[String; 4]> = labs.iter().map(row).collect();
        output::columns(["NAME", "PID", "NODES", "FROM"], &rows, "no lab is running; start one with `dvr lab up`")
    })
}

fn down(name: Option<LabName>, all: bool) -> Result<u8, CliError> {
    let labs = Labs::of_this_user()?;
    let mut names: Vec<LabName> = match name {
        Some(name) => vec![name],
        None if all => labs.all()?.into_iter().map(|lab| lab.name).collect(),
        None => labs.only()?.into_iter().map(|lab| lab.name).collect(),
    };
    if names.is_empty() && !all {
        return output::print("no lab is there to take down\n");
    }
    let mut first_error = None;
    names.sort();
    for name in names {
        match lab::down(&labs.lab(&name)) {
            Ok(Downed::Running) => drop(output::print(&format!("lab `{name}` is down\n"))?),
            Ok(Downed::Remains) => drop(output::print(&format!("lab `{name}` was dead; what it left is removed\n"))?),
            Ok(Downed::Nothing) => drop(output::print(&format!("lab `{name}` is not there\n"))?),
            // The others still go down; every error is told.
            Err(error) => match first_error {
                None => first_error = Some(error),
                Some(_) => output::complain(&error.to_string()),
            },
        }
    }
    first_error.map_or(Ok(DONE), |error| Err(error.into()))
}

fn chosen(which: Which) -> &'static [Daemon] {
    match which {
        Which::Agent => &[Daemon::Agent],
        Which::Switch => &[Daemon::Switch],
        Which::All => &[Daemon::Switch, Daemon::Agent],
    }
}

fn with_node(args: &FaultArgs) -> Result<(lab::Lab, Record), CliError> {
    let (lab, record) = Labs::of_this_user()?.choose(args.name.as_ref())?;
    if record.nodes.contains_key(&args.node) {
        return Ok((lab, record));
    }
    let known: Vec<&str> = record.nodes.keys().map(String::as_str).collect();
    Err(CliError::Absent(format!("lab `{}` has no node `{}`; its nodes: {}", lab.name, args.node, known.join(", "))))
}

/// `dvr lab-start`.
///
/// # Errors
/// When a daemon cannot be started.
pub(super) fn start(node: Option<&str>, which: Which) -> Result<u8, CliError> {
    let Some(node) = node else {
        lab::start_controller()?;
        return Ok(DONE);
    };
    for daemon in chosen(which) {
        lab::start(*daemon, node)?;
    }
    Ok(DONE)
}

/// The lab, if it is its controller that is meant and not a node.
fn with_controller(args: &FaultArgs) -> Result<Option<(lab::Lab, Record)>, CliError> {
    let (lab, record) = Labs::of_this_user()?.choose(args.name.as_ref())?;
    Ok((args.node == CONTROLLER && !record.nodes.contains_key(CONTROLLER)).then_some((lab, record)))
}

fn kill(args: &FaultArgs) -> Result<u8, CliError> {
    if let Some((lab, _)) = with_controller(args)? {
        return match lab::kill_controller(&lab)? {
            true => output::print("killed: the lab's controller\n"),
            false => Err(CliError::Absent(
                "the lab's controller is not running; start it with `dvr lab restart controller`".to_owned(),
            )),
        };
    }
    let (lab, _) = with_node(args)?;
    let killed = lab::kill(&lab, &args.node, chosen(args.which))?;
    if killed.is_empty() {
        return Err(CliError::Absent(format!(
            "nothing of that runs on node `{}`; start it with `dvr lab restart`",
            args.node
        )));
    }
    let names: Vec<&str> = killed.iter().map(|daemon| daemon.name()).collect();
    output::print(&format!("killed on node `{}`: {}\n", args.node, names.join(", ")))
}

fn restart(args: &FaultArgs, tunnels: Option<Tunnels>, fast_path: Option<FastPath>) -> Result<u8, CliError> {
    let chosen_anew = tunnels.is_some() || fast_path.is_some();
    if chosen_anew && (args.node == CONTROLLER || !chosen(args.which).contains(&Daemon::Agent)) {
        let usage = "--tunnels and --fast-path are for agents: name a node and its agent, or all of it";
        return Err(CliError::Usage(usage.to_owned()));
    }
    if let Some((lab, record)) = with_controller(args)? {
        lab::restart_controller(&lab, &record)?;
        return output::print("started: the lab's controller\n");
    }
    let (lab, record) = with_node(args)?;
    if let Some(tunnels) = tunnels {
        lab::choose_tunnels(&lab.node_dir(&args.node), tunnels)?;
    }
    if let Some(fast_path) = fast_path {
        lab::choose_fast_path(&lab.node_dir(&args.node), fast_path)?;
    }
    lab::restart(&lab, &record, &args.node, chosen(args.which))?;
    let names: Vec<&str> = chosen(args.which).iter().map(|daemon| daemon.name()).collect();
    output::print(&format!("started on node `{}`: {}\n", args.node, names.join(", ")))
}

/// The running lab of a wire between two nodes.
///
/// # Errors
/// When there is no such lab, or the two are one.
fn with_wire(args: &WireArgs) -> Result<(Record, Outline), CliError> {
    if args.one == args.other {
        return Err(CliError::Usage(format!("node `{}` has no wire to itself: name two nodes", args.one)));
    }
    running(args.name.as_ref())
}

fn cut(args: &WireArgs) -> Result<u8, CliError> {
    let (record, outline) = with_wire(args)?;
    lab::cut(&record, &outline, [&args.one, &args.other])?;
    output::print(&format!("cut between `{}` and `{}`; `dvr lab heal` undoes it\n", args.one, args.other))
}

fn heal(args: &WireArgs) -> Result<u8, CliError> {
    let (record, outline) = with_wire(args)?;
    lab::heal(&record, &outline, [&args.one, &args.other])?;
    output::print(&format!("whole between `{}` and `{}`\n", args.one, args.other))
}
