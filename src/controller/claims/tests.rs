//! Addresses that move: at once, not without end, and in the end to whoever was last.

use tokio::time::timeout;

use super::*;
use crate::controller::hub;
use crate::store::Store;

fn waiting(port: &str) -> Waiting {
    let address = ClaimedAddress { ip: [10, 1, 0, 100].into(), mac: "fa:16:3e:00:00:01".parse().expect("a MAC") };
    Waiting { claim: AddressClaim { port: port.to_owned(), node: "n1".to_owned(), address }, answer: None }
}

fn address(last: u16) -> Address {
    let [high, low] = last.to_be_bytes();
    ("blue".to_owned(), [10, 1, high, low].into())
}

/// Everything that is due up to a moment, as ports by when.
fn run(docket: &mut Docket, now: &mut Instant, until: Instant) -> Vec<(Instant, Vec<String>)> {
    let mut all = Vec::new();
    loop {
        match docket.due(*now) {
            Ok(due) => all.push((*now, due.into_iter().map(|(_, waiting)| waiting.claim.port).collect())),
            Err(Some(wait)) if *now + wait <= until => *now += wait,
            Err(_) => break,
        }
    }
    *now = until;
    all
}

#[test]
fn an_address_moves_at_once_some_times_and_then_once_a_second_to_the_last() {
    let (mut docket, begun) = (Docket::default(), Instant::now());
    let (mut now, mut moves) = (begun, Vec::new());
    // Two that announce it in turn, every 10 ms, for 20 seconds.
    for turn in 0..2_000 {
        let port = if turn % 2 == 0 { "a" } else { "b" };
        docket.add(address(1), waiting(port), now);
        let until = now + Duration::from_millis(10);
        moves.extend(run(&mut docket, &mut now, until));
    }
    let (every, row) = MOVE;
    let moved = u32::try_from(moves.len()).expect("few");
    assert!((20..=20 + row).contains(&moved), "{moved} moves in 20 s");
    assert!(moves[0].0 == begun && moves[2].0 - begun <= 4 * WRITE_EVERY, "the first are made at once");
    // The last of all is made, and then it is quiet.
    let until = now + 10 * every;
    moves.extend(run(&mut docket, &mut now, until));
    assert_eq!(moves.last().map(|(_, ports)| ports.join(" ")).as_deref(), Some("b"));
    assert!(docket.waiting.is_empty() && docket.due(now).is_err() && docket.settled.is_empty());
    // Another address is not made to wait meanwhile, and one that was still for long moves at once again.
    assert_eq!(docket.add(address(1), waiting("a"), now), (Docketed::Now, false));
}

#[test]
fn what_comes_together_is_written_together_and_no_more_than_fits() {
    let (mut docket, mut now) = (Docket::default(), Instant::now());
    for last in 0..100 {
        assert_eq!(docket.add(address(last), waiting("a"), now), (Docketed::Now, false));
    }
    assert_eq!(docket.add(address(7), waiting("b"), now), (Docketed::Now, true));
    let (begun, until) = (now, now + MOVE.0);
    let writes = run(&mut docket, &mut now, until);
    let sizes: Vec<usize> = writes.iter().map(|(_, ports)| ports.len()).collect();
    assert_eq!(sizes, [TOGETHER_MAX, TOGETHER_MAX, TOGETHER_MAX, 100 - 3 * TOGETHER_MAX]);
    assert_eq!(writes[3].0 - begun, 3 * WRITE_EVERY);
    assert_eq!(writes.iter().flat_map(|(_, ports)| ports).filter(|port| *port == "b").count(), 1);
}

#[test]
fn too_many_that_wait_are_refused() {
    let (mut docket, now) = (Docket::default(), Instant::now());
    for last in 0..u16::try_from(WAITING_MAX).expect("not so many") {
        docket.add(address(last), waiting("a"), now);
    }
    assert_eq!(docket.add(address(u16::MAX), waiting("a"), now), (Docketed::Full, false));
    assert_eq!(docket.add(address(0), waiting("a"), now), (Docketed::Now, true));
}

/// Input: two ports that announce one address in turn, without a pause. Output: few writes; the last has it in the end;
/// the rest is counted.
#[tokio::test]
async fn a_contended_address_costs_few_writes() {
    let dir = std::env::temp_dir().join(format!("dvr-claims-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let hub = Hub::new(Store::open_embedded(&dir.join("store")).expect("a new store"));
    hub.open().await.expect("an empty store");
    for task in [Arc::clone(&hub), Arc::clone(&hub)].into_iter().enumerate() {
        let (which, hub) = task;
        tokio::spawn(async move {
            match which {
                0 => match hub::follow(&hub).await {},
                _ => match keep(&hub).await {},
            }
        });
    }
    let port = |name: &str, last: u8| {
        format!(
            r#"{{"kind":"port","name":"{name}","network":"a","node":"n1","mac":"fa:16:3e:00:00:0{last}",
                "allowed_address_pairs":[{{"ip":"10.1.0.100/32"}}]}}"#
        )
    };
    let texts = [
        r#"{"kind":"node","name":"n1"}"#.to_owned(),
        r#"{"kind":"network","name":"a","subnets":[{"cidr":"10.1.0.0/24"}]}"#.to_owned(),
        port("p1", 1),
        port("p2", 2),
    ];
    let edits = texts.iter().map(|text| Edit::put(serde_json::from_str(text).expect("a resource"))).collect();
    write::apply(&hub, Arc::new(Wish { edits, underlay: None }), false).await.expect("they are right");
    let said = |port: &str, last: u8| AddressClaim {
        port: port.to_owned(),
        node: "n1".to_owned(),
        address: ClaimedAddress {
            ip: [10, 1, 0, 100].into(),
            mac: format!("fa:16:3e:00:00:0{last}").parse().expect("a MAC"),
        },
    };
    let before = hub.world().revision;
    let first = claim(&hub, said("p1", 1)).await.expect("it may");
    assert!(first > before, "at once");
    for _ in 0..200 {
        claim(&hub, said("p2", 2)).await.expect("it may");
        claim(&hub, said("p1", 1)).await.expect("it may");
    }
    claim(&hub, said("p2", 2)).await.expect("it may");
    let mut pulse = hub.world().pulse();
    let has = |name: &str| hub.world().fabric().ports().get(name).is_some_and(|port| !port.claimed.is_empty());
    let quiet = async {
        while !has("p2") || !lock(&hub.claims.docket).waiting.is_empty() {
            pulse.changed().await.expect("it goes on");
        }
    };
    timeout(Duration::from_secs(60), quiet).await.expect("the last one has it");
    assert!(!has("p1"));
    // However long that took here: some moves in a row, and one a second.
    let counters = hub.counters();
    assert!(hub.world().revision - before < 100, "{} writes", hub.world().revision - before);
    assert!(counters.claims_delayed > 0 && counters.claims_outdated > 100, "{counters:?}");
    let _gone = std::fs::remove_dir_all(&dir);
}
