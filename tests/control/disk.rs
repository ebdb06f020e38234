//! A disk that is full: what was acknowledged is kept, and whoever asks is told.

use dvr::model::Kind;
use dvr::rpc::Address;
use tonic::Code;

use crate::user::User;
use crate::{Dir, Process, apply, client, controller, names, put, resource, runtime, status, until};

/// Ports that are asked for at once.
const TOGETHER: usize = 500;

/// Input: a controller whose file may not grow, which is written until it is refused; then one that may. Output: the refusal
/// and `dvr status` say what is in the way, what is known is still told; and afterwards all that was acknowledged is there.
#[test]
fn a_full_disk_loses_nothing_and_is_told() {
    let user = User::new("disk", false);
    let dir = Dir::new("disk", &user);
    let (socket, store) = (dir.0.join("c.sock"), dir.0.join("store"));
    let arguments = ["--store", &store.display().to_string()];
    // An empty store, whose size is the least there can be.
    controller(&user, &socket, &arguments).kill();
    let most = std::fs::metadata(&store).expect("it is there").len() + (1 << 20);
    // In units of 512 octets (POSIX), under which a write fails as on a full disk.
    let script = format!("ulimit -f {} && trap '' XFSZ && exec \"$@\"", most / 512);
    #[expect(clippy::disallowed_methods, reason = "a shell sets the limit")]
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(&user.program).arg("controller").arg("--socket").arg(&socket);
    let full = Process::start(
        {
            command.args(arguments);
            command
        },
        &socket.with_extension("log"),
    );
    let address = Address::Unix(socket.clone());
    let runtime = runtime();
    until("the controller serves", || runtime.block_on(status(&address)).ok());
    let known = runtime.block_on(async {
        let mut client = client(&address, None).await;
        let network = resource(r#"{"kind":"network","name":"a","subnets":[{"cidr":"10.0.0.0/8"}]}"#);
        apply(&mut client, vec![put(&network, None)]).await.expect("there is room for one");
        let mut made = 0;
        let refused = loop {
            let port = |number: usize| format!(r#"{{"kind":"port","name":"p{number}","network":"a"}}"#);
            let edits = (made..made + TOGETHER).map(|number| put(&resource(&port(number)), None)).collect();
            match apply(&mut client, edits).await {
                Ok(_) => made += TOGETHER,
                Err(refused) => break refused,
            }
            assert!(made < 100_000, "the limit does not hold");
        };
        assert_eq!(refused.code, Code::Unavailable, "{refused}");
        let again = apply(&mut client, vec![put(&resource(r#"{"kind":"node","name":"n1"}"#), None)]).await;
        let told = again.expect_err("the file takes no more").message;
        assert!(told.contains("see to disk space"), "{told}");
        let known = names(&mut client, Kind::Port).await;
        assert!(known.len() >= made && made > 0, "{made} were acknowledged, {} are told", known.len());
        known
    });
    let shown = user.run_bare(&["status", "--controller", &address.to_string()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("takes no changes any more"), "{shown}");
    full.kill();
    let _roomy = controller(&user, &socket, &arguments);
    runtime.block_on(async {
        let mut client = client(&address, None).await;
        let mut kept = names(&mut client, Kind::Port).await;
        kept.retain(|name| known.contains(name));
        assert_eq!(kept, known, "what was told is gone");
        let edits = vec![put(&resource(r#"{"kind":"node","name":"n1"}"#), None)];
        apply(&mut client, edits).await.expect("there is room again");
    });
}
