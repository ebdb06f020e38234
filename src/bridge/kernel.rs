//! The kernel's side of bridges: equivalents of `ip link add type bridge` and `ip link set master`.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::InfoKind;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::link::kernel::index_of;
use crate::netlink::{Connection, Error};

use super::BridgeOp;

/// Carries out one step.
///
/// # Errors
/// When the kernel refuses, or a link is missing.
pub(crate) fn execute(connection: &mut Connection, op: &BridgeOp) -> Result<(), Error> {
    match op {
        BridgeOp::Create(name) => {
            let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge).name(name.as_str());
            connection.request(RouteNetlinkMessage::NewLink(message.build()), NLM_F_CREATE | NLM_F_EXCL)
        }
        BridgeOp::Attach { port, bridge } => {
            let index = index_of(connection, bridge)?;
            let message = LinkUnspec::new_with_name(port.as_str()).controller(index).build();
            connection.request(RouteNetlinkMessage::SetLink(message), 0)
        }
        BridgeOp::Detach(port) => {
            let message = LinkUnspec::new_with_name(port.as_str()).nocontroller().build();
            connection.request(RouteNetlinkMessage::SetLink(message), 0)
        }
    }
}
