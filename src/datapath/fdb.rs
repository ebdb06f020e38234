//! Addresses of a bridge, for `NORMAL`: which station was last seen, or is said to be, behind which port.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Mac, Timestamp};

/// Seconds an address is kept without being seen (IEEE 802.1Q-2018 table 8-6; OVS's `mac-aging-time`).
pub(crate) const AGEING_SECS: u64 = 300;
/// Most addresses of one bridge (OVS's `mac-table-size`).
pub(crate) const LIMIT: usize = 8192;

/// A VLAN, and an address in it.
pub(crate) type Station = (u16, Mac);

/// What is known of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) port: u32,
    pub(crate) at: Timestamp,
    /// Set by hand: it neither ages nor moves.
    pub(crate) pinned: bool,
}

/// What learning changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Nothing that forwarding looks at.
    Same,
    /// Where the station is; this other one was forgotten for it.
    Changed { evicted: Option<Station> },
    /// Nothing: the table is full of stations that are not to be forgotten.
    Refused,
}

/// The table, with the learned stations of each port in the order they were last seen.
#[derive(Debug, Default)]
pub(crate) struct Fdb {
    stations: BTreeMap<Station, Seen>,
    /// Learned ones only.
    by_port: BTreeMap<u32, BTreeSet<(Timestamp, Station)>>,
    /// Ports by how many stations they have.
    by_count: BTreeSet<(usize, u32)>,
}

impl Fdb {
    pub(crate) fn lookup(&self, vlan: u16, mac: Mac) -> Option<u32> {
        self.stations.get(&(vlan, mac)).map(|seen| seen.port)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, Mac, Seen)> {
        self.stations.iter().map(|((vlan, mac), seen)| (*vlan, *mac, *seen))
    }

    /// Whether learning this would change what forwarding looks at.
    pub(crate) fn would_change(&self, vlan: u16, mac: Mac, port: u32) -> bool {
        self.stations.get(&(vlan, mac)).is_none_or(|seen| !seen.pinned && seen.port != port)
    }

    /// Notes that a station was seen. With the table full, the port with the most stations loses its oldest: a
    /// station that makes up addresses evicts its own.
    pub(crate) fn learn(&mut self, vlan: u16, mac: Mac, port: u32, now: Timestamp) -> Learned {
        let station = (vlan, mac);
        let mut evicted = None;
        let old = self.stations.get(&station).copied();
        match old {
            Some(seen) if seen.pinned => return Learned::Same,
            Some(seen) => self.unlink(station, seen),
            None if self.stations.len() >= LIMIT => match self.evict() {
                Some(oldest) => evicted = Some(oldest),
                None => return Learned::Refused,
            },
            None => {}
        }
        let at = old.map_or(now, |seen| seen.at.max(now));
        self.stations.insert(station, Seen { port, at, pinned: false });
        let stations = self.by_port.entry(port).or_default();
        self.by_count.remove(&(stations.len(), port));
        stations.insert((at, station));
        self.by_count.insert((stations.len(), port));
        if old.is_some_and(|seen| seen.port == port) { Learned::Same } else { Learned::Changed { evicted } }
    }

    fn unlink(&mut self, station: Station, seen: Seen) {
        let Entry::Occupied(mut held) = self.by_port.entry(seen.port) else { return };
        self.by_count.remove(&(held.get().len(), seen.port));
        held.get_mut().remove(&(seen.at, station));
        match held.get().len() {
            0 => {
                held.remove();
            }
            left => {
                self.by_count.insert((left, seen.port));
            }
        }
    }

    /// Says where a station is, until told otherwise. Returns whether there was room.
    pub(crate) fn pin(&mut self, vlan: u16, mac: Mac, port: u32, now: Timestamp) -> bool {
        let station = (vlan, mac);
        self.forget(station);
        if self.stations.len() >= LIMIT && self.evict().is_none() {
            return false;
        }
        self.stations.insert(station, Seen { port, at: now, pinned: true });
        true
    }

    /// Forgets a station that was pinned. Returns whether one was.
    pub(crate) fn unpin(&mut self, vlan: u16, mac: Mac) -> bool {
        let pinned = self.stations.get(&(vlan, mac)).is_some_and(|seen| seen.pinned);
        pinned && self.stations.remove(&(vlan, mac)).is_some()
    }

    /// Forgets everything that was learned. Returns how many stations that were.
    pub(crate) fn flush(&mut self) -> usize {
        let before = self.stations.len();
        self.by_port.clear();
        self.by_count.clear();
        self.stations.retain(|_, seen| seen.pinned);
        before - self.stations.len()
    }

