//! Longest prefix match over a router's routes, that also tells how many bits had a say: what a cache entry must rest on.

use core::net::IpAddr;

use ipnet::IpNet;

/// What the routes say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is out of this interface, to this gateway or itself a neighbour.
    Way { link: u32, gateway: Option<IpAddr> },
    /// It is the router's own, or what becomes of it is for the kernel to say.
    Other,
}

/// A place in one of the two trees, its index shifted by the bit taken.
type Index = u32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// The nodes for a next bit of 0 and 1; 0, the root, stands for none.
    next: [Index; 2],
    /// Something of the table `local` is here.
    local: bool,
    /// What the main table says here.
    main: Option<Found>,
}

/// Prefixes of both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefixes {
    /// Binary trees, a bit a level.
    four: Vec<Node>,
    six: Vec<Node>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self { four: vec![Node::default()], six: vec![Node::default()] }
    }
}

/// An address's bits, its first one topmost.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    }
}

fn bit(bits: u128, at: u8) -> usize {
    usize::from(bits << at >> 127 == 1)
}

impl Prefixes {
    const fn tree(&self, address: IpAddr) -> &Vec<Node> {
        if address.is_ipv4() { &self.four } else { &self.six }
    }

    /// The node of a prefix, made if it is not there.
    fn node(&mut self, prefix: IpNet) -> &mut Node {
        let bits = bits(prefix.addr());
        let tree = if prefix.addr().is_ipv4() { &mut self.four } else { &mut self.six };
        let mut at = 0;
        for level in 0..prefix.prefix_len() {
            let side = bit(bits, level);
            if tree[at].next[side] == 0 {
                let Ok(new) = Index::try_from(tree.len()) else {
                    unreachable!("at most 128 nodes for each of as many routes as a router may have")
                };
                tree[at].next[side] = new;
                tree.push(Node::default());
            }
            at = tree[at].next[side] as usize;
        }
        &mut tree[at]
    }

    /// Adds what the table `local` has, of whatever type.
    pub(super) fn insert_local(&mut self, prefix: IpNet) {
        self.node(prefix).local = true;
    }

    /// Adds what the main table has. Of several for one prefix, which differ in metric or type of service, the kernel
    /// knows the right one.
    pub(super) fn insert(&mut self, prefix: IpNet, way: Option<(u32, Option<IpAddr>)>) {
        let found = way.map_or(Found::Other, |(link, gateway)| Found::Way { link, gateway });
        let main = &mut self.node(prefix).main;
        *main = Some(if main.is_none() { found } else { Found::Other });
    }

    /// What is said of an address, and how many of its leading bits had a say in it.
    pub(super) fn find(&self, address: IpAddr) -> (Found, u8) {
        let (tree, bits) = (self.tree(address), bits(address));
        let most = if address.is_ipv4() { 32 } else { 128 };
        let (mut at, mut level, mut local, mut main) = (0, 0, false, None);
        loop {
            local |= tree[at].local;
            main = tree[at].main.or(main);
            if level == most || tree[at].next == [0, 0] {
                break;
            }
            let next = tree[at].next[bit(bits, level)];
            level += 1;
            if next == 0 {
                break;
            }
            at = next as usize;
        }
        (if local { Found::Other } else { main.unwrap_or(Found::Other) }, level)
    }
}
