//! What the commands for flows take.

use std::path::PathBuf;

use clap::Args;

use super::args::OutputArgs;
use crate::lab::LabName;

/// What `dump-flows` takes.
#[derive(Debug, Args)]
pub struct DumpFlowsArgs {
    /// The bridge: `br-int`, or `node1/br-int`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// Only flows this covers, such as `table=0,in_port=1`; also by `cookie=VALUE/MASK` and `out_port=PORT`
    #[arg(value_name = "MATCH", default_value = "")]
    pub filter: String,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
    /// Show ports by name; so it is without either option on a terminal
    #[arg(long, overrides_with = "no_names")]
    pub names: bool,
    /// Show ports by number
    #[arg(long)]
    pub no_names: bool,
    /// Leave out counters and ages
    #[arg(long)]
    pub no_stats: bool,
    /// Sort by a field, least first; by priority without one. May be given again, for flows that are equal in the first
    #[arg(long, value_name = "FIELD", num_args = 0..=1, require_equals = true, default_missing_value = "priority")]
    pub sort: Vec<String>,
    /// The same, greatest first; comes after all --sort
    #[arg(long, value_name = "FIELD", num_args = 0..=1, require_equals = true, default_missing_value = "priority")]
    pub rsort: Vec<String>,
    /// The same as `-o json`
    #[arg(long)]
    pub json: bool,
    /// How to print it
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `add-flow` takes.
#[derive(Debug, Args)]
pub struct FlowArgs {
    /// The bridge: `br-int`, or `node1/br-int`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// The flow, such as `table=0,priority=10,ip,nw_dst=10.1.0.0/24,actions=drop`; `-` reads one a line
    pub flow: String,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// What `add-flows` and `replace-flows` take.
#[derive(Debug, Args)]
pub struct FileFlowsArgs {
    /// The bridge: `br-int`, or `node1/br-int`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// Flows, one a line; `-` for standard input
    pub file: PathBuf,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// What `diff-flows` takes.
#[derive(Debug, Args)]
pub struct DiffFlowsArgs {
    /// A file of flows or a bridge, `[NODE/]BRIDGE`; a file where there is one of that name
    #[arg(value_name = "BRIDGE|FILE")]
    pub first: String,
    /// What it is compared with
    #[arg(value_name = "BRIDGE|FILE")]
    pub second: String,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
    /// Show ports by name; so it is without either option on a terminal
    #[arg(long, overrides_with = "no_names")]
    pub names: bool,
    /// Show ports by number
    #[arg(long)]
    pub no_names: bool,
}

/// What `mod-flows` and `del-flows` take.
#[derive(Debug, Args)]
pub struct ChangeFlowsArgs {
    /// The bridge: `br-int`, or `node1/br-int`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// The flow; for `del-flows`, all of the bridge's without it, and `cookie=VALUE/MASK`, `out_port=PORT` and `table=N`
    /// narrow it down; `-` reads one a line, which are changed at one instant
    #[arg(default_value = "")]
    pub flow: String,
    /// Only the flow with exactly this table, priority and match
    #[arg(long)]
    pub strict: bool,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}
