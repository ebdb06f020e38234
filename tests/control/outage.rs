//! An etcd that is not there, from the start or for a while.

use dvr::model::Kind;
use dvr::rpc::Address;
use dvr::rpc::proto::BeatRequest;
use dvr::rpc::proto::view_reply::What;
use tonic::Code;

use crate::etcd::{How, Members};
use crate::user::User;
use crate::{Dir, apply, begun, client, controller, items, put, resource, runtime, status, until, view};

/// Input: a controller whose etcd is not there yet. Output: it says so to whoever asks, and serves as soon as it is.
#[test]
fn a_controller_waits_for_its_etcd_and_says_so() {
    let user = User::new("waits", false);
    let dir = Dir::new("waits", &user);
    let Some(mut etcd) = Members::planned(&dir.0, 3, How::default()) else { return };
    let socket = dir.0.join("c.sock");
    let mut process = begun(&user, &socket, &["--etcd", &etcd.endpoints().join(",")]);
    let address = Address::Unix(socket);
    let runtime = runtime();
    let why = until("it answers", || {
        runtime.block_on(status(&address)).err().filter(|why| why.contains("has not been able to read its store"))
    });
    assert!(why.contains("cannot commit in etcd"), "{why}");
    etcd.start();
    until("it serves", || runtime.block_on(status(&address)).ok());
    assert!(!process.ended());
}

/// Input: an agent that follows a controller, and all of etcd's members killed and started again. Output: while they are
/// away a write is refused in clear words, what is desired is told, and the agent keeps its stream; afterwards all goes on
/// from where it was, and the agent's node lived all the time.
#[test]
fn an_outage_of_etcd_stops_writes_alone_and_leaves_nothing_behind() {
    let user = User::new("outage", false);
    let dir = Dir::new("outage", &user);
    let Some(mut etcd) = Members::planned(&dir.0, 3, How::default()) else { return };
    etcd.start();
    let socket = dir.0.join("c.sock");
    let _controller = controller(&user, &socket, &["--etcd", &etcd.endpoints().join(",")]);
    let address = Address::Unix(socket);
    let runtime = runtime();
    let network = |name: &str, third: u8| {
        let text = format!(r#"{{"kind":"network","name":"{name}","subnets":[{{"cidr":"10.1.{third}.0/24"}}]}}"#);
        vec![put(&resource(&text), None)]
    };
    let port = |name: &str| {
        vec![put(&resource(&format!(r#"{{"kind":"port","name":"{name}","network":"a","node":"n1"}}"#)), None)]
    };
    let mut client = runtime.block_on(client(&address, None));
    let mut stream = runtime.block_on(async {
        let first =
            [vec![put(&resource(r#"{"kind":"node","name":"n1"}"#), None)], network("a", 1), port("p1")].concat();
        apply(&mut client, first).await.expect("it is right");
        let beat = BeatRequest { node: "n1".into(), ..BeatRequest::default() };
        let mut stream = client.view(view("n1")).await.expect("a stream").into_inner();
        let whole = stream.message().await.expect("told").expect("open");
        assert!(matches!(whole.what, Some(What::Whole(_))), "{whole:?}");
        client.beat(beat).await.expect("it is there");
        stream
    });
    (0..3).for_each(|number| etcd.kill(number));
    runtime.block_on(async {
        let refused = apply(&mut client, network("b", 2)).await.expect_err("nobody keeps it");
        assert_eq!(refused.code, Code::Unavailable, "{refused}");
        assert!(refused.message.contains("etcd") && refused.message.contains("see to its members"), "{refused}");
        let told = items(&mut client, Kind::Node).await;
        assert_eq!(told.iter().map(|item| item.live).collect::<Vec<_>>(), [Some(true)]);
    });
    let shown = user.run_bare(&["status", "--controller", &address.to_string(), "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let members = shown[0]["store"]["members"].as_array().expect("its members").clone();
    assert!(
        members.iter().any(|member| member["state"].as_str().is_some_and(|state| state.contains("did not answer")))
    );
    (0..3).for_each(|number| etcd.restart(number));
    // What was refused may have come about; to ask for it again does no harm.
    until("it is written", || runtime.block_on(apply(&mut client, [network("b", 2), port("p2")].concat())).ok());
    runtime.block_on(async {
        loop {
            let told = stream.message().await.expect("its stream goes on").expect("open");
            let Some(What::Changes(octets)) = told.what else { panic!("{told:?}") };
            if String::from_utf8_lossy(&octets).contains("\"p2\"") {
                break;
            }
        }
        assert_eq!(items(&mut client, Kind::Node).await[0].live, Some(true));
        let now = status(&address).await.expect("it serves");
        assert_eq!((now.wholes, now.resets, now.views), (1, 0, 1), "{now:?}");
    });
}
