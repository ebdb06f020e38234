//! Where desired state comes from: today a topology file, placed for one node.

use std::path::PathBuf;

use crate::model::Topology;
use crate::model::view::NodeView;
use crate::placement;

/// A source of desired state. It is asked at the start, and again whenever something says that it has news.
pub(super) trait Desired {
    /// What the node is to hold now.
    ///
    /// # Errors
    /// When there is none, or none that could be: what is held already stays.
    fn view(&mut self) -> Result<NodeView, DesiredError>;
}

/// Why there is no desired state.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    /// The file cannot be read.
    #[error("cannot read topology {}: {source}; what the node holds stays as it is", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// The file says what cannot be.
    #[error("topology {}: {why}; what the node holds stays as it is", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Every mistake in it.
        why: String,
    },
    /// The topology has no such node.
    #[error("topology {} has no node `{node}`: add it, or start the agent with the name of one it has", path.display())]
    NoNode {
        /// The file.
        path: PathBuf,
        /// The node asked for.
        node: String,
    },
}

/// A topology file.
#[derive(Debug)]
pub(super) struct TopologyFile {
    pub(super) path: PathBuf,
    pub(super) node: String,
}

impl Desired for TopologyFile {
    fn view(&mut self) -> Result<NodeView, DesiredError> {
        let path = || self.path.clone();
        let text = std::fs::read_to_string(&self.path).map_err(|source| DesiredError::Read { path: path(), source })?;
        let topology = Topology::parse(&text, &self.path.display().to_string())
            .map_err(|error| DesiredError::Bad { path: path(), why: error.to_string() })?;
        placement::view(&topology, &self.node)
            .ok_or_else(|| DesiredError::NoNode { path: path(), node: self.node.clone() })
    }
}
