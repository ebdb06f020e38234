//! Writers that saw the same, and agents that come back.

use dvr::model::{Kind, Resource};
use dvr::rpc::Address;
use dvr::rpc::proto::view_reply::What;
use dvr::rpc::proto::{BeatRequest, ViewRequest};
use tonic::Code;

use crate::user::User;
use crate::{Dir, apply, client, controller, names, put, resource, runtime};

/// Input: two writers that saw the same revision; a controller killed and started anew. Output: the second is told of the
/// first, and what was acknowledged is there, also for an agent that goes on from where it was.
#[test]
fn writers_conflict_by_revision_and_agents_go_on_where_they_were() {
    let user = User::new("embedded", false);
    let dir = Dir::new("embedded", &user);
    let (socket, store) = (dir.0.join("c.sock"), dir.0.join("store").display().to_string());
    let process = controller(&user, &socket, &["--store", &store]);
    let address = Address::Unix(socket.clone());
    let runtime = runtime();
    let node = resource(r#"{"kind":"node","name":"n1"}"#);
    let network = resource(r#"{"kind":"network","name":"a","subnets":[{"cidr":"10.1.0.0/24","gateway":"10.1.0.1"}]}"#);
    let port = |name: &str, node: &str| {
        resource(&format!(r#"{{"kind":"port","name":"{name}","network":"a","node":"{node}"}}"#))
    };
    let view = |epoch: &str, revision| ViewRequest {
        node: "n1".into(),
        tunnel_ip: String::new(),
        epoch: epoch.to_owned(),
        revision,
    };
    let (epoch, held) = runtime.block_on(async {
        let mut client = client(&address, None).await;
        let mut stream = client.view(view("", 0)).await.expect("a stream").into_inner();
        let absent = stream.message().await.expect("told").expect("open");
        assert!(matches!(absent.what, Some(What::Absent(_))), "{absent:?}");
        let edits = vec![put(&port("p1", "n1"), None), put(&network, None), put(&node, None)];
        let made = apply(&mut client, edits).await.expect("in any order");
        assert_eq!(made.changes.len(), 3);
        let whole = stream.message().await.expect("told").expect("open");
        assert!(matches!(whole.what, Some(What::Whole(_))), "{whole:?}");
        let other = port("p1", "n1");
        let Resource::Port(mut moved) = other else { unreachable!("it is a port") };
        moved.node = None;
        let moved = Resource::Port(moved);
        let first = apply(&mut client, vec![put(&moved, Some(made.revision))]).await.expect("as it was seen");
        let second = apply(&mut client, vec![put(&port("p1", "n1"), Some(made.revision))]).await.expect_err("too late");
        assert_eq!(second.code, Code::Aborted);
        assert!(second.message.contains(&format!("revision {}", first.revision)), "{}", second.message);
        let there = apply(&mut client, vec![put(&node, Some(0))]).await.expect_err("it is there");
        assert_eq!(there.code, Code::Aborted);
        let again = apply(&mut client, vec![put(&moved, None)]).await.expect("no change is no conflict");
        assert_eq!(again.changes, []);
        let told = stream.message().await.expect("told").expect("open");
        assert!(matches!(told.what, Some(What::Changes(_))), "{told:?}");
        // That it lives moves the store's revision, and nothing that it is told.
        client.beat(BeatRequest { node: "n1".into(), ..BeatRequest::default() }).await.expect("it is heard");
        (told.epoch, told.revision)
    });
    process.kill();
    let _again = controller(&user, &socket, &["--store", &store]);
    runtime.block_on(async {
        let mut client = client(&address, None).await;
        assert_eq!(names(&mut client, Kind::Port).await, ["p1"]);
        let mut stream = client.view(view(&epoch, held)).await.expect("a stream").into_inner();
        let resumed = stream.message().await.expect("told").expect("open");
        assert!(matches!(resumed.what, Some(What::Resumed(true))), "{resumed:?}");
        apply(&mut client, vec![put(&port("p2", "n1"), None)]).await.expect("a change");
        let told = stream.message().await.expect("told").expect("open");
        assert!(matches!(told.what, Some(What::Changes(_))), "{told:?}");
        // Another history with such a revision is not mistaken for this one, nor are views that another release made of it.
        let (history, _) = epoch.rsplit_once('/').expect("a history and a release");
        for other in ["another", history, &format!("{history}/0.0.1")] {
            let mut stream = client.view(view(other, held)).await.expect("a stream").into_inner();
            let whole = stream.message().await.expect("told").expect("open");
            assert!(matches!(whole.what, Some(What::Whole(_))), "{other}: {whole:?}");
        }
    });
}
