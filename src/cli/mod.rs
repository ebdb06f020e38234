//! The command line: one table of commands, one place that prints, one that finds the daemons.
//!
//! Owns arguments, text and exit codes; what is done is done by [`crate::lab`] and by the daemons.

mod args;
mod bench;
mod bridge_args;
mod bridges;
mod capture;
mod certs;
mod controller_args;
mod controllers;
mod daemons;
mod desired;
mod doctor;
mod error;
mod flow_args;
mod flow_file;
mod flows;
mod labs;
mod output;
mod paths;
mod probe;
mod show;
mod status;
mod tables;
mod target;
mod trace;
mod walk;
mod wishes;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use args::Cli;
use args::Command;
use error::CliError;

/// Runs the program with the process's arguments and gives its exit code. Must be called before any thread exists.
#[must_use]
pub fn main() -> ExitCode {
    // Started as /proc/self/exe, a process would be called `exe`; a name too long or refused does no harm.
    let _cosmetic = nix::sys::prctl::set_name(c"dvr");
    // Written with one dash by `ovs-appctl ofproto/trace`, whose users are many.
    let words = std::env::args_os().map(|word| if word == "-generate" { "--generate".into() } else { word });
    match run(Cli::parse_from(words)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<u8, CliError> {
    match cli.command {
        Command::Lab { command } => labs::run(command),
        Command::Controller(args) => daemons::controller(args),
        Command::Status(args) => status::status(&args),
        Command::Apply(args) => desired::apply(&args),
        Command::Diff(args) => desired::diff(&args),
        Command::Get(args) => desired::get(&args),
        Command::Describe(args) => desired::describe(&args),
        Command::Delete(args) => desired::delete(&args),
        Command::Certs { command } => certs::certs(&command),
        Command::Agent(args) => daemons::agent(args),
        Command::Switch(args) => daemons::switch(args),
        Command::Purge(args) => daemons::purge(args),
        Command::Show(args) => show::show(&args),
        Command::DumpFlows(args) => flows::dump(&args),
        Command::AddFlow(args) => flows::add(&args),
        Command::AddFlows(args) => flows::add_file(&args),
        Command::ReplaceFlows(args) => flows::replace(&args),
        Command::DiffFlows(args) => flows::diff(&args),
        Command::ModFlows(args) => flows::modify(&args),
        Command::DelFlows(args) => flows::delete(&args),
        Command::Trace(args) => trace::trace(&args),
        Command::AddBr(args) => bridges::add_bridge(&args),
        Command::DelBr(args) => bridges::del_bridge(&args),
        Command::AddPort(args) => bridges::add_port(&args),
        Command::DelPort(args) => bridges::del_port(&args),
        Command::SetPort(args) => bridges::set_port(&args),
        Command::Fdb(args) => bridges::fdb(&args),
        Command::Arp(args) => tables::responders(&args),
        Command::Neigh(args) => tables::neighbours(&args),
        Command::Capture(args) => capture::capture(&args),
        Command::Bench(args) => bench::bench(args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Completions { shell } => {
            let mut octets = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dvr", &mut octets);
            output::print(&String::from_utf8_lossy(&octets))
        }
        Command::Man { dir: Some(dir) } => manual_pages(&dir),
        Command::Man { dir: None } => manual(),
        Command::LabInit { name, dir, inside } => daemons::lab_init(&name, &dir, inside),
        Command::LabKeep { node } => daemons::lab_keep(&node),
        Command::LabStart { node, daemon } => labs::start(node.as_deref(), daemon),
        Command::DoctorProbe => probe::main(),
        Command::BenchStage { life, task } => bench::stage(life, &task),
    }
}

/// Writes the manual page of the program, and of each of its commands.
fn manual_pages(dir: &Path) -> Result<u8, CliError> {
    let failed = |source| CliError::Create { path: dir.to_path_buf(), source };
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    Ok(error::DONE)
}

/// Prints one manual page: the program's, then a section for each of its commands.
fn manual() -> Result<u8, CliError> {
    let mut octets = Vec::new();
    let mut whole = Cli::command();
    // Gives each command its full name, such as `dvr lab up`.
    whole.build();
    let render = |octets: &mut Vec<u8>, command: &clap::Command| {
        clap_mangen::Man::new(command.clone()).render(octets).map_err(|source| CliError::Output { source })
    };
    render(&mut octets, &whole)?;
    let mut waiting: Vec<&clap::Command> = whole.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    waiting.reverse();
    while let Some(command) = waiting.pop() {
        render(&mut octets, command)?;
        waiting.extend(command.get_subcommands().filter(|command| !command.is_hide_set()));
    }
    output::print(&String::from_utf8_lossy(&octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_table_is_sound() {
        Cli::command().debug_assert();
    }
}
