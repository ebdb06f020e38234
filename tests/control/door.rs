//! Who is let in, and for how long.

use std::io::Read;

use dvr::rpc::Address;
use dvr::rpc::proto::{BeatRequest, ViewRequest};
use dvr::tls::{self, Identity};
use tonic::Code;

use crate::loopback::place;
use crate::user::User;
use crate::{Dir, LIMIT, client, controller, runtime, status, until};

/// Input: connections over TCP that show nothing, and a node that opens stream after stream. Output: the former are counted
/// and ended by the controller, the latter has one stream.
#[test]
fn strangers_are_shown_out_and_a_node_has_one_stream() {
    let user = User::new("door", false);
    let dir = Dir::new("door", &user);
    let certs = dir.0.join("certs");
    tls::init(&certs).expect("an authority");
    tls::issue(&certs, &Identity::Node("n1".into())).expect("a certificate");
    let (place, socket) = (place(), dir.0.join("c.sock"));
    let (store, text) = (dir.0.join("store").display().to_string(), certs.display().to_string());
    let arguments = ["--store", &store, "--listen", &place.to_string(), "--certs", &text];
    let _controller = controller(&user, &socket, &arguments);
    let (own, listening) = (Address::Unix(socket), Address::Tls(place.to_string()));
    let runtime = runtime();
    let before = runtime.block_on(status(&own)).expect("it serves");
    let mut silent = std::net::TcpStream::connect(place).expect("it listens");
    let strangers = until("it is seen", || runtime.block_on(status(&own)).ok().filter(|now| now.strangers > 0));
    assert_eq!(strangers.shown_out, before.shown_out);
    let config = tls::client_config(&certs, &Identity::Node("n1".into())).expect("its files");
    runtime.block_on(async {
        let view = || ViewRequest { node: "n1".into(), tunnel_ip: "192.0.2.1".into(), ..ViewRequest::default() };
        let mut node = client(&listening, Some(&config)).await;
        let mut first = node.view(view()).await.expect("a stream").into_inner();
        assert!(first.message().await.expect("told").is_some());
        let mut second = node.view(view()).await.expect("a stream").into_inner();
        let ended = loop {
            match first.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::Aborted, "{ended}");
        assert!(second.message().await.expect("told").is_some());
        let now = status(&own).await.expect("it serves");
        assert_eq!((now.views, now.replaced), (1, 1));
        // What a node may send is short.
        let long = BeatRequest { node: "n1".into(), applied: 1, errors: vec!["x".repeat(1 << 20)] };
        assert_eq!(node.beat(long).await.expect_err("too long").code(), Code::OutOfRange);
    });
    // The controller closes what has said nothing, by an end or by a reset.
    silent.set_read_timeout(Some(LIMIT)).expect("a limit");
    match silent.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0, "it answers silence"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    until("it is counted", || runtime.block_on(status(&own)).ok().filter(|now| now.shown_out > before.shown_out));
}
