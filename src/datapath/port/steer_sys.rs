//! Which of several raw sockets gets a packet: classic BPF (`linux/filter.h`), because the kernel hands a raw packet to
//! every socket of its protocol.

use core::net::IpAddr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::batch_sys::socklen;

/// Octets of a GRE header with a key, and of the frame up to the ports of TCP over IPv4 without options.
const LEAST: u32 = 8 + 38;

/// Where words that tell flows apart begin, from the GRE header's first octet: the frame's addresses (their last four
/// octets), IPv4's, the ports. Another header length or protocol only makes them tell less.
const WORDS: [u32; 5] = [8 + 2, 8 + 8, 8 + 26, 8 + 30, 8 + 34];

/// Knuth's multiplicative hash: 2³² divided by the golden ratio.
const GOLDEN: u32 = 0x9e37_79b9;

const fn op(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// A program that takes the packets of worker `worker` of `workers`, each flow always the same one's. What is too short
/// to tell is worker 0's.
fn program(local: IpAddr, worker: u32, workers: u32) -> Vec<libc::sock_filter> {
    use libc::{
        BPF_ALU, BPF_B, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_LEN, BPF_MEM, BPF_MOD,
        BPF_MSH, BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB, BPF_W, BPF_X, BPF_XOR,
    };
    let all = op(BPF_RET | BPF_K, u32::MAX);
    let none = op(BPF_RET | BPF_K, 0);
    let short = if worker == 0 { all } else { none };
    let mut code = vec![
        // Raw sockets of IPv4 see the IP header, those of IPv6 do not.
        if local.is_ipv4() { op(BPF_LDX | BPF_B | BPF_MSH, 0) } else { op(BPF_LDX | BPF_W | BPF_IMM, 0) },
        op(BPF_STX, 0),
        op(BPF_LD | BPF_W | BPF_LEN, 0),
        op(BPF_ALU | BPF_SUB | BPF_X, 0),
        jump(BPF_JMP | BPF_JGE | BPF_K, LEAST, 1, 0),
        short,
        op(BPF_LD | BPF_W | BPF_IMM, 0),
        op(BPF_ST, 1),
    ];
    for word in WORDS {
        code.extend([
            op(BPF_LDX | BPF_W | BPF_MEM, 0),
            op(BPF_LD | BPF_W | BPF_IND, word),
            op(BPF_LDX | BPF_W | BPF_MEM, 1),
            op(BPF_ALU | BPF_XOR | BPF_X, 0),
            op(BPF_ALU | BPF_MUL | BPF_K, GOLDEN),
            op(BPF_ST, 1),
        ]);
    }
    code.extend([
        op(BPF_ALU | BPF_RSH | BPF_K, 16),
        op(BPF_ALU | BPF_MOD | BPF_K, workers.max(1)),
        jump(BPF_JMP | BPF_JEQ | BPF_K, worker, 0, 1),
        all,
        none,
    ]);
    code
}

/// Has a raw GRE socket bound to `local` take only this worker's packets.
pub(super) fn steer(socket: BorrowedFd<'_>, local: IpAddr, worker: usize, workers: usize) -> io::Result<()> {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let mut code = program(local, number(worker), number(workers));
    let length = u16::try_from(code.len()).unwrap_or(0);
    let program = libc::sock_fprog { len: length, filter: code.as_mut_ptr() };
    // SAFETY: `socket` is open for the call's length. The option's value is a whole `sock_fprog`, which points to `len`
    // instructions that outlive the call; the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            socklen::<libc::sock_fprog>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
