//! The only route netlink sockets.
