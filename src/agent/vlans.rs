//! The local VLANs on disk, so that an agent that starts anew gives every network the one it had, and no flow changes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::types::VlanId;

/// The file's name in the run directory.
const FILE: &str = "local-vlans.json";

/// Networks' local VLANs.
pub(super) type Vlans = BTreeMap<Uuid, VlanId>;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} local VLANs in {}: {source}", path.display())]
pub struct VlanFileError {
    /// What was attempted.
    what: &'static str,
    /// The file.
    path: PathBuf,
    /// The kernel's word.
    source: io::Error,
}

/// What the file holds; nothing if there is none. One that makes no sense is as good as none: VLANs are then given anew,
/// which costs a moment of forwarding and nothing else.
///
/// # Errors
/// When a file that is there cannot be read.
pub(super) fn load(run_dir: &Path) -> Result<Vlans, VlanFileError> {
    let path = run_dir.join(FILE);
    match std::fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "local VLANs make no sense: they are given anew");
            Vlans::new()
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vlans::new()),
        Err(source) => Err(VlanFileError { what: "read", path, source }),
    }
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub(super) fn save(run_dir: &Path, vlans: &Vlans) -> Result<(), VlanFileError> {
    let path = run_dir.join(FILE);
    let fresh = run_dir.join("local-vlans.json.new");
    let failed = |source| VlanFileError { what: "write", path: path.clone(), source };
    let text = serde_json::to_vec(vlans).map_err(|error| failed(error.into()))?;
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path)).map_err(failed)
}

/// Forgets them.
///
/// # Errors
/// When a file that is there cannot be removed.
pub(super) fn forget(run_dir: &Path) -> Result<(), VlanFileError> {
    let path = run_dir.join(FILE);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(VlanFileError { what: "remove", path, source }),
        Ok(()) | Err(_) => Ok(()),
    }
}
