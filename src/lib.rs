//! dvr: a distributed virtual router for plain Linux.
//!
//! The same router, with the same MACs and addresses, lives in a namespace on every node that hosts a machine of its
//! networks. Traffic between subnets is routed by the kernel where it starts and crosses the wire once, under a *host
//! MAC* that stands for all routers of its node. A userspace switch joins machines, routers and tunnels.
//!
//! # The layers, from the bottom up
//!
//! | Modules | What they own |
//! |---|---|
//! | [`types`], [`wire`] | values that cannot be wrong; headers as octets |
//! | [`api`] | the messages between processes |
//! | [`fastpath`] | decisions as tables and programs for the kernel; what loads and hangs them up is shell |
//! | [`capture`] | frames as lines of text or as pcapng; its sockets are shell |
//! | [`model`], [`placement`] | a document to a checked topology; what each node must hold |
//! | [`datapath`] | the switch as a pure machine: keys, tables, cache; its ports are shell |
//! | [`netns`], [`link`], [`bridge`], [`neigh`], [`route`], [`vxlan`], [`gre`] | one kernel object each: desired, observed, difference, and a shell half |
//! | [`plan`], [`program`] | a node's desired kernel state to ordered operations; a node's view to flows |
//! | `store` | shell: keys and octets at rest, with revisions, watches and leases; a file, or etcd |
//! | `tls`, `rpc`, `controller` | shell: certificates; the control plane's protocol; who owns what is desired |
//! | `netlink`, `control`, `switch`, `agent` | shell: sockets, and the two daemons of a node |
//! | `lab`, `bench`, `cli` | whole nodes in namespaces; how fast they are beside others; the command line |
//!
//! A module uses only what is above it in this table. The pure ones take time and octets as arguments and return
//! decisions; they build without the `kernel` feature, and `tests/architecture.rs` holds both.
//!
//! # A packet's walk
//!
//! A port (`datapath::port`) reads a frame, up to 64 KB of it at once, and hands it to [`datapath::Worker::process`].
//! The worker makes its key and asks its cache. On a miss the [`datapath::Switch`] walks the tables of br-int, crosses
//! the patch, walks those of br-tun, and returns a flat list of actions with the mask of bits it looked at; that is the
//! cache entry. The actions rewrite the frame in place and hand it to a port again: a TAP, a packet socket, or a tunnel
//! that cuts it into segments for the wire. What the tables say is written by [`program`]; its module doc draws them.
//!
//! # A reconciliation's walk
//!
//! A controller, or a topology file and [`placement`], give the agent its node's [`model::view::NodeView`]. It observes the kernel, which fails as a
//! whole or tells all; [`plan`] compares and orders operations; they are applied, ports and flows follow over the
//! switch's socket, and the kernel is observed again until it equals what was desired. Objects that are not ours by
//! name are never touched.

#[cfg(feature = "kernel")]
pub mod agent;
pub mod api;
#[cfg(feature = "kernel")]
pub mod bench;
pub mod bridge;
pub mod capture;
#[cfg(feature = "kernel")]
pub mod cli;
#[cfg(feature = "kernel")]
pub mod clock;
#[cfg(feature = "kernel")]
pub mod control;
#[cfg(feature = "kernel")]
pub mod controller;
pub mod datapath;
pub mod fastpath;
pub mod gre;
#[cfg(feature = "kernel")]
pub mod lab;
pub mod link;
pub mod model;
pub mod neigh;
#[cfg(feature = "kernel")]
pub mod netlink;
pub mod netns;
pub mod placement;
pub mod plan;
pub mod program;
pub mod route;
#[cfg(feature = "kernel")]
pub mod rpc;
#[cfg(feature = "kernel")]
pub mod store;
#[cfg(feature = "kernel")]
pub mod switch;
#[cfg(feature = "kernel")]
pub mod tls;
pub mod types;
pub mod vxlan;
pub mod wire;
