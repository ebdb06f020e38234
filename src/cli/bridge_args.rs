//! What the commands for bridges, their ports and their stations take.

use core::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::args::{OutputArgs, ReadArgs};
use crate::api::switch::BridgeMode;
use crate::lab::LabName;
use crate::types::{IfName, Mac, VlanId};

/// What `add-br` takes.
#[derive(Debug, Args)]
pub struct AddBridgeArgs {
    /// The bridge: `br0`, or `node1/br0`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// What it does with frames
    #[arg(long, value_enum, default_value_t = Mode::Normal)]
    pub mode: Mode,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// Modes of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Learns and forwards, as Open vSwitch does without a controller
    Normal,
    /// Does what its flows say, and begins with none
    Flow,
}

impl From<Mode> for BridgeMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Normal => Self::Normal,
            Mode::Flow => Self::Flow,
        }
    }
}

/// What `del-br` takes.
#[derive(Debug, Args)]
pub struct DelBridgeArgs {
    /// The bridge: `br0`, or `node1/br0`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// That it is not there is as good
    #[arg(long)]
    pub if_exists: bool,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// What `add-port` takes.
#[derive(Debug, Args)]
pub struct AddPortArgs {
    /// The bridge: `br0`, or `node1/br0`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// The port's name, unique in the switch; of a tap or packet port also the interface's, unless --device says another
    pub port: IfName,
    /// What it is
    #[arg(long = "type", value_enum, default_value_t = Kind::Packet)]
    pub kind: Kind,
    /// Of a patch: the port at its other end
    #[arg(long)]
    pub peer: Option<IfName>,
    /// Of a tunnel: the other endpoint
    #[arg(long, value_name = "IP")]
    pub remote: Option<IpAddr>,
    /// Of a tunnel: this endpoint
    #[arg(long, value_name = "IP")]
    pub local: Option<IpAddr>,
    /// Of a tunnel: the UDP port of both endpoints
    #[arg(long, value_name = "PORT")]
    pub udp_port: Option<u16>,
    /// Of a tap or packet port: the namespace its interface is in, by name or by path
    #[arg(long, value_name = "NAME|PATH")]
    pub netns: Option<String>,
    /// Of a tap or packet port: its interface's name
    #[arg(long, value_name = "NAME")]
    pub device: Option<IfName>,
    /// Of a tap: its interface's address
    #[arg(long)]
    pub mac: Option<Mac>,
    /// Its VLANs
    #[command(flatten)]
    pub vlan: VlanArgs,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// Kinds of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An interface that exists
    Packet,
    /// A TAP the switch makes
    Tap,
    /// One end of a patch to another bridge
    Patch,
    /// A VXLAN tunnel to one endpoint
    Vxlan,
}

fn vlan_id(text: &str) -> Result<VlanId, String> {
    let number = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    VlanId::new(number).map_err(|bad| bad.to_string())
}

/// A port's VLANs.
#[derive(Debug, Args)]
pub struct VlanArgs {
    /// The VLAN of untagged frames
    #[arg(long, value_name = "VLAN", value_parser = vlan_id)]
    pub tag: Option<VlanId>,
    /// The VLANs of tagged frames, by commas; all without it
    #[arg(long, value_name = "VLANS", value_delimiter = ',', value_parser = vlan_id)]
    pub trunks: Vec<VlanId>,
    /// `access` with --tag alone and `trunk` without, unless told
    #[arg(long, value_enum)]
    pub vlan_mode: Option<Vlans>,
}

/// Ways to carry VLANs, as Open vSwitch names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Vlans {
    /// One, untagged
    Access,
    /// Tagged ones
    Trunk,
    /// Tagged ones, and untagged frames are taken into one of them
    NativeTagged,
    /// Tagged ones and one untagged
    NativeUntagged,
}

/// What `del-port` takes.
#[derive(Debug, Args)]
pub struct DelPortArgs {
    /// The bridge: `br0`, or `node1/br0`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// The port
    pub port: IfName,
    /// That it is not there is as good
    #[arg(long)]
    pub if_exists: bool,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// What `set-port` takes.
#[derive(Debug, Args)]
pub struct SetPortArgs {
    /// The bridge: `br0`, or `node1/br0`
    #[arg(value_name = "[NODE/]BRIDGE")]
    pub bridge: String,
    /// The port
    pub port: IfName,
    /// Its VLANs from now on
    #[command(flatten)]
    pub vlan: VlanArgs,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}

/// What `fdb` takes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FdbArgs {
    /// What to do with one bridge's addresses.
    #[command(subcommand)]
    pub command: Option<FdbCommand>,
    /// Which nodes.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// What is done with the addresses of a bridge in normal mode, as `ovs-appctl fdb/…`.
#[derive(Debug, Subcommand)]
pub enum FdbCommand {
    /// The addresses a bridge in normal mode learned or was told, like `fdb/show`
    Show {
        /// The bridge: `br0`, or `node1/br0`
        #[arg(value_name = "[NODE/]BRIDGE")]
        bridge: String,
        /// The lab
        #[arg(long)]
        name: Option<LabName>,
        /// How to print it
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Say behind which port an address is: it neither ages nor moves
    Add {
        /// The bridge: `br0`, or `node1/br0`
        #[arg(value_name = "[NODE/]BRIDGE")]
        bridge: String,
        /// The port
        port: IfName,
        /// The VLAN, 0 for none
        vlan: u16,
        /// The address
        mac: Mac,
        /// The lab
        #[arg(long)]
        name: Option<LabName>,
    },
    /// Take back what `add` said
    Del {
        /// The bridge: `br0`, or `node1/br0`
        #[arg(value_name = "[NODE/]BRIDGE")]
        bridge: String,
        /// The VLAN, 0 for none
        vlan: u16,
        /// The address
        mac: Mac,
        /// The lab
        #[arg(long)]
        name: Option<LabName>,
    },
    /// Forget what a bridge learned; what was added stays
    Flush {
        /// The bridge: `br0`, or `node1/br0`
        #[arg(value_name = "[NODE/]BRIDGE")]
        bridge: String,
        /// The lab
        #[arg(long)]
        name: Option<LabName>,
    },
}
