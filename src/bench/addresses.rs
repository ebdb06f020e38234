//! Who is who in the scene: the same for every peer.

use core::net::Ipv4Addr;

use crate::types::Mac;

use super::measure::Way;

/// The MTU of both networks.
pub(super) const MTU: u32 = 1500;
/// The MTU of the underlay: room for the tunnels.
pub(super) const UNDERLAY_MTU: u32 = 1600;
/// The UDP port of the tunnels.
pub(super) const VXLAN_PORT: u16 = 4789;

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// The first.
    One,
    /// The other.
    Two,
}

impl Node {
    pub(super) const ALL: [Self; 2] = [Self::One, Self::Two];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::One => "node1",
            Self::Two => "node2",
        }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// Where its tunnels end.
    pub(super) const fn endpoint(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, 7, self.number())
    }

    /// What stands for every router on its wire.
    pub(super) const fn host_mac(self) -> Mac {
        Mac::new([0xfa, 0x16, 0x3f, 0, 0, self.number()])
    }
}

/// A network with its subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    Blue,
    Orange,
}

impl Network {
    pub(super) const ALL: [Self; 2] = [Self::Blue, Self::Orange];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Orange => "orange",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Blue => 1,
            Self::Orange => 2,
        }
    }

    pub(super) const fn vni(self) -> u32 {
        5_000 + self.number() as u32
    }

    /// The length of its prefix: room for a hundred thousand machines and more.
    pub(super) const PREFIX_LEN: u8 = 14;

    /// An address of it: `host` counts from its first.
    pub(super) const fn address(self, host: u32) -> Ipv4Addr {
        let first = u32::from_be_bytes([10, self.number() << 2, 0, 0]);
        Ipv4Addr::from_bits(first | host & (u32::MAX >> Self::PREFIX_LEN))
    }

    /// The router's address on it.
    pub(super) const fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The router's MAC on it, the same on both nodes.
    pub(super) const fn router_mac(self) -> Mac {
        Mac::new([0xfa, 0x16, 0x3e, 0, 1, self.number()])
    }
}

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Station {
    pub(super) network: Network,
    pub(super) node: Node,
}

impl Station {
    pub(super) const ALL: [Self; 4] = [
        Self { network: Network::Blue, node: Node::One },
        Self { network: Network::Blue, node: Node::Two },
        Self { network: Network::Orange, node: Node::One },
        Self { network: Network::Orange, node: Node::Two },
    ];

    pub(super) const fn name(self) -> &'static str {
        match (self.network, self.node) {
            (Network::Blue, Node::One) => "blue1",
            (Network::Blue, Node::Two) => "blue2",
            (Network::Orange, Node::One) => "orange1",
            (Network::Orange, Node::Two) => "orange2",
        }
    }

    pub(super) const fn ip(self) -> Ipv4Addr {
        self.network.address(10 + self.node.number() as u32)
    }

    pub(super) const fn mac(self) -> Mac {
        Mac::new([0xfa, 0x16, 0x3e, 0, 0, self.network.number() << 4 | self.node.number()])
    }
}

impl Way {
    /// Who sends and who receives.
    pub(super) const fn ends(self) -> (Station, Station) {
        let blue1 = Station { network: Network::Blue, node: Node::One };
        let to = match self {
            Self::Routed => Station { network: Network::Orange, node: Node::Two },
            Self::Bridged => Station { network: Network::Blue, node: Node::Two },
            Self::Local => Station { network: Network::Orange, node: Node::One },
        };
        (blue1, to)
    }
}

/// A port on another node than the scene's two: its MAC and its address on blue. Numbers below 2^17 are told apart.
pub(super) fn remote_port(number: u32) -> (Mac, Ipv4Addr) {
    let [_, high, middle, low] = number.to_be_bytes();
    (Mac::new([0xfa, 0x16, 0x3e, 0x40 | high, middle, low]), Network::Blue.address(0x1_0000 + number))
}

/// Where the tunnel to those ports ends: nobody is there.
pub(super) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(172, 31, 7, 3);
