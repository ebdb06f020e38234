//! A lab as a small picture of text.

use std::collections::BTreeMap;

use super::{Outline, Station};
use crate::model::view::{NodeView, RouterView};

/// Columns the picture may take.
const WIDTH: usize = 110;
/// VMs shown of each node at most.
const VMS_SHOWN: usize = 12;

/// Draws every node as a box with its VMs and routers, and the networks that join them.
#[must_use]
pub fn draw(outline: &Outline) -> String {
    let boxes: Vec<Vec<String>> = outline.views.values().map(|view| node_box(view, &outline.stations)).collect();
    let mut out = String::new();
    let mut row: Vec<&Vec<String>> = Vec::new();
    let mut used = 0;
    for drawn in &boxes {
        let width = drawn.first().map_or(0, |line| line.chars().count()) + 2;
        if used + width > WIDTH && !row.is_empty() {
            print_row(&mut out, &row);
            row.clear();
            used = 0;
        }
        used += width;
        row.push(drawn);
    }
    print_row(&mut out, &row);
    let mut networks: BTreeMap<&str, String> = BTreeMap::new();
    for network in outline.views.values().flat_map(|view| &view.networks) {
        let cidrs: Vec<String> = network.subnets.iter().map(|subnet| subnet.cidr.to_string()).collect();
        networks.entry(&network.name).or_insert_with(|| {
            let key = network.segment.vni().map(|vni| vni.to_string());
            let vlan = || network.segment.vlan().map(|vlan| vlan.to_string());
            let key = key.or_else(vlan).unwrap_or_default();
            let physical = network.segment.physical_network().map_or_else(String::new, |name| format!(" on {name}"));
            let kind = network.segment.kind().name();
            format!("  {:<12} {kind:<5} {key:<8} {}{physical}", network.name, cidrs.join(", "))
        });
    }
    out.push_str("networks, with the keys of their tunnels over the underlay, or their VLANs on a physical network:\n");
    for line in networks.values() {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// A box's lines, all equally wide.
fn node_box(view: &NodeView, stations: &[Station]) -> Vec<String> {
    let local: Vec<&Station> = stations.iter().filter(|station| station.node == view.node.name).collect();
    let wide = |text: &str, least: usize| text.chars().count().max(least);
    let name_width = local
        .iter()
        .map(|station| wide(&station.vm, 0))
        .chain(view.routers.iter().map(|r| wide(&r.name, 0)))
        .max()
        .unwrap_or(0);
    let ips = |station: &Station| station.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let ip_width = local.iter().map(|station| wide(&ips(station), 0)).max().unwrap_or(0);
    let mut rows: Vec<String> = local
        .iter()
        .take(VMS_SHOWN)
        .map(|station| format!("{:<name_width$}  {:<ip_width$}  {}", station.vm, ips(station), station.network))
        .collect();
    if local.len() > VMS_SHOWN {
        rows.push(format!("… and {} more", local.len() - VMS_SHOWN));
    }
    rows.extend(view.routers.iter().map(|router| format!("{:<name_width$}  {}", router.name, legs(router))));
    let top = format!(" {} ", view.node.name);
    let bottom = format!(" {} ", view.node.tunnel_ip);
    let inner = rows.iter().map(|row| wide(row, 0)).max().unwrap_or(0).max(wide(&top, 0) + 2).max(wide(&bottom, 0) + 2);
    let mut lines = vec![format!("┌─{top:─<inner$}─┐")];
    lines.extend(rows.iter().map(|row| format!("│ {row:<inner$} │")));
    lines.push(format!("└─{bottom:─<inner$}─┘"));
    lines
}

fn legs(router: &RouterView) -> String {
    let legs = router.interfaces.iter().flat_map(|port| &port.addresses).map(|address| address.addr().to_string());
    let legs: Vec<String> = legs.take(4).collect();
    let more = if router.interfaces.iter().map(|port| port.addresses.len()).sum::<usize>() > 4 { " …" } else { "" };
    format!("router {}{more}", legs.join(" "))
}

fn print_row(out: &mut String, row: &[&Vec<String>]) {
    let height = row.iter().map(|lines| lines.len()).max().unwrap_or(0);
    for index in 0..height {
        let mut line = String::from(" ");
        for lines in row {
            let width = lines.first().map_or(0, |line| line.chars().count());
            // Boxes stand on the same floor; the missing rows of a smaller one are above it.
            let text = (index + lines.len()).checked_sub(height).and_then(|at| lines.get(at));
            line.push_str(&format!(" {:<width$}", text.map_or("", String::as_str)));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Topology;

    #[test]
    fn the_example_is_drawn() {
        let drawn = draw(&Outline::of(&Topology::example()));
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines[0].contains("┌─ node1 ─") && lines[0].contains("┌─ node2 ─"), "{drawn}");
        for word in ["blue1", "10.2.0.20", "router 10.1.0.1 10.2.0.1", "172.31.0.1", "172.31.0.2", "10.1.0.0/24"] {
            assert!(drawn.contains(word), "{word} is missing:\n{drawn}");
        }
        let boxes: Vec<usize> =
            lines.iter().take_while(|line| !line.starts_with("networks")).map(|line| line.chars().count()).collect();
        assert!(boxes.iter().all(|width| *width == boxes[0]), "the boxes' right edges do not line up:\n{drawn}");
    }

    #[test]
    fn many_nodes_take_several_rows_and_many_vms_are_counted() {
        let nodes: Vec<String> = (1..=9).map(|node| format!("node{node}: {{}}")).collect();
        let vms: Vec<String> = (1..=20).map(|vm| format!("  vm{vm}: {{node: node1, network: blue}}\n")).collect();
        let text = format!(
            "version: 1\nnodes: {{{}}}\nnetworks: {{blue: {{type: vxlan, subnets: [{{cidr: 10.1.0.0/24}}]}}}}\nvms:\n{}",
            nodes.join(", "),
            vms.concat()
        );
        let drawn = draw(&Outline::read("test", &text).expect("a topology"));
        assert!(drawn.lines().all(|line| line.chars().count() <= WIDTH + 2), "{drawn}");
        assert!(drawn.contains("… and 8 more"), "{drawn}");
    }
}
