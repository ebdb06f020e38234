//! The kernel's side of the fast path: the table, the programs, and where they hang.

use core::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::asm::{AsmError, Program};
use super::layout::{self, Count, HIT_LEN, KEY_LEN, Kind, MASK_SLOTS, Octets, Rewrite, VALUE_LEN, Way};
use super::program::{self, Map as Role};
use super::sys::{self, Map, MapKind, ProgramKind};
use crate::netlink::{Connection, Error as NetlinkError};
use crate::types::IfName;
use crate::wire::ethernet;

/// Most flows in the kernel. While a mask is replaced each is there twice.
pub const LIMIT_FLOWS: u32 = 32_768;

/// Kinds of frames, each with a mask of its own.
const KINDS: usize = Kind::ALL.len();
const KINDS_U32: u32 = Kind::Icmp6 as u32 + 1;
const _: () = assert!(KINDS_U32 as usize == KINDS);

/// The number and preference of our filter among an interface's: another's with both would be taken for ours.
const HANDLE: u32 = 0x6476_7266;
const PREFERENCE: u16 = 0xd7f0;
/// The filter's name.
const NAME: &str = "dvr-fast-path";

/// Why there is no fast path, or not for a port or flow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine's processors count octets the other way round.
    #[error("the fast path is for little-endian machines")]
    BigEndian,
    /// A mistake in a program.
    #[error("the program {name} cannot be assembled: {source}; this is a bug")]
    Assemble {
        /// The program.
        name: &'static str,
        /// The mistake.
        source: AsmError,
    },
    /// A map cannot be made.
    #[error("cannot make the map {name}: {source}{}", hint(source))]
    Map {
        /// Its name.
        name: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// A program cannot be loaded.
    #[error("the kernel refused the program {name}: {source}{}; {said}", hint(source))]
    Load {
        /// The program.
        name: &'static str,
        /// The kernel's word.
        source: io::Error,
        /// What its verifier said last.
        said: String,
    },
    /// An interface's filter cannot be set or removed.
    #[error("cannot {what} the BPF filter of {port}: {source}")]
    Filter {
        /// What was attempted.
        what: &'static str,
        /// The interface.
        port: IfName,
        /// The kernel's word.
        source: NetlinkError,
    },
    /// A socket does not take the filter, or does not tell of its interface.
    #[error("cannot filter what the packet socket of {port} gets, or ask it: {source}")]
    Socket {
        /// The interface.
        port: IfName,
        /// The kernel's word.
        source: io::Error,
    },
    /// A flow cannot be put into the table.
    #[error("cannot change the table of flows: {0}")]
    Table(#[source] io::Error),
    /// The table is full.
    #[error("the table has {LIMIT_FLOWS} flows already")]
    Full,
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => ": it takes CAP_BPF and CAP_NET_ADMIN of the whole machine, not of a user namespace",
        Some(libc::ENOSYS) => ": this kernel is built without CONFIG_BPF_SYSCALL",
        _ => "",
    }
}

/// A flow's place in the table, by which it is asked for and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey([u8; KEY_LEN]);

/// Maps and programs. What hangs on ports outlives it.
#[derive(Debug)]
pub struct FastPath {
    chosen: Map<4, 8>,
    masks: Map<4, KEY_LEN>,
    flows: Map<KEY_LEN, VALUE_LEN>,
    /// Held for the programs, which have it open themselves.
    _hit: Map<4, HIT_LEN>,
    filter: OwnedFd,
    deaf: OwnedFd,
    ingress: OwnedFd,
    /// By kind: the mask that counts and its number.
    current: [(Octets, u32); KINDS],
}

/// A mask that is to count next: flows are put in under it before it does.
#[derive(Debug)]
pub struct NextMask {
    kind: Kind,
    mask: Octets,
    number: u32,
}

impl NextMask {
    /// The key under this mask of frames like this one.
    #[must_use]
    pub fn key(&self, frame: &Octets, ifindex: u32) -> FlowKey {
        FlowKey(frame.key(&self.mask, number16(self.number), ifindex))
    }
}

/// The number of a kind's first mask, whose zeroes are in the map from the start.
const fn first_number(kind: Kind) -> u32 {
    kind as u32 * MASK_SLOTS
}

fn number16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

