//! One route netlink socket, and the exchanges on it.

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::{Error, Refusal};

/// How many requests go out in one send, with one acknowledgement. All may fail, and 256 refusals still fit the receive
/// buffer every kernel grants (208 KiB).
pub const BATCH_MAX: usize = 256;
/// How often a dump that changes tore apart is begun again.
pub const DUMP_TRIES_MAX: u32 = 16;
/// The socket's receive buffer: more than the default, in case the kernel allows it.
const RECEIVE_BUFFER_OCTETS: i32 = 1 << 20;
/// The greatest datagram taken. Dumps come in at most 32 KiB (`netlink_dump()`, `net/netlink/af_netlink.c`).
const DATAGRAM_OCTETS: usize = 1 << 16;
/// The kernel answers before the send returns; an answer that is not there after this long was lost.
const ANSWER_SECS: i64 = 10;

/// `NLMSGERR_ATTR_MSG` and `NLMSGERR_ATTR_OFFS` (`linux/netlink.h`).
const ATTR_MSG: u16 = 1;
const ATTR_OFFS: u16 = 2;
/// What precedes each message, and the explanation in a refusal with `NETLINK_CAP_ACK`: `struct nlmsghdr`.
const HEADER_OCTETS: usize = 16;
/// Types below are control messages (`linux/netlink.h`).
const NLMSG_MIN_TYPE: u16 = 0x10;

/// A route netlink socket in one namespace.
pub struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Which request of a batch failed first, and why. Later ones were carried out where the kernel could.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct BatchFailure {
    /// The request's place in the batch.
    pub index: usize,
    /// Why it failed.
    pub source: Error,
}

impl Connection {
    /// A socket in the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel grants no socket.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        socket.bind_auto().map_err(Error::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        // Without the second, the whole request is echoed ahead of the explanation.
        socket.set_ext_ack(true).map_err(Error::Open)?;
        socket.set_cap_ack(true).map_err(Error::Open)?;
        // A hint: what the kernel grants is enough for everything but speed.
        let _granted = socket.set_rx_buf_sz(RECEIVE_BUFFER_OCTETS);
        let connection = Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_OCTETS] };
        setsockopt(&connection.fd(), sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECS, 0))
            .map_err(|errno| Error::Open(errno.into()))?;
        Ok(connection)
    }

    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.socket.as_fd()
    }

    /// One request, acknowledged. `flags` are those beside REQUEST and ACK.
    ///
    /// # Errors
    /// When the kernel refuses it, or the exchange itself fails.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.batch([message], flags).map_err(|failure| failure.source)
    }

    /// Any number of requests, in order, at most [`BATCH_MAX`] in a send. Every chunk is sent whole, and the first chunk
    /// with a failure is the last.
    ///
    /// # Errors
    /// The first request that failed.
    pub fn batch(
        &mut self,
        messages: impl IntoIterator<Item = RouteNetlinkMessage>,
        flags: u16,
    ) -> Result<(), BatchFailure> {
        let mut messages = messages.into_iter().peekable();
        let mut done = 0;
        while messages.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut octets = Vec::new();
            let mut count = 0;
            while let Some(message) = messages.next() {
                count += 1;
                let last = count == BATCH_MAX || messages.peek().is_none();
                self.encode(&mut octets, message, if last { flags | NLM_F_ACK } else { flags });
                if last {
                    break;
                }
            }
            let failed = |index: usize, source| BatchFailure { index: done + index, source };
            self.send(&octets).map_err(|error| failed(0, error))?;
            match self.acknowledgement(first).map_err(|error| failed(0, error))? {
                Some((index, refusal)) => return Err(failed(index as usize, Error::Refused(refusal))),
                None => done += count,
            }
        }
        Ok(())
    }

    /// One request answered by one object, such as a link asked for by name.
    ///
    /// # Errors
    /// When the kernel refuses it, as it does when there is no such object.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other payloads are no answer to what was asked")]
    pub fn get(&mut self, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, Error> {
        let mut octets = Vec::new();
        self.encode(&mut octets, message, 0);
        self.send(&octets)?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(object) => return Ok(object),
                    NetlinkPayload::Error(error) => {
                        return Err(refused(error.raw_code(), error.header.get(HEADER_OCTETS..)));
                    }
                    NetlinkPayload::Overrun(_) => return Err(Error::Overrun),
                    _ => return Err(Error::Malformed("an answer of no known type".to_owned())),
                }
            }
        }
    }

    /// Everything of one kind, whole and undisturbed: a dump that a change tore apart is begun again.
    ///
    /// # Errors
    /// When the kernel refuses or breaks it off, or when [`DUMP_TRIES_MAX`] dumps were torn. Part of a dump is never
    /// returned.
    pub fn dump(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.dump_as(message, |octets| {
            let NetlinkPayload::InnerMessage(object) = whole(octets)?.payload else {
                return Err(Error::Malformed("an object of no known type".to_owned()));
            };
            Ok(object)
        })
    }

    /// The same with objects read by the caller, from the octets behind each one's netlink header.
    ///
    /// # Errors
    /// As [`Self::dump`], and what `read` returns.
    pub fn dump_with<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.dump_as(message, |octets| read(octets.get(HEADER_OCTETS..).unwrap_or_default()))
    }

    fn dump_as<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_TRIES_MAX {
            let mut octets = Vec::new();
            self.encode(&mut octets, message.clone(), NLM_F_DUMP);
            self.send(&octets)?;
            if let Some(objects) = self.collect(&read)? {
                return Ok(objects);
            }
        }
        Err(Error::Torn { tries: DUMP_TRIES_MAX })
    }

    /// Reads a dump to its end; `None` if it was torn.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other payloads are no answer to what was asked")]
    fn collect<T>(&mut self, read: impl Fn(&[u8]) -> Result<T, Error>) -> Result<Option<Vec<T>>, Error> {
        let mut objects = Vec::new();
        let mut torn = false;
        loop {
            let length = self.receive_datagram()?;
            for octets in split(&self.buffer[..length]) {
                let octets = octets?;
                let header = NetlinkBuffer::new_checked(octets).map_err(malformed)?;
                if header.sequence_number() != self.sequence {
                    continue;
                }
                torn |= header.flags() & NLM_F_DUMP_INTR != 0;
                if header.message_type() >= NLMSG_MIN_TYPE {
                    objects.push(read(octets)?);
                    continue;
                }
                match whole(octets)?.payload {
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(refused(done.code, Some(&done.extended_ack)));
                    }
                    NetlinkPayload::Done(_) => return Ok((!torn).then_some(objects)),
                    NetlinkPayload::Error(error) => {
                        return Err(refused(error.raw_code(), error.header.get(HEADER_OCTETS..)));
                    }
                    NetlinkPayload::Overrun(_) => return Err(Error::Overrun),
                    _ => {}
                }
            }
        }
    }

    /// Reads until the last request sent is answered. Tells the first refusal: how many requests after `first`, and why.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other payloads are no answer to what was asked")]
    fn acknowledgement(&mut self, first: u32) -> Result<Option<(u32, Refusal)>, Error> {
        let mut refusal: Option<(u32, Refusal)> = None;
        loop {
            for message in self.receive()? {
                let index = message.header.sequence_number.wrapping_sub(first);
                if index > self.sequence.wrapping_sub(first) {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        if error.code.is_some() && refusal.is_none() {
                            refusal = Some((index, explain(error.raw_code(), error.header.get(HEADER_OCTETS..))));
                        }
                        if message.header.sequence_number == self.sequence {
                            return Ok(refusal);
                        }
                    }
                    NetlinkPayload::Overrun(_) => return Err(Error::Overrun),
                    _ => {}
                }
            }
        }
    }

    fn encode(&mut self, octets: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = octets.len();
        // Each message starts on a multiple of four octets (`NLMSG_ALIGN`, `linux/netlink.h`).
        octets.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut octets[start..]);
    }

    fn send(&self, octets: &[u8]) -> Result<(), Error> {
        loop {
            match self.socket.send(octets, 0) {
                Ok(sent) if sent == octets.len() => return Ok(()),
                Ok(_) => return Err(Error::Send(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Send(error)),
            }
        }
    }

    /// The messages of the next datagram.
    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        let length = self.receive_datagram()?;
        decode(&self.buffer[..length])
    }

    /// Reads the next datagram into the buffer, and gives its length.
    fn receive_datagram(&mut self) -> Result<usize, Error> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(Error::Malformed(format!("a datagram of {length} octets")));
                }
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Err(Error::Overrun),
                Err(errno) => return Err(Error::Receive(errno.into())),
            }
        }
    }
}

