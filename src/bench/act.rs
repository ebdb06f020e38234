//! One peer's part of one round, inside a stage: builds the scene, measures, and leaves the rest to the stage's end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::measure::{Measure, Metric, PeerKind, Subject, Way};
use super::peer::{self, Peer};
use super::processors::Watch;
use super::report::Sample;
use super::statistics::percentile;
use super::traffic::{self, Echo, End};
use super::{Error, device, now, scene};

/// How long a scene may take to carry its first packet once it is built.
const LIMIT: Duration = Duration::from_secs(20);
/// Round trips before those that count.
const WARM_TRIPS: u32 = 100;
/// Flushes of which the median first round trip is told.
const FLUSHES: usize = 9;
/// Streams of the measure that has several.
const STREAMS: usize = 4;
/// Flows of the measure that has many.
const FLOWS: u16 = 1_000;
/// Ports elsewhere that figures are measured with.
const PORTS: u32 = 10_000;
/// Ports elsewhere at which memory is told.
const PORTS_FOR_MEMORY: [u32; 2] = [11_000, 100_000];
/// What is measured again under other conditions.
const HEADLINES: [Measure; 4] = [Measure::Tcp1, Measure::Tcp4, Measure::Pps1, Measure::Rtt];

/// What one peer is to do in one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The peer.
    pub peer: PeerKind,
    /// What to measure.
    pub measures: Vec<Measure>,
    /// Between whom.
    pub ways: Vec<Way>,
    /// How long each run of traffic lasts, in milliseconds.
    pub millis: u64,
    /// Whether to measure headlines again while the underlay segments nothing.
    pub wire: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Acted {
    /// The values.
    pub samples: Vec<Sample>,
    /// What was left out or is not as elsewhere, and why.
    pub left_out: Vec<String>,
}

/// Does a task in this process, which has one thread and a stage to itself.
#[must_use]
pub fn act(task: &Task) -> Acted {
    let mut acting = Acting { task, acted: Acted::default(), wire: false, ports: 0 };
    if let Err(error) = acting.all() {
        acting.acted.left_out.push(error.to_string());
    }
    acting.acted
}

struct Acting<'a> {
    task: &'a Task,
    acted: Acted,
    wire: bool,
    ports: u32,
}