impl FastPath {
    /// Makes the maps and loads the programs.
    ///
    /// # Errors
    /// What of it this kernel, or the rights of this process, do not allow.
    pub fn load() -> Result<Self, Error> {
        if cfg!(target_endian = "big") {
            return Err(Error::BigEndian);
        }
        let made = |name| move |source| Error::Map { name, source };
        let chosen = Map::create("dvr_chosen", MapKind::Array, KINDS_U32).map_err(made("dvr_chosen"))?;
        let masks = Map::create("dvr_masks", MapKind::Array, KINDS_U32 * MASK_SLOTS).map_err(made("dvr_masks"))?;
        let flows = Map::create("dvr_flows", MapKind::Hash, 2 * LIMIT_FLOWS).map_err(made("dvr_flows"))?;
        let hit = Map::create("dvr_hit", MapKind::PerCpuArray, 1).map_err(made("dvr_hit"))?;
        let descriptor = |role: &Role| match role {
            Role::Chosen => chosen.number(),
            Role::Masks => masks.number(),
            Role::Flows => flows.number(),
            Role::Hit => hit.number(),
        };
        let load = |name, kind, program: Result<Program<Role>, AsmError>| {
            let insns = program.map_err(|source| Error::Assemble { name, source })?.link(descriptor);
            sys::load_program(name, kind, &insns, c"Apache-2.0").map_err(|(source, said)| Error::Load {
                name,
                source,
                said,
            })
        };
        let filter = load("dvr_filter", ProgramKind::SocketFilter, program::socket_filter())?;
        let deaf = load("dvr_deaf", ProgramKind::SocketFilter, program::deaf_filter())?;
        let ingress = load("dvr_ingress", ProgramKind::TrafficControl, program::ingress())?;
        let current = Kind::ALL.map(|kind| (Octets::ZERO, first_number(kind)));
        let path = Self { chosen, masks, flows, _hit: hit, filter, deaf, ingress, current };
        for kind in Kind::ALL {
            path.choose(&NextMask { kind, mask: Octets::ZERO, number: first_number(kind) })?;
        }
        Ok(path)
    }

    /// The mask that counts for a kind.
    #[must_use]
    pub fn mask(&self, kind: Kind) -> &Octets {
        &self.current[kind as usize].0
    }

    /// The key of frames like this one that come by the interface.
    #[must_use]
    pub fn key(&self, kind: Kind, frame: &Octets, ifindex: u32) -> FlowKey {
        let (mask, number) = &self.current[kind as usize];
        FlowKey(frame.key(mask, number16(*number), ifindex))
    }

    /// Has what comes with this key be rewritten so and leave that way.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Table`].
    pub fn insert(&self, kind: Kind, key: &FlowKey, rewrite: &Rewrite, way: &Way) -> Result<(), Error> {
        self.flows.update(&key.0, &layout::encode(kind, rewrite, way)).map_err(|source| {
            if source.raw_os_error() == Some(libc::E2BIG) { Error::Full } else { Error::Table(source) }
        })
    }

    /// What was counted for a key so far; nothing for one that is not there.
    #[must_use]
    pub fn count(&self, key: &FlowKey) -> Count {
        self.flows.lookup(&key.0).map_or_else(|_| Count::default(), |value| Count::of(&value))
    }

    /// Removes a flow and tells what was counted for it.
    #[must_use]
    pub fn remove(&self, key: &FlowKey) -> Count {
        self.flows.take(&key.0).map_or_else(|_| Count::default(), |value| Count::of(&value))
    }

    /// Another mask, which does not count yet.
    ///
    /// # Errors
    /// [`Error::Table`].
    pub fn prepare(&self, kind: Kind, mask: Octets) -> Result<NextMask, Error> {
        let (base, number) = (first_number(kind), self.current[kind as usize].1);
        let number = base + (number - base + 1) % MASK_SLOTS;
        // A key's last octets are not the frame's: they are written after the mask was laid over it.
        let mut octets = [0; KEY_LEN];
        octets[..mask.0.len()].copy_from_slice(&mask.0);
        self.masks.update(&number.to_ne_bytes(), &octets).map_err(Error::Table)?;
        Ok(NextMask { kind, mask, number })
    }

    /// Has a mask count from now on. What was put in under another is met no more, and is to be removed.
    ///
    /// # Errors
    /// [`Error::Table`].
    pub fn adopt(&mut self, next: &NextMask) -> Result<(), Error> {
        self.choose(next)?;
        self.current[next.kind as usize] = (next.mask, next.number);
        Ok(())
    }

    fn choose(&self, next: &NextMask) -> Result<(), Error> {
        let index = (next.kind as u32).to_ne_bytes();
        self.chosen.update(&index, &u64::from(next.number).to_ne_bytes()).map_err(Error::Table)
    }

