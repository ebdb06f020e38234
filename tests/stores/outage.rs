//! etcd's members going away and coming back, and the way to them.

use std::time::Duration;

use dvr::store::{Op, Store, StoreError, Tls};

use super::peer::Etcd;
use super::{next, put, read, revision, words, write};

/// An endpoint where nothing listens.
const NOBODY: &str = "http://127.0.0.1:1";

pub(crate) async fn a_member_that_is_down_is_passed_over(etcd: &Etcd) {
    let store = Store::open_etcd(&[NOBODY.to_owned(), etcd.endpoint()], None).expect("endpoints");
    // A commit too: it never left here, so it may be made elsewhere.
    let first = write(&store, vec![put("a", "1")]).await;
    assert_eq!((store.counters().failovers, store.counters().unknown), (1, 0));
    assert_eq!(words(&next(&mut store.watch("", first - 1).expect("a watch")).await), ["a=1"]);
    // Who answered is asked first.
    assert_eq!(store.counters().failovers, 1);
    let alone = Store::open_etcd(&[NOBODY.to_owned()], None).expect("an endpoint");
    let error = alone.read("").await.expect_err("nobody is there");
    assert!(
        matches!(&error, StoreError::Unavailable { last, tried, .. } if last.contains(NOBODY) && *tried > 1),
        "{error}"
    );
    for endpoints in [&[][..], &["nonsense ://"], &["https://127.0.0.1:1"]] {
        let endpoints: Vec<String> = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        assert!(matches!(Store::open_etcd(&endpoints, None), Err(StoreError::Endpoint { .. })), "{endpoints:?}");
    }
}

pub(crate) async fn a_watch_and_a_lease_outlive_the_server(etcd: &mut Etcd, ttl: Duration) {
    let store = etcd.open();
    let lease = store.grant(ttl).await.expect("a lease");
    let start = write(&store, vec![Op::Put { key: "live".into(), value: Vec::new(), lease: Some(lease) }]).await;
    let mut watch = store.watch("", start).expect("a watch");
    let second = write(&store, vec![put("a", "1")]).await;
    assert_eq!(next(&mut watch).await.revision, second);
    let waiting = tokio::spawn(async move { (next(&mut watch).await, watch) });

    etcd.kill(0);
    let error = store.commit(dvr::store::Txn { expect: Vec::new(), ops: vec![put("lost", "1")] }).await;
    let error = error.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unavailable { .. } | StoreError::Unknown { .. }), "{error}");
    etcd.restart(0);

    // The first keep may meet a server that does not answer yet.
    let mut kept = store.keep(lease).await;
    while matches!(kept, Err(StoreError::Unavailable { .. })) {
        kept = store.keep(lease).await;
    }
    kept.expect("the lease outlives its server");
    let third = write(&store, vec![put("a", "2")]).await;
    assert_eq!(third, second + 1, "what was not acknowledged was never there");
    let (batch, mut watch) = waiting.await.expect("the watch goes on");
    assert_eq!((batch.revision, words(&batch)), (third, vec!["a=2".into()]));
    assert!(store.counters().resumes > 0);
    store.revoke(lease).await.expect("it lives");
    assert_eq!(words(&next(&mut watch).await), ["-live"]);
    assert_eq!(revision(&store).await, third + 1);
}

/// The program itself, with the files' names.
pub(crate) async fn a_controller_shows_its_certificate(etcd: &Etcd) {
    let socket = etcd.file("controller.sock");
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dvr"));
    command.args(["controller", "--etcd", &etcd.endpoint(), "--socket"]).arg(&socket);
    command.arg("--etcd-ca").arg(etcd.file("ca.pem"));
    command.arg("--etcd-cert").arg(etcd.file("client.pem")).arg("--etcd-key").arg(etcd.file("client.key"));
    let mut controller = command.stderr(std::process::Stdio::null()).spawn().expect("the program starts");
    let address = dvr::rpc::Address::Unix(socket);
    let status = loop {
        if let Ok(mut client) = dvr::rpc::connect(&address, None).await
            && let Ok(status) = client.status(dvr::rpc::proto::StatusRequest {}).await
        {
            break status.into_inner();
        }
        assert!(controller.try_wait().expect("its state").is_none(), "the controller ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    controller.kill().expect("it is killed");
    controller.wait().expect("it is gone");
    assert!(!status.epoch.is_empty() && status.revision > 0, "{status:?}");
}

pub(crate) async fn certificates_are_asked_for_both_ways(etcd: &Etcd, tls: &Tls) {
    let open = |tls: &Tls| Store::open_etcd(&[etcd.endpoint()], Some(tls)).expect("an endpoint");
    let store = open(tls);
    write(&store, vec![put("a", "1")]).await;
    assert_eq!(read(&store, "").await, [("a".into(), "1".into())]);
    // Without our certificate, and with an authority that is not theirs.
    let (other, _) = tls.identity.clone().expect("a certificate");
    for stranger in [Tls { identity: None, ..tls.clone() }, Tls { ca: other, ..tls.clone() }] {
        let error = open(&stranger).read("").await.expect_err("a stranger");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    assert!(Store::open_etcd(&[etcd.endpoint()], None).is_err());
}
