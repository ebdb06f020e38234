//! What a device does by itself: segmentation and checksums, on or off.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;

use crate::datapath::port::within;
use crate::types::IfName;

use super::Error;
use super::device_sys::{feature_names, turn};

/// Features by which a device takes what is larger than a packet.
const SEGMENTATION: &[&str] = &["tx-tcp-", "tx-udp-segmentation", "tx-udp_tnl-", "tx-gre-", "tx-generic-segmentation"];
/// Features by which a device takes packets with unfinished checksums.
const CHECKSUMS: &[&str] = &["tx-checksum-"];

/// Has a device take super-frames, or packets only as large as a wire takes them.
///
/// # Errors
/// [`Error::Os`] if it cannot be asked.
pub(super) fn segmentation(netns: &Path, device: &IfName, on: bool) -> Result<(), Error> {
    set(netns, device, SEGMENTATION, on)
}

/// Has a device take packets only with checksums.
///
/// # Errors
/// As [`segmentation`].
pub(super) fn finish_checksums(netns: &Path, device: &IfName) -> Result<(), Error> {
    set(netns, device, CHECKSUMS, false)
}

fn set(netns: &Path, device: &IfName, features: &[&str], on: bool) -> Result<(), Error> {
    let change = || {
        // Any socket will do: the request is about the namespace it is of.
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        let names = feature_names(socket.as_fd(), device)?;
        let is_one = |name: &String| features.iter().any(|feature| name.starts_with(feature));
        let places: Vec<usize> = names.iter().enumerate().filter(|(_, name)| is_one(name)).map(|(at, _)| at).collect();
        turn(socket.as_fd(), device, (&places, names.len()), on)
    };
    within(Some(netns), || Ok(change()))
        .map_err(|error| Error::Scene(error.to_string()))?
        .map_err(|source| Error::os(format!("change the features of {device} in {}", netns.display()), source))
}
