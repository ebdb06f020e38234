//! How much passes to the other nodes, tried again and again.
//!
//! What the underlay is too small for vanishes: the kernel's tunnels drop it in silence, and so does what is between the nodes,
//! but for routers. The kernel's devices are therefore given no larger an MTU than what passes, and the switch is told what
//! passes by its own tunnels; it tells senders of frames that do not fit.
//!
//! Down it goes at once where the node itself or a router says how much passes, and on the second trial where larger packets
//! just vanish, which two lost ones would look like. Up it goes after several trials, for a way with two branches is as
//! wide as the smaller one. What was found is written down, so that an agent that starts anew begins with it.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::{Event, Events};
use super::shared::Shared;
use super::ways;
use crate::api::agent::{PeerPath, Room};
use crate::types::Mtu;

/// Where what passes is kept in the run directory.
const FILE: &str = "passing.json";
/// Time between two trials, at least.
const PERIOD: Duration = Duration::from_secs(5);
/// The same while what was found has yet to be found again.
const SOON: Duration = Duration::from_secs(1);
/// The same for each other node: what is sent for this is not to be much.
const PACE: Duration = Duration::from_millis(20);
/// Trials in a row that find less in silence, before it is believed.
const LOWER: u32 = 2;
/// Trials in a row that find more.
const HIGHER: u32 = 3;
/// Less than this passes nowhere: every host takes it whole (RFC 791 §3.1), and whoever says less is not believed.
const LEAST: u32 = 576;
/// Ways that are printed before it says "and N more".
const PRINTED_MAX: usize = 4;
/// Where everything passes that tunnels need.
const ENOUGH: u32 = u32::MAX;

/// By endpoint, the octets of the largest packet that passes where that is less than tunnels need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passing(BTreeMap<IpAddr, u32>);

impl Passing {
    /// By endpoint, the octets.
    pub(super) const fn octets(&self) -> &BTreeMap<IpAddr, u32> {
        &self.0
    }

    /// The MTU of a device that leads to these endpoints and takes so many octets for itself: its network's, or what passes
    /// to all.
    pub(super) fn mtu(&self, network: Mtu, overhead: u32, ends: impl IntoIterator<Item = IpAddr>) -> Mtu {
        let least = ends.into_iter().filter_map(|end| self.0.get(&end)).min();
        let inside = least.and_then(|octets| Mtu::new(octets.saturating_sub(overhead)).ok());
        inside.map_or(network, |inside| inside.min(network))
    }
}

/// What an earlier agent found. Without, or where it makes no sense, everything passes until it is tried.
pub(super) fn load(run_dir: &Path) -> Passing {
    let path = run_dir.join(FILE);
    let read = std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
    read.unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "what passes to other nodes is found anew");
        }
        Passing::default()
    })
}

/// Writes down what was found, whole or not at all.
fn save(run_dir: &Path, passing: &Passing) -> io::Result<()> {
    let fresh = run_dir.join("passing.json.new");
    std::fs::write(&fresh, serde_json::to_vec(passing)?)?;
    std::fs::rename(&fresh, run_dir.join(FILE))
}

/// Forgets what was found.
///
/// # Errors
/// When a file that is there cannot be removed.
pub(super) fn forget(run_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(run_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl fmt::Display for Passing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (end, octets)) in self.0.iter().take(PRINTED_MAX).enumerate() {
            write!(out, "{}{octets} octets to {end}", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(PRINTED_MAX) {
            0 if self.0.is_empty() => out.write_str("none"),
            0 => Ok(()),
            more => write!(out, ", and {more} more"),
        }
    }
}

/// What trials have found of one way.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// What is believed to pass.
    octets: u32,
    /// The least that the last trials found, if they found something else, all less or all more; and how many.
    other: Option<(u32, u32)>,
}

impl Seen {
    /// Takes note of what a trial found; `is_told`, if somebody said so.
    fn hear(&mut self, found: u32, is_told: bool) {
        let is_lower = found < self.octets;
        if found == self.octets {
            self.other = None;
            return;
        }
        let same_way = self.other.filter(|(other, _)| (*other < self.octets) == is_lower);
        let (least, count) = same_way.map_or((found, 1), |(other, count)| (other.min(found), count + 1));
        let needed = match (is_lower, is_told) {
            (true, true) => 1,
            (true, false) => LOWER,
            (false, _) => HIGHER,
        };
        *self = if count < needed {
            Self { octets: self.octets, other: Some((least, count)) }
        } else {
            Self { octets: least, other: None }
        };
    }
}

/// What trials have found.
#[derive(Debug, Default)]
struct Rooms(BTreeMap<IpAddr, Seen>);

impl Rooms {
    /// As an earlier agent found it.
    fn of(Passing(passing): &Passing) -> Self {
        Self(passing.iter().map(|(end, octets)| (*end, Seen { octets: *octets, other: None })).collect())
    }

    /// Takes note of a trial. A way of which it says nothing is as it was; one that it was not about is forgotten.
    fn hear(&mut self, paths: &[PeerPath]) {
        self.0.retain(|end, _| paths.iter().any(|path| path.tunnel_ip == *end));
        for path in paths {
            let (found, is_told) = match path.room {
                Room::Unknown => continue,
                Room::Enough => (ENOUGH, true),
                Room::Interface { mtu } | Room::Hop { mtu, .. } => (mtu.max(LEAST), true),
                Room::Silent { passes } => (passes.max(LEAST), false),
            };
            let seen = self.0.entry(path.tunnel_ip).or_insert(Seen { octets: ENOUGH, other: None });
            seen.hear(found, is_told);
        }
    }