impl Acting<'_> {
    fn all(&mut self) -> Result<(), Error> {
        let begun = now();
        let mut peer = peer::build(self.task.peer)?;
        let remarks = peer.remarks()?;
        let (from, to) = peer.ends(Way::Routed);
        Echo::open(&from, &to)?.until_answered(begun, LIMIT)?;
        self.acted.left_out.extend(remarks);
        if self.asked(Measure::Cold) {
            self.note(None, Metric::Cold, begun.elapsed().as_secs_f64() * 1e3);
        }
        let traffic = Measure::ALL.iter().filter(|one| self.asked(**one)).copied().collect::<Vec<_>>();
        for way in &self.task.ways {
            self.several(&mut *peer, *way, &traffic);
        }
        if self.task.wire {
            self.wire = true;
            self.segmentation(&*peer, false)?;
            self.several(&mut *peer, Way::Routed, &HEADLINES);
            self.segmentation(&*peer, true)?;
            self.wire = false;
        }
        if self.asked(Measure::Ports) && self.program(&mut *peer, PORTS, true)? {
            self.several(&mut *peer, Way::Routed, &HEADLINES);
        }
        if self.asked(Measure::Memory) {
            self.memory(&mut *peer)?;
        }
        Ok(())
    }

    fn asked(&self, measure: Measure) -> bool {
        self.task.measures.contains(&measure)
    }

    fn note(&mut self, way: Option<Way>, metric: Metric, value: f64) {
        let subject = Subject { wire: self.wire, ports: self.ports, way, metric };
        self.acted.samples.push(Sample { subject, value });
    }

    fn segmentation(&self, peer: &dyn Peer, on: bool) -> Result<(), Error> {
        let mut wires = peer.wires().into_iter();
        wires.try_for_each(|(netns, name)| device::segmentation(&netns, &scene::ifname(name), on))
    }

    /// Those of `measures` that were asked for and are traffic. One that fails is left out, and the others go on.
    fn several(&mut self, peer: &mut dyn Peer, way: Way, measures: &[Measure]) {
        for measure in measures.iter().filter(|measure| self.task.measures.contains(measure)) {
            if let Err(error) = self.one(peer, way, *measure) {
                self.acted.left_out.push(format!("{measure}, {way}: {error}"));
            }
        }
    }

    fn one(&mut self, peer: &mut dyn Peer, way: Way, measure: Measure) -> Result<(), Error> {
        let (from, to) = peer.ends(way);
        let length = Duration::from_millis(self.task.millis);
        // Learned and cached before it counts.
        Echo::open(&from, &to)?.until_answered(now(), LIMIT)?;
        match measure {
            Measure::Tcp1 => {
                let watch = Watch { pids: peer.switches() };
                let streams = traffic::streams(&from, &to, 1, length, &watch)?;
                self.note(Some(way), Metric::Tcp1, streams.octets_per_sec * 8e-9);
                self.note(Some(way), Metric::Cpu, streams.busy_per_octet.machine * 1e9);
                if !watch.pids.is_empty() {
                    self.note(Some(way), Metric::SwitchCpu, streams.busy_per_octet.watched * 1e9);
                }
            }
            Measure::Tcp4 => {
                let streams = traffic::streams(&from, &to, STREAMS, length, &Watch::default())?;
                self.note(Some(way), Metric::Tcp4, streams.octets_per_sec * 8e-9);
            }
            Measure::Pps1 => {
                let flood = traffic::flood(&from, &to, 1, length, None)?;
                self.note(Some(way), Metric::Pps1, flood.received_per_sec * 1e-3);
            }
            Measure::Pps1000 => {
                let flood = traffic::flood(&from, &to, FLOWS, length, None)?;
                self.note(Some(way), Metric::Pps1000, flood.received_per_sec * 1e-3);
            }
            Measure::Lossless => {
                let flood = traffic::flood(&from, &to, 1, length / 2, None)?;
                let most = flood.sent_per_sec.min(flood.received_per_sec * 2.0);
                let rate = traffic::lossless(&from, &to, length / 2, most)?;
                self.note(Some(way), Metric::Lossless, rate * 1e-3);
            }
            Measure::Rtt => self.round_trips(&from, &to, way, length)?,
            Measure::First => self.first(peer, way)?,
            Measure::Cold | Measure::Ports | Measure::Memory => {}
        }
        Ok(())
    }

    fn round_trips(&mut self, from: &End, to: &End, way: Way, length: Duration) -> Result<(), Error> {
        let echo = Echo::open(from, to)?;
        echo.ask(|number| number < WARM_TRIPS);
        let begun = now();
        let times = echo.ask(|_| begun.elapsed() < length);
        for (metric, per_cent) in [(Metric::RttMedian, 50), (Metric::RttTail, 99)] {
            if let Some(time) = percentile(&times, per_cent) {
                self.note(Some(way), metric, time.as_secs_f64() * 1e6);
            }
        }
        Ok(())
    }

    /// Of a peer without caches it is the first round trip after a pause as long as a flush of the others.
    fn first(&mut self, peer: &mut dyn Peer, way: Way) -> Result<(), Error> {
        let (from, to) = peer.ends(way);
        let echo = Echo::open(&from, &to)?;
        let mut times = Vec::new();
        for _ in 0..FLUSHES {
            echo.ask(|number| number < 3);
            peer.forget()?;
            std::thread::sleep(Duration::from_millis(10));
            times.extend(echo.ask(|number| number < 1));
        }
        times.sort_unstable();
        if let Some(time) = percentile(&times, 50) {
            self.note(Some(way), Metric::First, time.as_secs_f64() * 1e6);
        }
        Ok(())
    }

    /// Says whether there are so many ports now.
    fn program(&mut self, peer: &mut dyn Peer, ports: u32, tell: bool) -> Result<bool, Error> {
        let Some(took) = peer.program(ports)? else { return Ok(false) };
        self.ports = ports;
        if tell {
            self.note(None, Metric::Program, took.as_secs_f64() * 1e3);
        }
        Ok(true)
    }

    fn memory(&mut self, peer: &mut dyn Peer) -> Result<(), Error> {
        let watch = Watch { pids: peer.switches() };
        for ports in PORTS_FOR_MEMORY {
            if watch.pids.is_empty() || !self.program(peer, ports, false)? {
                return Ok(());
            }
            if let Some(octets) = watch.largest_resident() {
                self.note(None, Metric::Memory, octets * 1e-6);
            }
        }
        Ok(())
    }
}
