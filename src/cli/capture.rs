//! `dvr capture`: what passes the interfaces of a place.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use super::args::CaptureArgs;
use super::error::{CliError, DONE};
use super::{labs, output};
use crate::capture::socket::{Selection, run};
use crate::capture::{Sink, line, pcapng};
use crate::lab::Place;

/// Captures until interrupted, or until enough was seen.
///
/// # Errors
/// Whatever failed.
pub(super) fn capture(args: &CaptureArgs) -> Result<u8, CliError> {
    let (record, outline) = labs::running(args.name.as_ref())?;
    let place = Place::find(record.name.as_str(), &outline, &args.place)?;
    let selection = Selection { interfaces: args.interfaces.clone(), count: args.count };
    // Opened before any namespace is entered: the path is the caller's.
    let file = args.write.as_deref().map(create).transpose()?;
    place.enter_network(&record)?;
    let stop = until_signalled()?;
    let failed = |source| CliError::Capture { place: place.to_string(), source };
    let begun = || output::complain(&format!("capturing at {place}; Ctrl-C ends it"));
    let into = |sink: &mut dyn Sink| run(&selection, sink, &stop, begun).map_err(failed);
    let seen = match file {
        Some(out) => into(&mut pcapng::Writer::new(out).map_err(|source| CliError::Output { source })?)?,
        None => into(&mut line::Writer::new(BufWriter::new(std::io::stdout()), outline.underlay.vxlan_port))?,
    };
    let lost = match seen.lost {
        0 => String::new(),
        lost => {
            format!("; the kernel had no room for {lost} more: write to a file with -w, or pick interfaces with -i")
        }
    };
    output::complain(&format!("{} frames{lost}", seen.frames));
    Ok(DONE)
}

fn create(path: &Path) -> Result<Box<dyn Write>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(std::io::stdout())));
    }
    let failed = |source| CliError::Create { path: PathBuf::from(path), source };
    Ok(Box::new(BufWriter::new(File::create(path).map_err(failed)?)))
}

/// A flag that SIGINT and SIGTERM set: a thread waits for them, so that what was captured is written whole.
fn until_signalled() -> Result<Arc<AtomicBool>, CliError> {
    let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    let blocked = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ends), None);
    blocked.map_err(|errno| CliError::Output { source: errno.into() })?;
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    std::thread::spawn(move || {
        // It fails only for a signal set that is no signal set.
        if ends.wait().is_ok() {
            seen.store(true, Ordering::Relaxed);
        }
    });
    Ok(stop)
}