    fn passing(&self) -> Passing {
        let narrow = self.0.iter().filter(|(_, seen)| seen.octets != ENOUGH);
        Passing(narrow.map(|(end, seen)| (*end, seen.octets)).collect())
    }

    fn is_undecided(&self) -> bool {
        self.0.values().any(|seen| seen.other.is_some())
    }
}

/// Starts to try the ways, on a thread of its own, until nobody listens. Who listens begins with what [`load`] gives.
///
/// # Errors
/// The kernel gives no thread.
pub(super) fn watch(run_dir: PathBuf, shared: Arc<Shared>, events: Events) -> io::Result<()> {
    let watch = move || {
        let mut told = load(&run_dir);
        let mut rooms = Rooms::of(&told);
        while !events.is_over() {
            match shared.held(PERIOD) {
                Some(held) => match ways::tried(&held.view) {
                    Ok(paths) => rooms.hear(&paths),
                    Err(error) => tracing::debug!(%error, "the ways to other nodes cannot be tried"),
                },
                None => continue,
            }
            let passing = rooms.passing();
            if passing != told {
                if let Err(error) = save(&run_dir, &passing) {
                    tracing::warn!(%error, "what passes to other nodes is not written down");
                }
                told.clone_from(&passing);
                events.tell(Event::Passing(passing));
            }
            let pause = if rooms.is_undecided() { SOON } else { PERIOD };
            std::thread::sleep(pause.max(PACE * u32::try_from(rooms.0.len()).unwrap_or(u32::MAX)));
        }
    };
    std::thread::Builder::new().name("ways".to_owned()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: [u8; 4] = [10, 0, 0, 2];
    const FAR: [u8; 4] = [10, 0, 0, 3];

    fn path(to: [u8; 4], room: Room) -> PeerPath {
        PeerPath { node: "n".to_owned(), tunnel_ip: to.into(), needed: 1500, answered_micros: None, room }
    }

    fn mtu(rooms: &Rooms, ends: &[[u8; 4]]) -> u32 {
        let network = Mtu::new(1450).expect("an MTU");
        rooms.passing().mtu(network, 50, ends.iter().copied().map(IpAddr::from)).get()
    }

    /// Input: what one trial after the other finds. Output: the MTU after each.
    #[test]
    fn down_at_once_if_told_and_up_when_it_lasts() {
        let hop = |mtu| Room::Hop { hop: [10, 0, 9, 1].into(), mtu };
        let silent = |passes| Room::Silent { passes };
        let own = |mtu| Room::Interface { mtu };
        let (enough, unknown) = (Room::Enough, Room::Unknown);
        for (rooms, mtus) in [
            (vec![enough, own(1400), unknown, own(1400)], vec![1450, 1350, 1350, 1350]),
            (vec![hop(1400), hop(1300), hop(1400)], vec![1350, 1250, 1250]),
            // Two packets were lost, no more.
            (vec![silent(1400), enough, silent(1400), enough], vec![1450; 4]),
            (vec![silent(1400), unknown, silent(1450)], vec![1450, 1450, 1350]),
            (vec![own(1400), enough, enough, enough], vec![1350, 1350, 1350, 1450]),
            // A way of two branches is as wide as the smaller one.
            (vec![own(1400), enough, enough, own(1400), enough, enough], vec![1350; 6]),
            (vec![own(1400), enough, hop(1480), enough], vec![1350, 1350, 1350, 1430]),
            (vec![own(1400), enough, silent(1280), silent(1280)], vec![1350, 1350, 1350, 1230]),
            // Nonsense is not believed.
            (vec![hop(0)], vec![526]),
            (vec![own(9000)], vec![1450]),
        ] {
            let mut all = Rooms::default();
            let mut came = Vec::new();
            for room in &rooms {
                all.hear(&[path(NEAR, *room)]);
                came.push(mtu(&all, &[NEAR]));
            }
            assert_eq!(came, mtus, "{rooms:?}");
        }
    }

    #[test]
    fn a_device_takes_what_passes_to_all_of_its_ends() {
        let mut rooms = Rooms::default();
        rooms.hear(&[path(NEAR, Room::Interface { mtu: 1400 }), path(FAR, Room::Interface { mtu: 1300 })]);
        assert_eq!([mtu(&rooms, &[NEAR]), mtu(&rooms, &[NEAR, FAR]), mtu(&rooms, &[])], [1350, 1250, 1450]);
        rooms.hear(&[path(NEAR, Room::Unknown)]);
        assert_eq!(mtu(&rooms, &[NEAR, FAR]), 1350, "a node that left narrows nothing");
    }

    #[test]
    fn an_agent_that_starts_anew_begins_with_what_was_found() {
        let dir = std::env::temp_dir().join(format!("dvr-passing-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory of our own");
        assert_eq!(load(&dir), Passing::default());
        let mut rooms = Rooms::default();
        rooms.hear(&[path(NEAR, Room::Interface { mtu: 1400 })]);
        save(&dir, &rooms.passing()).expect("written");
        let mut rooms = Rooms::of(&load(&dir));
        assert_eq!(mtu(&rooms, &[NEAR]), 1350);
        rooms.hear(&[path(NEAR, Room::Enough)]);
        assert_eq!(mtu(&rooms, &[NEAR]), 1350, "one trial finds more");
        std::fs::write(dir.join(FILE), "nonsense").expect("written");
        assert_eq!(load(&dir), Passing::default());
        forget(&dir).expect("it is there");
        forget(&dir).expect("none is as good");
        std::fs::remove_dir(&dir).expect("nothing is left in it");
    }
}
