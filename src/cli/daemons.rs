//! The daemons: logging, then over to them.

use std::path::Path;

use tracing_subscriber::EnvFilter;

use super::args::{AgentArgs, Attach, PurgeArgs, Routed, SwitchArgs};
use super::controller_args::ControllerArgs;
use super::error::{CliError, DONE};
use super::output;
use crate::controller::{self, ControllerConfig, EtcdFiles, StoreAt};
use crate::lab::{self, LabName};
use crate::{agent, switch, tls};

/// Sends logs to standard error: as much as `filter` says, else `RUST_LOG`, else `info`.
fn log_to_stderr(filter: Option<&str>) -> Result<(), CliError> {
    let text =
        filter.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|bad| {
        CliError::Usage(format!("`{text}` is no log filter: {bad}; write `debug` or `info,dvr::agent=trace`"))
    })?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
    Ok(())
}

/// `dvr agent`.
///
/// # Errors
/// When it cannot start, or ends by an error.
pub(super) fn agent(args: AgentArgs) -> Result<u8, CliError> {
    log_to_stderr(args.log.as_deref())?;
    let node = args.node.map_or_else(host_name, Ok)?;
    let AgentArgs { topology, controller, certs, tunnel_ip, run_dir, netns_dir, attach, tunnels, fast_path, .. } = args;
    let desired = match (topology, controller) {
        (_, Some(addresses)) => agent::DesiredFrom::Controllers(agent::Controllers { addresses, certs, tunnel_ip }),
        (Some(topology), None) => agent::DesiredFrom::Topology(topology),
        (None, None) => {
            return Err(CliError::Usage(
                "say with --controller or --topology what tells the node what to hold".to_owned(),
            ));
        }
    };
    let attachment = match attach {
        Attach::Auto => agent::Attachment::Auto,
        Attach::Tap => agent::Attachment::Tap,
        Attach::Veth => agent::Attachment::Veth,
    };
    if let agent::DesiredFrom::Controllers(controllers) = &desired
        && controllers.addresses.need_tls()
    {
        // Told at once, and not again and again in the log.
        let identity = tls::Identity::Node(node.clone());
        tls::client_config(&controllers.certs, &identity).map_err(|error| CliError::Usage(error.to_string()))?;
    }
    let config = agent::AgentConfig {
        desired,
        netns_dir,
        attachment,
        tunnels,
        fast_path,
        ..agent::AgentConfig::new(node, "", run_dir)
    };
    agent::run(config).map_err(|error| CliError::Ended(error.to_string()))?;
    Ok(DONE)
}

/// `dvr controller`.
///
/// # Errors
/// When it cannot start, or ends by an error.
pub(super) fn controller(args: ControllerArgs) -> Result<u8, CliError> {
    log_to_stderr(args.log.as_deref())?;
    let ControllerArgs { store, etcd, etcd_ca, etcd_cert, etcd_key, listen, socket, certs, apply, log: _ } = args;
    let tls = etcd_ca.map(|ca| EtcdFiles { ca, identity: etcd_cert.zip(etcd_key) });
    let store = if etcd.is_empty() { StoreAt::File(store) } else { StoreAt::Etcd { endpoints: etcd, tls } };
    let config = ControllerConfig { store, socket, listen, certs, apply };
    controller::run(&config).map_err(|error| CliError::Ended(error.to_string()))?;
    Ok(DONE)
}

/// `dvr purge`.
///
/// # Errors
/// When an agent runs, or something stays.
pub(super) fn purge(args: PurgeArgs) -> Result<u8, CliError> {
    let PurgeArgs { run_dir, netns_dir } = args;
    // Neither is looked at: what goes is told by names alone.
    let (node, topology) = (host_name()?, "");
    let config = agent::AgentConfig { netns_dir, ..agent::AgentConfig::new(node, topology, run_dir) };
    let gone = agent::purge(&config).map_err(|error| CliError::Ended(error.to_string()))?;
    output::print(&match gone {
        0 => "nothing of an agent was there\n".to_owned(),
        gone => format!("removed: {gone} namespaces and bridges\n"),
    })
}

fn host_name() -> Result<String, CliError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname");
    text.map(|name| name.trim().to_owned()).map_err(|error| {
        CliError::Usage(format!("cannot read the host's name: {error}; say which node this is with --node"))
    })
}

/// `dvr switch`.
///
/// # Errors
/// When it cannot start, or ends by an error.
pub(super) fn switch(args: SwitchArgs) -> Result<u8, CliError> {
    log_to_stderr(args.log.as_deref())?;
    let SwitchArgs { run_dir, workers, flow_limit, routed, log: _ } = args;
    let routed = match routed {
        Routed::Bypass => switch::Routed::Bypass,
        Routed::Namespace => switch::Routed::Namespace,
    };
    let config = switch::SwitchConfig { run_dir, workers, flow_limit, routed };
    switch::run(config).map_err(|error| CliError::Ended(error.to_string()))?;
    Ok(DONE)
}

/// `dvr lab-init`.
///
/// # Errors
/// Whatever ended the lab.
pub(super) fn lab_init(name: &LabName, dir: &Path, inside: bool) -> Result<u8, CliError> {
    log_to_stderr(None)?;
    lab::init(name, dir, !inside)?;
    Ok(DONE)
}

/// `dvr lab-keep`.
///
/// # Errors
/// Whatever ended the node.
pub(super) fn lab_keep(node: &str) -> Result<u8, CliError> {
    log_to_stderr(None)?;
    lab::keep(node)?;
    Ok(DONE)
}
