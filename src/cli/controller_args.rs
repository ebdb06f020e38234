//! The arguments of `dvr controller`, and of the commands that speak with one.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::OutputArgs;
use crate::controller::ControllerConfig;
use crate::lab::LabName;
use crate::model::Kind;
use crate::rpc::Addresses;
use crate::tls;

/// The controller's arguments.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// The file that keeps desired state, for a controller alone
    #[arg(long, value_name = "FILE", default_value_os_t = PathBuf::from(ControllerConfig::STATE_DIR).join(ControllerConfig::FILE))]
    pub store: PathBuf,
    /// Keep desired state in etcd instead: its endpoints, such as `http://10.0.0.1:2379`
    #[arg(long, value_name = "URL[,URL]", value_delimiter = ',', conflicts_with = "store")]
    pub etcd: Vec<String>,
    /// Who vouches for etcd's members, where their URLs are `https://`
    #[arg(long, value_name = "FILE", requires = "etcd")]
    pub etcd_ca: Option<PathBuf>,
    /// The certificate to show to etcd's members, where they ask for one
    #[arg(long, value_name = "FILE", requires = "etcd_ca", requires = "etcd_key")]
    pub etcd_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
    /// Where others reach it, under mutual TLS; may be given again
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Vec<SocketAddr>,
    /// The unix socket for this host
    #[arg(long, value_name = "PATH", default_value_os_t = PathBuf::from("/run/dvr").join(ControllerConfig::SOCKET))]
    pub socket: PathBuf,
    /// Where the authority's and the controller's certificate are, if it listens
    #[arg(long, value_name = "DIR", default_value = tls::DIR)]
    pub certs: PathBuf,
    /// Apply this topology before serving anybody
    #[arg(long, value_name = "FILE")]
    pub apply: Option<PathBuf>,
    /// How much to log, such as `debug` or `info,dvr::controller=trace`; without it RUST_LOG, or `info`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Which controller a command means.
#[derive(Debug, Args)]
pub struct WhichController {
    /// The controller; without it this host's own, else that of the only lab that runs
    #[arg(long, value_name = "ADDR[,ADDR]", conflicts_with = "name")]
    pub controller: Option<Addresses>,
    /// Where your certificate is, for a controller over TCP
    #[arg(long, value_name = "DIR", default_value = tls::DIR)]
    pub certs: PathBuf,
    /// Whose certificate to show: the NAME of `dvr certs client NAME`
    #[arg(long = "as", value_name = "NAME", default_value = "admin")]
    pub identity: String,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// What `apply` takes.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// A topology, or resources as `dvr get -o yaml` prints them; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Only tell what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Remove what FILE does not name
    #[arg(long)]
    pub prune: bool,
    /// Which controller
    #[command(flatten)]
    pub at: WhichController,
}

/// What `diff` takes.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A topology, or resources as `dvr get -o yaml` prints them; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// As if what FILE does not name were removed
    #[arg(long)]
    pub prune: bool,
    /// Which controller
    #[command(flatten)]
    pub at: WhichController,
}

/// What `get` takes.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// node, network, router, port (or vm), or `all`
    #[arg(value_parser = kind_or_all)]
    pub kind: KindOrAll,
    /// Only this one
    pub object: Option<String>,
    /// Go on with what changes, as it changes
    #[arg(short, long)]
    pub watch: bool,
    /// Which controller
    #[command(flatten)]
    pub at: WhichController,
    /// How to print it
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A kind, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindOrAll(pub Option<Kind>);

fn kind_or_all(word: &str) -> Result<KindOrAll, String> {
    if word == "all" {
        return Ok(KindOrAll(None));
    }
    word.parse().map(|kind| KindOrAll(Some(kind))).map_err(|bad: crate::model::resource::BadKind| bad.to_string())
}

/// What `describe` takes.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// node, network, router, port (or vm)
    pub kind: Kind,
    /// Which one
    pub object: String,
    /// Which controller
    #[command(flatten)]
    pub at: WhichController,
}

/// What `delete` takes.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// node, network, router, port (or vm)
    pub kind: Kind,
    /// Which ones
    #[arg(required = true)]
    pub objects: Vec<String>,
    /// Only if it last changed at this revision
    #[arg(long)]
    pub revision: Option<u64>,
    /// Which controller
    #[command(flatten)]
    pub at: WhichController,
}

/// What `dvr certs` makes.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// An authority, and the certificate that every controller bears
    Init(CertsArgs),
    /// The controllers' anew, before it ends; each shows it from its next start on
    Controller(CertsArgs),
    /// A node's, which lets its agent see that node's view and nothing else
    Node {
        /// The node.
        node: String,
        /// Where the authority is
        #[command(flatten)]
        at: CertsArgs,
    },
    /// A person's or program's, which lets it see and change everything
    Client {
        /// Whose; `admin` is who `dvr` is without --as
        whose: String,
        /// Where the authority is
        #[command(flatten)]
        at: CertsArgs,
    },
}

/// Where certificates are.
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// The directory
    #[arg(long, value_name = "DIR", default_value = tls::DIR)]
    pub dir: PathBuf,
}

/// What `status` takes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which controllers: each that is named is asked
    #[command(flatten)]
    pub at: WhichController,
    /// How to print it
    #[command(flatten)]
    pub output: OutputArgs,
}
