//! Programs that put one source MAC for another, by traffic control: what the peer `kernel-bpf` has for the host MAC.

use core::convert::Infallible;

use super::Error;
use crate::fastpath::asm::{Alu, Asm, AsmError, Program, Reg, When, Width};
use crate::fastpath::kernel::EgressFilter;
use crate::link::kernel::index_of;
use crate::netlink::Connection;
use crate::types::{IfName, Mac};

/// Fields of `struct __sk_buff` (`linux/bpf.h`).
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;
/// `bpf_skb_store_bytes()` (`__BPF_FUNC_MAPPER`, `linux/bpf.h`).
const STORE_BYTES: i32 = 9;
/// `TC_ACT_OK` (`linux/pkt_cls.h`).
const PASS: i32 = 0;
/// Where an Ethernet header has its source, how long that is, and how long the header is.
const SOURCE: i16 = 6;
const MAC_LEN: i32 = 6;
const HEADER_LEN: i32 = 14;

/// Has frames that leave by `device` of the caller's namespace bear the address `to` as their source where it was `from`.
///
/// # Errors
/// [`Error::Missing`] where programs may not be loaded; [`Error::Scene`] with what the kernel said.
pub(super) fn rewrite_source(device: &IfName, from: Mac, to: Mac) -> Result<(), Error> {
    let failed = |error: &dyn core::fmt::Display| Error::Scene(error.to_string());
    let program = program(from, to).map_err(|error| failed(&error))?;
    let filter = EgressFilter::load("bench_source", &program).map_err(|error| Error::Missing(error.to_string()))?;
    let mut connection = Connection::open().map_err(|error| failed(&error))?;
    let index = index_of(&mut connection, device).map_err(|error| failed(&error))?;
    filter.attach(&mut connection, device, index).map_err(|error| failed(&error))
}

/// Compares the source in place, and writes the other there.
fn program(from: Mac, to: Mac) -> Result<Program<Infallible>, AsmError> {
    use Reg::{R0, R1, R2, R3, R4, R5, R10};
    let mut asm = Asm::default();
    let pass = asm.label();
    asm.load(Width::U32, R2, R1, SKB_DATA);
    asm.load(Width::U32, R3, R1, SKB_DATA_END);
    asm.copy(R4, R2);
    asm.alu(Alu::Add, R4, HEADER_LEN);
    asm.jump_if_reg(R4, When::Greater, R3, pass);
    for (at, width, word) in words(from) {
        asm.load(width, R4, R2, SOURCE + at);
        asm.set(R5, word);
        asm.low_half(R5);
        asm.jump_if_reg(R4, When::NotEqual, R5, pass);
    }
    for (at, width, word) in words(to) {
        asm.store_constant(width, R10, at - 8, word);
    }
    asm.set(R2, SOURCE.into());
    asm.copy(R3, R10);
    asm.alu(Alu::Add, R3, -8);
    asm.set(R4, MAC_LEN);
    asm.set(R5, 0);
    asm.call(STORE_BYTES);
    asm.place(pass);
    asm.set(R0, PASS);
    asm.exit();
    asm.finish()
}

/// An address as the processor reads it: offset, width, number.
const fn words(mac: Mac) -> [(i16, Width, i32); 2] {
    let [a, b, c, d, e, f] = mac.octets();
    [(0, Width::U32, i32::from_ne_bytes([a, b, c, d])), (4, Width::U16, u16::from_ne_bytes([e, f]) as i32)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_compared_and_written_whole() {
        let program =
            program(Mac::new([1, 2, 3, 4, 5, 6]), Mac::new([7, 8, 9, 10, 11, 12])).expect("labels are placed");
        let insns = program.link(|no_map| match *no_map {});
        let constants: Vec<i32> = insns.iter().map(|insn| insn.constant).collect();
        for mac in [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]] {
            for (_, _, word) in words(Mac::new(mac)) {
                assert!(constants.contains(&word), "{mac:?}: {insns:?}");
            }
        }
        assert!(insns.iter().all(|insn| insn.offset >= 0 || insn.code & 7 != 5), "it ends");
    }
}
