//! Transfers between places of a lab, by this very test binary: no program needs to be installed.
//!
//! A test binary that includes this as its module `transfer` has two more tests, ignored, which are the ends.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::user::User;

/// How long the far end of a transfer may take to appear, or to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs this test binary's [`far_end`] or [`near_end`] in a place of the lab.
fn inside(user: &User, place: &str, test: &str, peer: &str) -> Child {
    let program = std::env::current_exe().expect("the test binary's path").display().to_string();
    let test = format!("transfer::{test}");
    let words =
        ["lab", "exec", place, "--name", &user.lab, "--", &program, &test, "--exact", "--ignored", "--nocapture"];
    let mut command = user.command(&words);
    command.env("DVR_TEST_PEER", peer).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Octets of the bulk transfer.
const BULK: usize = 4 << 20;

/// Echoes one datagram and counts what one connection brings. Started by another test, inside a VM.
#[test]
#[ignore = "the far end of a transfer between virtual machines: started by another test"]
fn far_end() {
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5202)).expect("a free port");
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 5201)).expect("a free port");
    let mut buffer = vec![0; 65_536];
    let (mut connection, _) = listener.accept().expect("a connection");
    datagrams.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let (length, from) = datagrams.recv_from(&mut buffer).expect("a datagram");
    datagrams.send_to(&buffer[..length], from).expect("sent");
    let mut count = 0_u64;
    loop {
        match connection.read(&mut buffer).expect("a sound connection") {
            0 => break,
            more => count += u64::try_from(more).expect("small"),
        }
    }
    connection.write_all(&count.to_be_bytes()).expect("the near end listens");
}

/// The other side of [`far_end`].
#[test]
#[ignore = "the near end of a transfer between virtual machines: started by another test"]
fn near_end() {
    let peer = std::env::var("DVR_TEST_PEER").expect("whom to ask");
    let mut connection = loop {
        match TcpStream::connect((peer.as_str(), 5201)) {
            Ok(connection) => break connection,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::thread::yield_now(),
            Err(error) => panic!("{peer}: {error}"),
        }
    };
    let datagrams = UdpSocket::bind(if peer.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).expect("a free port");
    datagrams.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let datagram: Vec<u8> = (0..3_200_u32).map(|at| at.to_be_bytes()[3]).collect();
    datagrams.send_to(&datagram, (peer.as_str(), 5202)).expect("sent in fragments");
    let mut buffer = vec![0; 65_536];
    let length = datagrams.recv(&mut buffer).expect("the echo, put together again");
    assert_eq!(buffer[..length], datagram);
    connection.set_read_timeout(Some(LIMIT)).expect("a timeout");
    connection.write_all(&vec![7; BULK]).expect("bulk passes");
    connection.shutdown(Shutdown::Write).expect("a sound connection");
    let mut count = [0; 8];
    connection.read_exact(&mut count).expect("the count");
    assert_eq!(u64::from_be_bytes(count), u64::try_from(BULK).expect("small"));
}

/// A datagram in fragments, there and back, and bulk over TCP, from one place to another, which has this address.
pub(crate) fn transfer(user: &User, (from, to): (&str, &str), peer: &str) {
    let far = inside(user, to, "far_end", peer);
    for (child, what) in [(inside(user, from, "near_end", peer), "the near end"), (far, "the far end")] {
        let output = child.wait_with_output().expect("our child");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{what} of {peer}: {out}{err}");
    }
}
