//! Learned addresses of a bridge, for `NORMAL`: which station was last seen behind which port.

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
}

/// What learning changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Nothing that forwarding looks at.
    Same,
    /// Where the station is; this other one was forgotten for it.
    Changed { evicted: Option<Station> },
}

/// The table, with the stations of each port in the order they were last seen.
#[derive(Debug, Default)]
pub(crate) struct Fdb {
    stations: BTreeMap<Station, Seen>,
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
        self.lookup(vlan, mac) != Some(port)
    }

    /// Notes that a station was seen. With the table full, the port with the most stations loses its oldest: a
    /// station that makes up addresses evicts its own.
    pub(crate) fn learn(&mut self, vlan: u16, mac: Mac, port: u32, now: Timestamp) -> Learned {
        let station = (vlan, mac);
        let mut evicted = None;
        let old = self.stations.get(&station).copied();
        match old {
            Some(seen) => self.unlink(station, seen),
            None if self.stations.len() >= LIMIT => evicted = self.evict(),
            None => {}
        }
        let at = old.map_or(now, |seen| seen.at.max(now));
        self.stations.insert(station, Seen { port, at });
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

    /// Forgets every station behind `port`. Returns how many.
    pub(crate) fn flush_port(&mut self, port: u32) -> usize {
        let stations = self.by_port.remove(&port).unwrap_or_default();
        self.by_count.remove(&(stations.len(), port));
        for (_, station) in &stations {
            self.stations.remove(station);
        }
        stations.len()
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
    fn ages_from_the_last_sight() {
        let mut fdb = Fdb::default();
        assert_eq!(fdb.learn(0, mac(1), 1, Timestamp::ZERO), Learned::Changed { evicted: None });
        assert_eq!(fdb.learn(0, mac(1), 1, Timestamp::from_secs(10)), Learned::Same);
        assert_eq!(fdb.expire(Timestamp::from_secs(309)), []);
        assert_eq!(fdb.expire(Timestamp::from_secs(310)), [(0, mac(1))]);
    }
}
