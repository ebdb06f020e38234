//! `bpf(2)`: maps, programs, and the option that gives a socket its filter.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::asm::Insn;

/// Commands of `bpf(2)` (`enum bpf_cmd`, `linux/bpf.h`).
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;

/// Kinds of map (`enum bpf_map_type`, `linux/bpf.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapKind {
    Hash = 1,
    Array = 2,
    PerCpuArray = 6,
}

/// Kinds of program (`enum bpf_prog_type`, `linux/bpf.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProgramKind {
    SocketFilter = 1,
    TrafficControl = 3,
}

/// What a map is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct MapShape {
    pub(super) kind: MapKind,
    pub(super) key_octets: u32,
    pub(super) value_octets: u32,
    pub(super) entries_max: u32,
}

/// A hash map takes memory for what is in it, not for all that may be (`BPF_F_NO_PREALLOC`).
const NO_PREALLOC: u32 = 1;
/// What a map says to a command it has not (`ENOTSUPP`, `linux/errno.h`, which is not for programs and yet told).
const ENOTSUPP: libc::c_int = 524;
/// Room for what the kernel says of a program, and lines of its end that are told.
const LOG_OCTETS: usize = 1 << 18;
const LOG_LINES: usize = 4;
/// Octets of an object's name with its terminator (`BPF_OBJ_NAME_LEN`).
const NAME_LEN: usize = 16;

/// The start of `union bpf_attr` for MAP_CREATE.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_octets: u32,
    value_octets: u32,
    entries_max: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; NAME_LEN],
}

/// The start of `union bpf_attr` for the commands on one element.
#[repr(C, align(8))]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The start of `union bpf_attr` for PROG_LOAD.
#[repr(C, align(8))]
struct ProgLoad {
    kind: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_octets: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LEN],
}

fn named(text: &str) -> [u8; NAME_LEN] {
    let mut name = [0; NAME_LEN];
    for (to, from) in name[..NAME_LEN - 1].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// # Safety
/// `attr` must be the start of `union bpf_attr` for this command, and every address in it that of memory which the command
/// may read, or write where it does, to the length the command takes.
unsafe fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads as many octets of `attr` as it is told there are, and takes the rest for zero; the caller
    // vouches for what the addresses in it lead to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(libc::c_int::try_from(result).unwrap_or(0)) }
}

fn descriptor(number: libc::c_int) -> OwnedFd {
    // SAFETY: a command that makes an object returned this descriptor, which nobody else knows of.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Makes a map.
pub(super) fn create_map(name: &str, shape: MapShape) -> io::Result<OwnedFd> {
    let MapShape { kind, key_octets, value_octets, entries_max } = shape;
    let attr = MapCreate {
        kind: kind as u32,
        key_octets,
        value_octets,
        entries_max,
        flags: if kind == MapKind::Hash { NO_PREALLOC } else { 0 },
        inner_map: 0,
        numa_node: 0,
        name: named(name),
    };
    // SAFETY: the attribute is MAP_CREATE's and has no address.
    unsafe { bpf(MAP_CREATE, &attr) }.map(descriptor)
}

/// Loads a program. What the kernel says of one it refuses comes with the error.
pub(super) fn load_program(
    name: &str,
    kind: ProgramKind,
    insns: &[Insn],
    license: &CStr,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut log = Vec::new();
    let attempt = |log: &mut Vec<u8>| {
        let attr = ProgLoad {
            kind: kind as u32,
            insn_count: u32::try_from(insns.len()).unwrap_or(u32::MAX),
            insns: address(insns.as_ptr()),
            license: address(license.as_ptr()),
            log_level: u32::from(!log.is_empty()),
            log_octets: u32::try_from(log.len()).unwrap_or(0),
            log: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
            kernel_version: 0,
            flags: 0,
            name: named(name),
        };
        // SAFETY: the attribute is PROG_LOAD's; `insns` has so many instructions, the license ends with a zero, and `log`
        // may be written to the length told. All three outlive the call.
        unsafe { bpf(PROG_LOAD, &attr) }.map(descriptor)
    };
    let error = match attempt(&mut log) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // Only a second time with room for it does the kernel say why.
    log.resize(LOG_OCTETS, 0);
    attempt(&mut log).map_err(|_same| {
        let said = log.split(|octet| *octet == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(said);
        let last: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
        (error, last.into_iter().rev().collect::<Vec<_>>().join(" / "))
    })
}

/// A map's descriptor with the lengths of what is in it.
#[derive(Debug)]
pub(super) struct Map<const KEY: usize, const VALUE: usize>(OwnedFd);

impl<const KEY: usize, const VALUE: usize> Map<KEY, VALUE> {
    /// Makes a map of these lengths.
    pub(super) fn create(name: &str, kind: MapKind, entries_max: u32) -> io::Result<Self> {
        let octets = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        create_map(name, MapShape { kind, key_octets: octets(KEY), value_octets: octets(VALUE), entries_max }).map(Self)
    }

    pub(super) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn element(&self, key: &[u8; KEY], value: u64) -> Element {
        Element { map: self.0.as_raw_fd().cast_unsigned(), padding: 0, key: address(key.as_ptr()), value, flags: 0 }
    }

    /// Sets a value.
    pub(super) fn update(&self, key: &[u8; KEY], value: &[u8; VALUE]) -> io::Result<()> {
        // SAFETY: the attribute is MAP_UPDATE_ELEM's; key and value are as long as the map was made for, and are read.
        unsafe { bpf(MAP_UPDATE_ELEM, &self.element(key, address(value.as_ptr()))) }.map(drop)
    }

    /// Reads a value; for maps with one value, not one a processor.
    pub(super) fn lookup(&self, key: &[u8; KEY]) -> io::Result<[u8; VALUE]> {
        let mut value = [0; VALUE];
        let to = value.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the attribute is MAP_LOOKUP_ELEM's; the key is as long as the map was made for, and so is `value`, which
        // is written.
        unsafe { bpf(MAP_LOOKUP_ELEM, &self.element(key, to)) }?;
        Ok(value)
    }

    /// Removes a value and tells what it was at the end.
    pub(super) fn take(&self, key: &[u8; KEY]) -> io::Result<[u8; VALUE]> {
        let mut value = [0; VALUE];
        let to = value.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the attribute is MAP_LOOKUP_AND_DELETE_ELEM's; as for a lookup.
        match unsafe { bpf(MAP_LOOKUP_AND_DELETE_ELEM, &self.element(key, to)) } {
            Ok(_) => Ok(value),
            // Linux before 5.14 has it for other kinds of map only.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
                let value = self.lookup(key)?;
                // SAFETY: the attribute is MAP_DELETE_ELEM's; the key is as long as the map was made for.
                unsafe { bpf(MAP_DELETE_ELEM, &self.element(key, 0)) }?;
                Ok(value)
            }
            Err(error) => Err(error),
        }
    }
}

/// Takes a socket's filter from it (`SO_DETACH_FILTER`); one without is as good.
pub(super) fn drop_filter(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `socket` is open for the call's length, and the option has no value.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, core::ptr::null(), 0) };
    match io::Error::last_os_error() {
        error if result < 0 && error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Gives a socket a filter (`SO_ATTACH_BPF`), in place of the one it had.
pub(super) fn set_filter(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let number: libc::c_int = program.as_raw_fd();
    let octets = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: `socket` is open for the call's length, and the option's value is an `int` of the length told.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_BPF, (&raw const number).cast(), octets)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
