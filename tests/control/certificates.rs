//! What a certificate opens, and what is said to whoever has none, or one that is not right.

use std::path::Path;

use dvr::model::Kind;
use dvr::rpc::proto::view_reply::What;
use dvr::rpc::proto::{ApplyRequest, BeatRequest, ClaimRequest, ListRequest, StatusRequest, ViewRequest, WatchRequest};
use dvr::rpc::{Address, RpcError, connect};
use dvr::tls::{self, Identity};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::loopback::place;
use crate::user::User;
use crate::{Dir, client, controller, names, runtime, status, until, view};

/// Input: a controller over TCP; a node's, a client's, no certificate. Output: each sees what its certificate says.
#[test]
fn a_certificate_opens_its_own_view_and_no_other() {
    let user = User::new("mtls", false);
    let dir = Dir::new("mtls", &user);
    let certs = dir.0.join("certs");
    tls::init(&certs).expect("an authority");
    for identity in [Identity::Node("node1".into()), Identity::Client("admin".into())] {
        tls::issue(&certs, &identity).expect("a certificate");
    }
    let place = place().to_string();
    let (store, text) = (dir.0.join("store"), certs.display().to_string());
    let arguments = ["--store", &store.display().to_string(), "--listen", &place, "--certs", &text];
    let _controller = controller(&user, &dir.0.join("c.sock"), &arguments);
    let address: Address = place.parse().expect("an address");
    let config = |identity| tls::client_config(&certs, &identity).expect("its files");
    runtime().block_on(async {
        let view = |node: &str, ip: &str| ViewRequest {
            node: node.to_owned(),
            tunnel_ip: ip.to_owned(),
            ..ViewRequest::default()
        };
        let mut node1 = client(&address, Some(&config(Identity::Node("node1".into())))).await;
        let refused = node1.view(view("node2", "192.0.2.2")).await.expect_err("another node's view");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("node1") && refused.message().contains("node2"), "{refused}");
        for refused in [
            node1.list(ListRequest::default()).await.expect_err("the whole"),
            node1.watch(WatchRequest::default()).await.expect_err("all changes"),
            node1.apply(ApplyRequest::default()).await.expect_err("a change"),
            node1.status(StatusRequest::default()).await.expect_err("the controller's own"),
        ] {
            assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
            assert!(refused.message().contains("node `node1`'s") && refused.message().contains("use a client's"));
        }
        let claim = ClaimRequest { node: "node2".into(), ..ClaimRequest::default() };
        for refused in [
            node1
                .beat(BeatRequest { node: "node2".into(), ..BeatRequest::default() })
                .await
                .expect_err("another's beat"),
            node1.claim(claim).await.expect_err("another's claim"),
        ] {
            assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
            assert!(refused.message().contains("does not let its bearer speak for node `node2`"), "{refused}");
        }
        let mut own = node1.view(view("node1", "192.0.2.1")).await.expect("its own view").into_inner();
        let first = own.message().await.expect("it is told").expect("it has not ended");
        assert!(matches!(first.what, Some(What::Whole(_))), "{first:?}");
        node1.beat(BeatRequest { node: "node1".into(), ..BeatRequest::default() }).await.expect("its own beat");

        let mut admin = client(&address, Some(&config(Identity::Client("admin".into())))).await;
        assert_eq!(names(&mut admin, Kind::Node).await, ["node1"], "it registered, and node2 did not");

        let authority = std::fs::read(certs.join("ca.crt")).expect("it is there");
        let bare = ClientTlsConfig::new().domain_name(tls::CONTROLLER).ca_certificate(Certificate::from_pem(authority));
        let refused = client(&address, Some(&bare)).await.list(ListRequest::default()).await.expect_err("nobody");
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains("dvr certs client"), "{refused}");
    });
}

/// Puts a certificate of the authority whose files are in `dir`, that has ended years ago, in the place of one that holds.
fn expire(dir: &Path, identity: &Identity) {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("it is there");
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::OrganizationName, "dvr");
    authority.distinguished_name.push(DnType::CommonName, "dvr certificate authority");
    let signer = Issuer::new(authority, KeyPair::from_pem(&read("ca.key")).expect("a key"));
    let mut params = CertificateParams::new([identity.name()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 3, 4);
    let (certificate, key) = identity.files(dir);
    let own = KeyPair::from_pem(&std::fs::read_to_string(key).expect("it is there")).expect("a key");
    let signed = params.signed_by(&own, &signer).expect("a certificate");
    std::fs::write(certificate, signed.pem()).expect("ours");
}