    /// Has a packet socket get only what is not decided here.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn filter(&self, port: &IfName, socket: BorrowedFd<'_>) -> Result<(), Error> {
        sys::set_filter(socket, self.filter.as_fd()).map_err(|source| Error::Socket { port: port.clone(), source })
    }

    /// Has a packet socket get nothing.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn deafen(&self, port: &IfName, socket: BorrowedFd<'_>) -> Result<(), Error> {
        sys::set_filter(socket, self.deaf.as_fd()).map_err(|source| Error::Socket { port: port.clone(), source })
    }

    /// Sets the ingress filter of an interface, in place of an earlier one of ours: no frame comes between. The connection
    /// is one of the interface's namespace.
    ///
    /// # Errors
    /// [`Error::Filter`].
    pub fn attach(&self, connection: &mut Connection, port: &IfName, ifindex: u32) -> Result<(), Error> {
        hang(connection, (port, ifindex), (TcHandle::MIN_INGRESS, NAME), self.ingress.as_fd())
    }
}

/// A program without maps that is an interface's filter of what leaves by it.
#[derive(Debug)]
pub(crate) struct EgressFilter(OwnedFd);

impl EgressFilter {
    /// Loads it.
    ///
    /// # Errors
    /// [`Error::Load`].
    pub(crate) fn load(name: &'static str, program: &Program<Infallible>) -> Result<Self, Error> {
        let insns = program.link(|no_map| match *no_map {});
        let loaded = sys::load_program(name, ProgramKind::TrafficControl, &insns, c"Apache-2.0");
        loaded.map(Self).map_err(|(source, said)| Error::Load { name, source, said })
    }

    /// Sets it. The connection is one of the interface's namespace.
    ///
    /// # Errors
    /// [`Error::Filter`].
    pub(crate) fn attach(&self, connection: &mut Connection, port: &IfName, ifindex: u32) -> Result<(), Error> {
        hang(connection, (port, ifindex), (TcHandle::MIN_EGRESS, "dvr-egress"), self.0.as_fd())
    }
}

/// Makes a program an interface's filter of what comes or leaves by it, in place of one that was set so before.
fn hang(
    connection: &mut Connection,
    (port, ifindex): (&IfName, u32),
    (hook, name): (u16, &str),
    program: BorrowedFd<'_>,
) -> Result<(), Error> {
    let failed = |what| move |source| Error::Filter { what, port: port.clone(), source };
    let mut qdisc = TcMessage::with_index(ifindex.cast_signed());
    qdisc.header.parent = TcHandle::CLSACT;
    qdisc.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    qdisc.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    match connection.request(RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if !error.is_exists() => return Err(failed("make room for")(error)),
        Ok(()) | Err(_) => {}
    }
    let mut filter = filter_message(ifindex, hook);
    filter.attributes.push(TcAttribute::Options(
        [
            TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
            TcFilterBpfOption::ProgName(name.to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ]
        .map(TcOption::Bpf)
        .into(),
    ));
    connection
        .request(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(failed("set"))
}

/// Has a packet socket get everything.
///
/// # Errors
/// [`Error::Socket`].
pub fn unfilter(port: &IfName, socket: BorrowedFd<'_>) -> Result<(), Error> {
    sys::drop_filter(socket).map_err(|source| Error::Socket { port: port.clone(), source })
}

/// Removes our ingress filter from an interface, and tells whether there was one. The connection is one of the interface's
/// namespace.
///
/// # Errors
/// [`Error::Filter`].
pub fn detach(connection: &mut Connection, port: &IfName, ifindex: u32) -> Result<bool, Error> {
    match connection.request(RouteNetlinkMessage::DelTrafficFilter(filter_message(ifindex, TcHandle::MIN_INGRESS)), 0) {
        // EINVAL is what it says of an interface without such a qdisc (`__tcf_qdisc_find()`, `net/sched/cls_api.c`).
        Err(error) if !error.is_absent() && error.errno() != Some(nix::errno::Errno::EINVAL) => {
            Err(Error::Filter { what: "remove", port: port.clone(), source: error })
        }
        removed => Ok(removed.is_ok()),
    }
}

/// What names our filter on an interface.
fn filter_message(ifindex: u32, hook: u16) -> TcMessage {
    let mut filter = TcMessage::with_index(ifindex.cast_signed());
    filter.header.parent = TcHandle { major: u16::MAX, minor: hook };
    filter.header.handle = HANDLE.into();
    // Preference, and the protocol in network order (`TC_H_MAKE(prio << 16, protocol)`).
    filter.header.info = u32::from(PREFERENCE) << 16 | u32::from(PROTOCOL_ALL.to_be());
    filter.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    filter
}

/// `ETH_P_ALL` (`linux/if_ether.h`).
const PROTOCOL_ALL: u16 = 0x0003;
const _: () = assert!(PROTOCOL_ALL < ethernet::TYPE_LEAST);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_kinds_are_told_apart_though_their_first_masks_are_empty() {
        let key = |kind| NextMask { kind, mask: Octets::ZERO, number: first_number(kind) }.key(&Octets::ZERO, 7);
        assert_eq!(Kind::ALL.map(key).into_iter().collect::<std::collections::BTreeSet<_>>().len(), KINDS);
    }
}
