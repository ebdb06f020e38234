//! The only netlink sockets: route netlink's requests, dumps, batches, acknowledgements, and the kernel's own words for what failed.
//!
//! A socket belongs for life to the namespace it was opened in, so there is one [`Connection`] a namespace, opened on a
//! thread that entered it for just that. The kernel carries a request out inside `sendmsg(2)`: the answer is queued before
//! the call returns, and nothing is ever waited for but the kernel's own lock. So a connection is plain and synchronous;
//! there is no task to keep alive and no channel to fill. What must be waited for, notifications, is in [`monitor`]. Of
//! nfnetlink no more is asked than what [`filter`] does.
//!
//! Messages are netlink-packet-route's. The exchange is ours, because three things matter here that the usual client
//! hides: a dump torn by a concurrent change (`NLM_F_DUMP_INTR`), a dump that ends in an error (`NLMSG_DONE` carries one),
//! and the text that comes with a refusal (`NLMSGERR_ATTR_MSG`); and because ten thousand neighbours go out with one
//! acknowledgement per [`BATCH_MAX`] instead of one each.

mod connection;
mod error;
pub mod filter;
#[cfg(test)]
pub(crate) mod golden;
pub mod monitor;
mod sys;

pub use connection::{BATCH_MAX, BatchFailure, Connection, DUMP_TRIES_MAX};
pub use error::{Error, Refusal};
