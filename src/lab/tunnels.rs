//! What makes the tunnels of a lab's nodes, whether they have the fast path, and how many workers their switches: words in
//! each node's directory, with which its daemons are started.

use core::str::FromStr;
use std::fs;
use std::path::Path;

use super::Error;
use crate::agent::{BadTunnelsWord, FastPath, Tunnels};

/// The files in a node's directory.
const FILE: &str = "tunnels";
const FAST_PATH_FILE: &str = "fast-path";
const WORKERS_FILE: &str = "workers";

/// What is to make tunnels, on one node or on all: `kernel`, `node1=kernel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelsOf {
    /// The node; `None` for all that are not named.
    pub node: Option<String>,
    /// What is to make its tunnels.
    pub tunnels: Tunnels,
}

impl FromStr for TunnelsOf {
    type Err = BadTunnelsWord;

    fn from_str(text: &str) -> Result<Self, BadTunnelsWord> {
        let (node, word) = text.rsplit_once('=').map_or((None, text), |(node, word)| (Some(node.to_owned()), word));
        Ok(Self { node, tunnels: word.parse()? })
    }
}

/// What these wishes mean for a node: the last that names it, else the last that names none.
pub(super) fn wished(wishes: &[TunnelsOf], node: &str) -> Tunnels {
    let last = |of: Option<&str>| wishes.iter().rev().find(|wish| wish.node.as_deref() == of);
    last(Some(node)).or_else(|| last(None)).map_or_else(Tunnels::default, |wish| wish.tunnels)
}

/// Has a node's agent make its tunnels so when it is started next.
///
/// # Errors
/// [`Error::Os`] when that cannot be written.
pub fn choose_tunnels(node_dir: &Path, tunnels: Tunnels) -> Result<(), Error> {
    write(&node_dir.join(FILE), tunnels.name())
}

/// Has a node have the fast path, or not, when its agent is started next.
///
/// # Errors
/// [`Error::Os`] when that cannot be written.
pub fn choose_fast_path(node_dir: &Path, fast_path: FastPath) -> Result<(), Error> {
    write(&node_dir.join(FAST_PATH_FILE), fast_path.name())
}

/// Has a node's switch have so many workers whenever it is started.
///
/// # Errors
/// [`Error::Os`] when that cannot be written.
pub(super) fn choose_workers(node_dir: &Path, workers: usize) -> Result<(), Error> {
    write(&node_dir.join(WORKERS_FILE), &workers.to_string())
}

/// How many were chosen for the node whose directory this is; zero for as many as the switch likes.
pub(super) fn workers(node_dir: &Path) -> usize {
    read(&node_dir.join(WORKERS_FILE))
}

fn write(path: &Path, word: &str) -> Result<(), Error> {
    fs::write(path, word).map_err(|source| Error::os(format!("write {}", path.display()), source))
}

fn read<T: FromStr + Default>(path: &Path) -> T {
    fs::read_to_string(path).ok().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// What was chosen for the node whose directory this is.
pub(super) fn chosen(node_dir: &Path) -> (Tunnels, FastPath) {
    (read(&node_dir.join(FILE)), read(&node_dir.join(FAST_PATH_FILE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_none_and_the_last_word_counts() {
        let wishes: Vec<TunnelsOf> =
            ["node1=userspace", "node1=kernel", "userspace"].iter().map(|text| text.parse().expect("a wish")).collect();
        assert_eq!(wished(&wishes, "node1"), Tunnels::Kernel);
        assert_eq!(wished(&wishes, "node2"), Tunnels::Userspace);
        assert_eq!(wished(&[], "node2"), Tunnels::Auto);
        assert!("node1=vxlan".parse::<TunnelsOf>().is_err());
    }
}
