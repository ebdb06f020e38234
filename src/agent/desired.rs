//! Where desired state comes from: a controller, or a topology file placed for one node.

use std::path::PathBuf;

use super::link::Link;
use crate::model::Topology;
use crate::model::view::{NodeView, ViewChange};
use crate::placement;

/// A source of desired state. It is asked at the start, and again whenever something says that it has news.
pub(super) trait Desired {
    /// What is known of it since it was last asked.
    ///
    /// # Errors
    /// When there is nothing to hold, or nothing that could be: what is held already stays.
    fn news(&mut self) -> Result<News, DesiredError>;

    /// What making the node so came to: every error that stands, none if it is as last told by [`Self::news`].
    fn came_to(&mut self, _errors: &[String]) {}
}

/// What the node is to hold.
#[derive(Debug)]
pub(super) enum News {
    /// This, whatever was told before.
    Whole(Box<NodeView>),
    /// What was told before, with these changes, in order.
    Changes(Vec<ViewChange>),
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
    /// No controller has told yet, and nothing is known from before.
    #[error("node `{node}` does not know yet what it is to hold: it asks {controllers}, and {why}")]
    Unknown {
        /// The node.
        node: String,
        /// Whom it asks.
        controllers: String,
        /// What came of it.
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

/// Either source.
#[derive(Debug)]
pub(super) enum Source {
    File(TopologyFile),
    Link(Link),
}

impl Desired for Source {
    fn news(&mut self) -> Result<News, DesiredError> {
        match self {
            Self::File(file) => file.news(),
            Self::Link(link) => link.news(),
        }
    }

    fn came_to(&mut self, errors: &[String]) {
        match self {
            Self::File(file) => file.came_to(errors),
            Self::Link(link) => link.came_to(errors),
        }
    }
}

/// A topology file.
#[derive(Debug)]
pub(super) struct TopologyFile {
    pub(super) path: PathBuf,
    pub(super) node: String,
}

impl Desired for TopologyFile {
    fn news(&mut self) -> Result<News, DesiredError> {
        let path = || self.path.clone();
        let text = std::fs::read_to_string(&self.path).map_err(|source| DesiredError::Read { path: path(), source })?;
        let topology = Topology::parse(&text, &self.path.display().to_string())
            .map_err(|error| DesiredError::Bad { path: path(), why: error.to_string() })?;
        placement::view(&topology, &self.node)
            .map(|view| News::Whole(Box::new(view)))
            .ok_or_else(|| DesiredError::NoNode { path: path(), node: self.node.clone() })
    }
}