/// The messages of a datagram.
pub(super) fn decode(datagram: &[u8]) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
    split(datagram).map(|octets| whole(octets?)).collect()
}

/// The octets of each message of a datagram.
fn split(mut rest: &[u8]) -> impl Iterator<Item = Result<&[u8], Error>> {
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match NetlinkBuffer::new_checked(rest) {
            Ok(header) => header.length() as usize,
            Err(error) => {
                rest = &[];
                return Some(Err(malformed(error)));
            }
        };
        let message = &rest[..length];
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    })
}

fn whole(octets: &[u8]) -> Result<NetlinkMessage<RouteNetlinkMessage>, Error> {
    NetlinkMessage::deserialize(octets).map_err(malformed)
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn malformed(error: netlink_packet_core::DecodeError) -> Error {
    Error::Malformed(error.to_string())
}

fn refused(code: i32, attributes: Option<&[u8]>) -> Error {
    Error::Refused(explain(code, attributes))
}

/// Reads the explanation that follows a refusal: attributes of a 16-bit length and type each, padded to four octets.
fn explain(code: i32, attributes: Option<&[u8]>) -> Refusal {
    let mut refusal = Refusal { errno: Errno::from_raw(code.saturating_abs()), text: None, offset: None };
    let mut rest = attributes.unwrap_or_default();
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = rest.get(4..length) else { break };
        match u16::from_ne_bytes([c, d]) {
            ATTR_MSG => {
                let text = value.split(|octet| *octet == 0).next().unwrap_or_default();
                refusal.text = Some(String::from_utf8_lossy(text).into_owned());
            }
            ATTR_OFFS => refusal.offset = value.try_into().ok().map(u32::from_ne_bytes),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_read_and_a_broken_one_is_survived() {
        let mut octets = vec![8, 0, 2, 0, 64, 0, 0, 0, 9, 0, 1, 0];
        octets.extend(b"full\0\0\0\0");
        let refusal = explain(-17, Some(&octets));
        assert_eq!((refusal.errno, refusal.text.as_deref(), refusal.offset), (Errno::EEXIST, Some("full"), Some(64)));
        assert_eq!(refusal.to_string(), "EEXIST: File exists (full)");
        for cut in 0..octets.len() {
            let _survived = explain(-17, octets.get(..cut));
        }
        assert_eq!(explain(-95, Some(&[0, 0, 0, 0, 0, 0])).text, None, "a length of zero ends the list");
    }
}