/// Input: the certificate that all controllers bear, ended; then made anew as the controller says. Output: no controller
/// starts with the one, all do with the other, and nodes' certificates are as good as before.
#[test]
fn the_controllers_certificate_is_made_anew_without_another_authority() {
    let user = User::new("renewed", false);
    let dir = Dir::new("renewed", &user);
    let certs = dir.0.join("certs");
    let node = Identity::Node("n1".into());
    tls::init(&certs).expect("an authority");
    tls::issue(&certs, &node).expect("a certificate");
    expire(&certs, &Identity::Controller);
    let (place, text) = (place().to_string(), certs.display().to_string());
    let (socket, store) = (dir.0.join("c.sock"), dir.0.join("store").display().to_string());
    let arguments = ["--store", &store, "--listen", &place, "--certs", &text];
    let mut command = user.command(&["controller", "--socket"]);
    let ended = command.arg(&socket).args(arguments).output().expect("the program starts");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && told.contains("2002-03-04"), "{told}");
    assert!(told.contains("`dvr certs controller`"), "{told}");
    let made = user.run_bare(&["certs", "controller", "--dir", &text]);
    assert!(made.status.success(), "{made:?}");
    let _controller = controller(&user, &socket, &arguments);
    let address: Address = place.parse().expect("an address");
    let told = runtime().block_on(async {
        let tls = tls::client_config(&certs, &node).expect("its files");
        let mut stream = client(&address, Some(&tls)).await.view(view("n1")).await.expect("a stream").into_inner();
        stream.message().await.expect("told").expect("open").what
    });
    assert!(matches!(told, Some(What::Absent(_))), "{told:?}");
}

/// Input: certificates that have ended, and those of another authority. Output: neither opens anything, and both sides can
/// tell why.
#[test]
fn a_certificate_that_has_ended_or_is_anothers_opens_nothing() {
    let user = User::new("foreign", false);
    let dir = Dir::new("foreign", &user);
    let [own, other] = ["own", "other"].map(|name| dir.0.join(name));
    for dir in [&own, &other] {
        tls::init(dir).expect("an authority");
        tls::issue(dir, &Identity::Node("n1".into())).expect("a certificate");
    }
    let place = place().to_string();
    let (store, text) = (dir.0.join("store").display().to_string(), own.display().to_string());
    let arguments = ["--store", &store, "--listen", &place, "--certs", &text];
    let socket = dir.0.join("c.sock");
    let _controller = controller(&user, &socket, &arguments);
    let address: Address = place.parse().expect("an address");
    let runtime = runtime();
    let refused = |tls: &ClientTlsConfig| {
        runtime.block_on(async {
            // With TLS 1.3 a client is connected before it is told that its certificate is refused.
            match connect(&address, Some(tls)).await {
                Ok(mut client) => {
                    let status = client.view(ViewRequest { node: "n1".into(), ..ViewRequest::default() }).await;
                    RpcError::of(&address, &status.expect_err("it is refused"))
                }
                Err(error) => error,
            }
        })
    };
    let node = Identity::Node("n1".into());
    // All is another authority's: this side does not trust the controller.
    let foreign = refused(&tls::client_config(&other, &node).expect("its files"));
    assert!(matches!(foreign, RpcError::Untrusted { .. }), "{foreign}");
    let told = foreign.to_string();
    assert!(told.contains("`dvr certs`") && told.contains(&place), "{told}");
    // Its own certificate alone is: the controller does not trust it.
    std::fs::copy(own.join("ca.crt"), other.join("ca.crt")).expect("ours");
    let told = tls::client_config(&other, &node).expect_err("another's").to_string();
    assert!(told.contains("was not signed by the authority of") && told.contains("`dvr certs node n1`"), "{told}");
    let shown = |dir: &Path| {
        let read = |name: &str| std::fs::read(dir.join(name)).expect("it is there");
        let own = tonic::transport::Identity::from_pem(read("node-n1.crt"), read("node-n1.key"));
        let authority = Certificate::from_pem(read("ca.crt"));
        ClientTlsConfig::new().domain_name(tls::CONTROLLER).ca_certificate(authority).identity(own)
    };
    let foreign = refused(&shown(&other));
    assert!(matches!(foreign, RpcError::Transport { .. } | RpcError::Untrusted { .. }), "{foreign}");
    assert!(foreign.to_string().contains("authority"), "{foreign}");
    // It has ended: whoever bears it is told before it is shown, and one that shows it is refused.
    expire(&own, &node);
    let told = tls::client_config(&own, &node).expect_err("it has ended").to_string();
    assert!(told.contains("2002-03-04") && told.contains("`dvr certs node n1`"), "{told}");
    let ended = refused(&shown(&own));
    assert!(matches!(ended, RpcError::Transport { .. } | RpcError::Untrusted { .. }), "{ended}");
    assert!(ended.to_string().contains("ended?"), "{ended}");
    until("the controller counts them", || {
        runtime.block_on(status(&Address::Unix(socket.clone()))).ok().filter(|now| now.unknown >= 3)
    });
}
