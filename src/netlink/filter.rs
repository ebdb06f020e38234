//! The two things asked of nfnetlink: whether a namespace has nftables tables, and to hear when they change.

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::Error;

/// `NFNLGRP_NFTABLES` as the bit of a bind (`linux/netfilter/nfnetlink.h`).
const GROUPS: u32 = 1 << 6;
/// `NFT_MSG_NEWTABLE` and `NFT_MSG_GETTABLE` of `NFNL_SUBSYS_NFTABLES` (`linux/netfilter/nf_tables.h`).
const NEW_TABLE: u16 = 10 << 8;
const GET_TABLE: u16 = 10 << 8 | 1;
/// `NLMSG_ERROR` and `NLMSG_DONE` (`linux/netlink.h`).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Octets of `struct nlmsghdr`.
const HEADER_OCTETS: usize = 16;
/// A dump of tables comes in at most 32 KiB at a time.
const DATAGRAM_OCTETS: usize = 1 << 15;
/// The kernel answers before the send returns; an answer that is not there after this long was lost.
const ANSWER_SECS: i64 = 10;

/// A socket that becomes readable when nftables change in the calling thread's namespace; `None` on a kernel without
/// nfnetlink.
///
/// # Errors
/// When the kernel grants no socket.
pub fn socket() -> Result<Option<Socket>, Error> {
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => return Ok(None),
        opened => opened.map_err(Error::Open)?,
    };
    socket.bind(&SocketAddr::new(0, GROUPS)).map_err(Error::Open)?;
    socket.set_non_blocking(true).map_err(Error::Open)?;
    Ok(Some(socket))
}

/// Whether there is any nftables table in the calling thread's namespace.
///
/// # Errors
/// When the exchange fails.
pub fn has_tables() -> Result<bool, Error> {
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => return Ok(false),
        opened => opened.map_err(Error::Open)?,
    };
    socket.bind_auto().map_err(Error::Open)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECS, 0))
        .map_err(|errno| Error::Open(errno.into()))?;
    socket.send_to(&question(), &SocketAddr::new(0, 0), 0).map_err(Error::Send)?;
    let mut buffer = vec![0; DATAGRAM_OCTETS];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(Errno::ENOBUFS) => return Err(Error::Overrun),
            Err(errno) => return Err(Error::Receive(errno.into())),
        };
        if let Some(answer) = answer(&buffer[..length])? {
            return Ok(answer);
        }
    }
}

/// `struct nlmsghdr` and `struct nfgenmsg`, of any family.
fn question() -> Vec<u8> {
    const LENGTH: u32 = 20;
    let mut octets = LENGTH.to_ne_bytes().to_vec();
    octets.extend(GET_TABLE.to_ne_bytes());
    octets.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    octets.resize(LENGTH as usize, 0);
    octets
}

/// What a datagram of the answer says; `None` if more are to come.
fn answer(mut rest: &[u8]) -> Result<Option<bool>, Error> {
    while let [a, b, c, d, kind, kind2, ..] = *rest {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER_OCTETS);
        let message = message.ok_or_else(|| Error::Malformed(format!("{length} octets of nfnetlink")))?;
        match u16::from_ne_bytes([kind, kind2]) {
            NEW_TABLE => return Ok(Some(true)),
            DONE => return Ok(Some(false)),
            ERROR => {
                let code = message.get(HEADER_OCTETS..HEADER_OCTETS + 4).and_then(|octets| octets.try_into().ok());
                let errno = Errno::from_raw(i32::from_ne_bytes(code.unwrap_or_default()).saturating_abs());
                // Nothing has asked for nf_tables since the kernel started, and it may not even have it.
                let has_none = matches!(errno, Errno::EINVAL | Errno::EOPNOTSUPP);
                return if has_none { Ok(Some(false)) } else { Err(Error::Receive(io::Error::from(errno))) };
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_OCTETS + body.len()).expect("short");
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    #[test]
    fn an_answer_is_read_and_a_broken_one_survived() {
        let table = [message(NEW_TABLE, &[0; 8]), message(DONE, &[0; 4])].concat();
        assert!(matches!(answer(&table), Ok(Some(true))));
        assert!(matches!(answer(&message(DONE, &[0; 4])), Ok(Some(false))));
        assert!(matches!(answer(&message(ERROR, &(-22_i32).to_ne_bytes())), Ok(Some(false))), "no nf_tables");
        assert!(matches!(answer(&message(ERROR, &(-1_i32).to_ne_bytes())), Err(Error::Receive(_))), "EPERM");
        assert!(matches!(answer(&[]), Ok(None)));
        for cut in 1..table.len() {
            let _survived = answer(&table[..cut]);
        }
        assert!(answer(&[0; 24]).is_err(), "a length of zero");
    }
}
