//! Processor time: the whole machine's, and that of some processes.

use core::ops::{Div, Sub};
use std::fs;

/// Clock ticks a second (`USER_HZ`): 100 on every architecture this runs on (`asm-generic/param.h`).
const TICKS_PER_SEC: f64 = 100.0;

/// Seconds of processor time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Busy {
    /// Of the whole machine.
    pub(super) machine: f64,
    /// Of the watched processes.
    pub(super) watched: f64,
}

impl Sub for Busy {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { machine: self.machine - other.machine, watched: self.watched - other.watched }
    }
}

impl Div<f64> for Busy {
    type Output = Self;

    fn div(self, by: f64) -> Self {
        Self { machine: self.machine / by, watched: self.watched / by }
    }
}

/// Processes whose time is told apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// Their ids.
    pub(super) pids: Vec<i32>,
}

impl Watch {
    /// What was spent until now.
    pub(super) fn read(&self) -> Busy {
        let machine = machine(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let own = |pid: &i32| process(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default());
        Busy { machine, watched: self.pids.iter().map(own).sum() }
    }

    /// The resident memory of the largest, in octets; `None` if there are none.
    pub(super) fn largest_resident(&self) -> Option<f64> {
        let own = |pid: &i32| resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?);
        self.pids.iter().filter_map(own).reduce(f64::max)
    }
}

/// All but idle and waiting for disks, of the first line of `/proc/stat` (proc_stat(5)); guests count as user already.
fn machine(stat: &str) -> f64 {
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
    ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum::<f64>() / TICKS_PER_SEC
}

/// User and system time, fields 14 and 15 of `/proc/PID/stat` (proc_pid_stat(5)).
fn process(stat: &str) -> f64 {
    // The command's name may hold anything; what follows its last bracket begins with field 3.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SEC
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_read() {
        let stat = "cpu  100 20 300 9000 50 6 7 8 9 10\ncpu0 1 2 3\n";
        assert_eq!(machine(stat), 4.41);
        let one = "77 (a b) c) S 1 77 77 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 1 0 1 1 1";
        assert_eq!(process(one), 4.0);
        assert_eq!(resident("Name:\tdvr\nVmRSS:\t    2000 kB\n"), Some(2_048_000.0));
        assert_eq!((machine(""), process(""), resident("")), (0.0, 0.0, None));
    }
}
