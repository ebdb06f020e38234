//! What is known of desired state, written down for a start without any controller.
//!
//! A burst of changes is written once, on a thread of its own, and writing takes no more than a twentieth of the time: with a
//! hundred thousand ports it is tens of megabytes each time.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::model::view::NodeView;

/// How long what came may wait to be written down, so that a burst is written once.
const DELAY: Duration = Duration::from_millis(200);
/// How many times as long as the last writing took the next one waits.
const REST: u32 = 20;
/// Where what is known is kept in the run directory.
const FILE: &str = "view.json";

/// What is known. The view is shared with whoever writes it down or takes it whole: neither keeps the link waiting.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) epoch: String,
    pub(super) revision: u64,
    pub(super) view: Arc<NodeView>,
}

/// The same as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Written<V> {
    epoch: String,
    revision: u64,
    view: V,
}

/// Writes down what is known, some time after it changed.
#[derive(Debug)]
pub(super) struct Saver {
    file: PathBuf,
    /// When to write, if anything changed since.
    due: Option<Instant>,
    /// What is being written, and since when.
    writing: Option<(JoinHandle<()>, Instant)>,
    /// Not to write again before this.
    rest_until: Option<Instant>,
}

impl Saver {
    /// One that writes to the run directory.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { file: run_dir.join(FILE), due: None, writing: None, rest_until: None }
    }

    /// What is known changed.
    pub(super) fn changed(&mut self, now: Instant) {
        let earliest = now + DELAY;
        self.due.get_or_insert(self.rest_until.map_or(earliest, |rest| rest.max(earliest)));
    }

    /// Waits until something is to be done, and does that: gives up waiting without harm. `known` gives what is known.
    pub(super) async fn turn(&mut self, known: impl Fn() -> Option<Known>) {
        if let Some((writing, begun)) = &mut self.writing {
            // It has told what failed.
            let _written = writing.await;
            let now = Instant::now();
            self.rest_until = Some(now + REST * now.duration_since(*begun));
            self.due = self.due.max(self.due.and(self.rest_until));
            self.writing = None;
            return;
        }
        match self.due {
            Some(at) => {
                sleep_until(at).await;
                self.begin(known());
            }
            None => core::future::pending().await,
        }
    }

    /// Waits until all that is known is written.
    pub(super) async fn flush(&mut self, known: impl Fn() -> Option<Known>) {
        if let Some((writing, _)) = self.writing.take() {
            let _written = writing.await;
        }
        if self.due.is_some() {
            self.begin(known());
        }
        if let Some((writing, _)) = self.writing.take() {
            let _written = writing.await;
        }
    }

    fn begin(&mut self, known: Option<Known>) {
        self.due = None;
        let Some(known) = known else { return };
        let file = self.file.clone();
        let write = move || {
            if let Err(error) = write_down(&file, &known) {
                tracing::warn!(file = %file.display(), %error, "what is known cannot be kept for the next start");
            }
        };
        self.writing = Some((tokio::task::spawn_blocking(write), Instant::now()));
    }
}

/// Writes down what is known. Without it the next start only needs a controller.
fn write_down(file: &Path, Known { epoch, revision, view }: &Known) -> io::Result<()> {
    let draft = file.with_extension("new");
    let text = serde_json::to_vec(&Written { epoch: epoch.clone(), revision: *revision, view: &**view })?;
    write_private(&draft, &text)?;
    std::fs::rename(&draft, file)
}

/// Writes a file that nobody else may read: it tells who is where, also of others' networks.
fn write_private(path: &Path, octets: &[u8]) -> io::Result<()> {
    // What an earlier run left half-done may have other rights.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(octets)
}

/// What was known of `node` at the last run.
pub(super) fn load(run_dir: &Path, node: &str) -> Option<Known> {
    let file = run_dir.join(FILE);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the last view cannot be read: a controller is needed");
            return None;
        }
    };
    match serde_json::from_slice::<Written<NodeView>>(&text) {
        Ok(Written { epoch, revision, view }) if view.node.name == node => {
            Some(Known { epoch, revision, view: Arc::new(view) })
        }
        Ok(known) => {
            tracing::warn!(file = %file.display(), of = known.view.node.name, "the last view is another node's: left");
            None
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the last view makes no sense to this release: left");
            None
        }
    }
}

/// Forgets what is known, for whoever removes a node.
///
/// # Errors
/// The kernel's word.
pub(super) fn forget(run_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(run_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Topology;
    use crate::placement;

    fn known(revision: u64) -> Known {
        let topology = Topology::parse("version: 1\nnodes: {n1: {}}\n", "test").expect("a sound one");
        let view = placement::view(&topology, "n1").expect("it has the node");
        Known { epoch: "one".to_owned(), revision, view: Arc::new(view) }
    }

    /// Input: changes while nothing is written, while something is, and at the end. Output: the first two are written once
    /// both were waited for, the last by the flush; and the view is nobody's but the test's when all is over.
    #[tokio::test]
    async fn a_burst_is_written_once_and_the_last_change_is_not_lost() {
        let dir = std::env::temp_dir().join(format!("dvr-saved-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let revision = || load(&dir, "n1").map(|known| known.revision);
        let mut saver = Saver::new(&dir);
        let first = known(1);
        let now = Instant::now();
        saver.changed(now);
        saver.changed(now + DELAY);
        assert_eq!(saver.due, Some(now + DELAY));
        // Its time has come.
        saver.due = Some(now);
        saver.turn(|| Some(first.clone())).await;
        assert!(saver.due.is_none() && saver.writing.is_some());
        saver.changed(Instant::now());
        saver.turn(|| unreachable!("the first is still written")).await;
        assert_eq!(revision(), Some(1));
        assert!(saver.due >= saver.rest_until && saver.writing.is_none());
        saver.flush(|| Some(known(2))).await;
        assert_eq!(revision(), Some(2));
        saver.flush(|| unreachable!("nothing changed")).await;
        assert_eq!(Arc::strong_count(&first.view), 1);
        assert!(load(&dir, "n2").is_none(), "another node's");
        forget(&dir).expect("it is there");
        assert_eq!(revision(), None);
        forget(&dir).expect("it need not be");
        std::fs::remove_dir_all(&dir).expect("ours");
    }
}
