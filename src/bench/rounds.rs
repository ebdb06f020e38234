//! Rounds of turns, each in a process and a stage of its own.

use std::ffi::OsString;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::lab;

use super::act::{Acted, Task};
use super::measure::Measure;
use super::report::{Machine, Report, Settings, Turn};
use super::{Error, now};

/// Measures all that the settings ask for, in turns. `words` are the arguments that have this program do a task, which is
/// appended as JSON; `tell` hears what is under way.
///
/// # Errors
/// [`Error::Os`] if this program cannot be started. A peer that cannot be measured is left out, and the report says why.
pub fn run(mut settings: Settings, words: &[&str], mut tell: impl FnMut(&str)) -> Result<Report, Error> {
    let load =
        || fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(3).collect::<Vec<_>>().join(" ");
    let mut machine = Machine {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        root: nix::unistd::geteuid().is_root(),
        load: [load(), String::new()],
    };
    let mut turns = Vec::new();
    let (begun, mut longest) = (now(), Duration::ZERO);
    for round in 0..settings.rounds {
        let sets_out = begun.elapsed();
        // The first is made whatever it takes: without it there is nothing to tell.
        if round > 0 && settings.seconds_most.is_some_and(|most| (sets_out + longest).as_secs() >= most) {
            tell(&format!("no time for round {} and later: each takes up to {} s", round + 1, longest.as_secs()));
            settings.rounds = round;
            break;
        }
        // Whoever begins has the others' warmth or lack of it: each begins in its turn.
        let mut peers = settings.peers.clone();
        let shift = usize::try_from(round).unwrap_or(0) % peers.len().max(1);
        peers.rotate_left(shift);
        for peer in peers {
            tell(&format!("round {} of {}: {peer}", round + 1, settings.rounds));
            let Settings { mut measures, ways, millis, wire, .. } = settings.clone();
            // It takes longest, and is the same each time.
            measures.retain(|measure| round == 0 || *measure != Measure::Memory);
            if measures.is_empty() {
                continue;
            }
            let task = Task { peer, measures, ways, millis, wire };
            let Acted { samples, left_out } = turn(&task, words)?;
            turns.push(Turn { round, peer, samples, left_out });
        }
        longest = longest.max(begun.elapsed() - sets_out);
    }
    machine.load[1] = load();
    Ok(Report::new(settings, machine, turns))
}

fn turn(task: &Task, words: &[&str]) -> Result<Acted, Error> {
    let json = serde_json::to_string(task).map_err(|error| Error::os("encode a task", error))?;
    let words: Vec<OsString> = words.iter().map(OsString::from).chain([json.into()]).collect();
    let mut command = lab::Stage::command(&words);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| Error::os("start the measuring process", source))?;
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        let why = Error::Stage { how: output.status.to_string() }.to_string();
        Acted { samples: Vec::new(), left_out: vec![why] }
    }))
}