    /// Forgets the oldest station of the port with the most learned ones, and returns it, if there is one.
    fn evict(&mut self) -> Option<Station> {
        let (_, fullest) = self.by_count.last()?;
        let (_, station) = *self.by_port.get(fullest)?.first()?;
        self.forget(station);
        Some(station)
    }

    fn forget(&mut self, station: Station) {
        if let Some(seen) = self.stations.remove(&station) {
            self.unlink(station, seen);
        }
    }

    /// Forgets every station behind `port`, pinned or not. Returns how many.
    pub(crate) fn flush_port(&mut self, port: u32) -> usize {
        let before = self.stations.len();
        self.flush_learned(port);
        self.stations.retain(|_, seen| seen.port != port);
        before - self.stations.len()
    }

    /// Forgets the stations learned behind `port`.
    pub(crate) fn flush_learned(&mut self, port: u32) {
        let stations = self.by_port.remove(&port).unwrap_or_default();
        self.by_count.remove(&(stations.len(), port));
        for (_, station) in &stations {
            self.stations.remove(station);
        }
    }

    /// Forgets the stations not seen for long enough. Returns them.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Station> {
        let old = |at: Timestamp| now.since(at).as_secs() >= AGEING_SECS;
        let expired: Vec<Station> = (self.by_port.values())
            .flat_map(|stations| stations.iter().take_while(|(at, _)| old(*at)).map(|(_, station)| *station))
            .collect();
        for station in &expired {
            self.forget(*station);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac::new([2, 0, a, b, c, d])
    }

    #[test]
    fn a_station_that_makes_up_addresses_evicts_its_own() {
        let mut fdb = Fdb::default();
        fdb.learn(1, mac(0), 7, Timestamp::ZERO);
        for number in 1..=1_000_000 / 50 {
            fdb.learn(1, mac(number), 8, Timestamp::from_secs(number.into()));
        }
        assert_eq!(fdb.iter().count(), LIMIT);
        assert_eq!(fdb.lookup(1, mac(0)), Some(7), "the quiet port keeps its station");
        assert_eq!((fdb.flush_port(8), fdb.iter().count()), (LIMIT - 1, 1));
    }

    #[test]
    fn what_is_pinned_stays_where_it_is() {
        let mut fdb = Fdb::default();
        fdb.learn(1, mac(1), 7, Timestamp::ZERO);
        assert!(fdb.pin(1, mac(1), 8, Timestamp::ZERO));
        assert!(!fdb.would_change(1, mac(1), 7));
        assert_eq!(fdb.learn(1, mac(1), 7, Timestamp::from_secs(1)), Learned::Same);
        fdb.learn(1, mac(2), 8, Timestamp::ZERO);
        assert_eq!((fdb.expire(Timestamp::from_secs(1_000)).len(), fdb.flush()), (1, 0));
        assert_eq!(fdb.lookup(1, mac(1)), Some(8));
        assert!(!fdb.unpin(1, mac(2)) && fdb.unpin(1, mac(1)) && !fdb.unpin(1, mac(1)));
        fdb.learn(1, mac(3), 8, Timestamp::ZERO);
        assert_eq!((fdb.flush(), fdb.iter().count()), (1, 0));
        fdb.pin(1, mac(4), 9, Timestamp::ZERO);
        assert_eq!(fdb.flush_port(9), 1, "its port is gone");
    }

    #[test]
    fn a_table_full_of_pinned_stations_takes_no_more() {
        let mut fdb = Fdb::default();
        fdb.learn(1, mac(0), 7, Timestamp::ZERO);
        for number in (1..).take(LIMIT) {
            assert!(fdb.pin(1, mac(number), 8, Timestamp::ZERO), "what was learned makes room");
        }
        assert!(!fdb.pin(1, mac(0), 8, Timestamp::ZERO));
        assert_eq!(fdb.learn(1, mac(0), 7, Timestamp::ZERO), Learned::Refused);
        assert!(fdb.pin(1, mac(1), 9, Timestamp::ZERO), "one that is there takes no room");
    }

    #[test]
    fn ages_from_the_last_sight() {
        let mut fdb = Fdb::default();
        assert_eq!(fdb.learn(0, mac(1), 1, Timestamp::ZERO), Learned::Changed { evicted: None });
        assert_eq!(fdb.learn(0, mac(1), 1, Timestamp::from_secs(10)), Learned::Same);
        assert_eq!(fdb.expire(Timestamp::from_secs(309)), []);
        assert_eq!(fdb.expire(Timestamp::from_secs(310)), [(0, mac(1))]);
    }
}
