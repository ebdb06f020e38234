//! A document as wishes: what it says and nothing more, each with its place, for whoever keeps what was allocated.

use std::collections::BTreeMap;

use super::document::{Document, Entries, Text, UnderlayDoc};
use super::problem::DocumentError;
use super::resource::{Kind, Object, Resource};
use super::topology::{Topology, Underlay};

/// A resource as a document asks for it: what it leaves out is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The resource.
    pub resource: Resource,
    /// The line of its name, from 1.
    pub line: u64,
    /// The column of its name in characters, from 1.
    pub column: u64,
}

impl Topology {
    /// Reads and checks a document like [`Topology::parse`], and gives what it asks for: what carries the tunnels, if it says
    /// anything of that; and resources, by kind in the order in which they depend on each other.
    ///
    /// # Errors
    /// As [`Topology::parse`].
    pub fn wishes(text: &str, origin: &str) -> Result<(Option<Underlay>, Vec<Wish>), DocumentError> {
        let topology = Self::parse(text, origin)?;
        let document = super::document::read(text).map_err(|bad| DocumentError::shape(origin, text, *bad))?;
        let places = places(&document);
        let wish = |mut resource: Resource| {
            leave_out(&mut resource, &document);
            let (line, column) = places.get(&resource.object()).copied().unwrap_or((1, 1));
            Wish { resource, line, column }
        };
        let wishes = topology.resources().into_iter().map(wish).collect();
        let UnderlayDoc { cidr, mtu, vxlan_port } = &document.underlay;
        let is_said = [cidr, mtu, vxlan_port].into_iter().any(Option::is_some);
        Ok((is_said.then(|| topology.underlay().clone()), wishes))
    }
}

fn places(document: &Document) -> BTreeMap<Object, (u64, u64)> {
    fn of<T>(kind: Kind, entries: &Entries<T>) -> impl Iterator<Item = (Object, (u64, u64))> {
        let place = |name: &Text| (name.referenced.line().max(1), name.referenced.column().max(1));
        entries.0.iter().map(move |(name, _)| (Object::new(kind, name.value.as_str()), place(name)))
    }
    let Document { version: _, underlay: _, nodes, networks, routers, vms } = document;
    let all = of(Kind::Node, nodes).chain(of(Kind::Network, networks));
    all.chain(of(Kind::Router, routers)).chain(of(Kind::Port, vms)).collect()
}

fn entry<'d, T>(entries: &'d Entries<T>, name: &str) -> Option<&'d T> {
    entries.0.iter().find(|(text, _)| text.value == name).map(|(_, entry)| entry)
}

/// Takes out of a resource what its document did not say.
fn leave_out(resource: &mut Resource, document: &Document) {
    match resource {
        Resource::Node(spec) => {
            let said = entry(&document.nodes, &spec.name).and_then(Option::as_ref);
            spec.address = spec.address.filter(|_| said.is_some_and(|said| said.address.is_some()));
            spec.host_mac = spec.host_mac.filter(|_| said.is_some_and(|said| said.host_mac.is_some()));
            // An empty one says that there are none from now on.
            let mappings = said.is_some_and(|said| said.bridge_mappings.is_some());
            spec.bridge_mappings = mappings.then(|| spec.bridge_mappings.take().unwrap_or_default());
        }
        Resource::Network(spec) => {
            let Some(said) = entry(&document.networks, &spec.name) else { return };
            spec.id = spec.id.filter(|_| said.id.is_some());
            spec.vni = spec.vni.filter(|_| said.vni.is_some());
            spec.vlan = spec.vlan.filter(|_| said.vlan.is_some());
            spec.mtu = spec.mtu.filter(|_| said.mtu.is_some());
        }
        Resource::Router(spec) => {
            let Some(said) = entry(&document.routers, &spec.name) else { return };
            spec.id = spec.id.filter(|_| said.id.is_some());
            spec.node = spec.node.take().filter(|_| said.node.is_some());
            for port in &mut spec.interfaces {
                let said = said.interfaces.iter().find(|said| said.network.value == port.network);
                port.id = None;
                port.mac = port.mac.filter(|_| said.is_some_and(|said| said.mac.is_some()));
                if said.is_none_or(|said| said.ips.is_empty()) {
                    port.ips.clear();
                }
            }
        }
        Resource::Port(spec) => {
            let Some(said) = entry(&document.vms, &spec.name) else { return };
            spec.id = spec.id.filter(|_| said.id.is_some());
            spec.mac = spec.mac.filter(|_| said.mac.is_some());
            if said.ip.is_none() && said.ips.is_empty() {
                spec.ips.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_leaves_out_is_left_out_and_places_are_told() {
        let text = "version: 1
nodes: {n1: {}, n2: {address: 172.31.0.9}}
networks: {a: {vni: 7, subnets: [{cidr: 10.1.0.0/24}]}}
routers: {r: {interfaces: [{network: a, ips: [10.1.0.1]}]}}
vms:
  v1: {node: n1, network: a}
  v2: {node: n2, network: a, ip: 10.1.0.9}
";
        let (underlay, wishes) = Topology::wishes(text, "test").expect("it is right");
        assert_eq!((underlay, wishes.len()), (None, 6));
        // What is said is asked for, also what would be so without a word.
        let said = format!("underlay: {{mtu: 1500}}\n{text}");
        let (underlay, _) = Topology::wishes(&said, "test").expect("it is right");
        assert_eq!(underlay, Some(Underlay::default()));
        let told: Vec<String> = wishes
            .iter()
            .map(|wish| {
                format!("{}:{} {}", wish.line, wish.column, serde_json::to_string(&wish.resource).expect("JSON"))
            })
            .collect();
        let expected =
            [r#"2:9 {"kind":"node","name":"n1"}"#, r#"2:17 {"kind":"node","name":"n2","address":"172.31.0.9"}"#];
        assert_eq!(told[..2], expected);
        assert!(
            told[2].starts_with(r#"3:12 {"kind":"network","name":"a","type":"vxlan","vni":7,"subnets""#),
            "{}",
            told[2]
        );
        assert!(told[3].contains(r#""interfaces":[{"network":"a","ips":["10.1.0.1"]}]"#), "{}", told[3]);
        assert!(told[4].starts_with(r#"6:3 {"kind":"port","name":"v1","network":"a","node":"n1","#), "{}", told[4]);
        assert!(!told[4].contains("mac\":\"") && told[5].contains(r#""ips":["10.1.0.9"]"#), "{told:#?}");
    }
}
