//! Strangers are shown out, and do not keep others from coming in.

use futures::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::store::Store;

struct Dir(std::path::PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("dvr-door-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        Self(dir)
    }

    fn hub(&self) -> Arc<Hub> {
        Hub::new(Store::open_embedded(&self.0.join("store")).expect("a new store"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_stranger_is_shown_out_and_a_known_one_stays() {
    let dir = Dir::new("patience");
    let hub = dir.hub();
    let listener = UnixListener::bind(dir.0.join("s")).expect("a socket");
    let mut guests = Box::pin(guests(listener, Arc::clone(&hub), Duration::ZERO));
    let _silent = UnixStream::connect(dir.0.join("s")).await.expect("it listens");
    let mut stranger = guests.next().await.expect("one").expect("a connection");
    let mut speaking = UnixStream::connect(dir.0.join("s")).await.expect("it listens");
    let mut known = guests.next().await.expect("one").expect("a connection");
    assert_eq!((hub.counters().connections, hub.counters().strangers), (2, 2));
    known.connect_info().place.know();
    let refused = stranger.read_u8().await.expect_err("it says nothing");
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    speaking.write_u8(7).await.expect("it is open");
    assert_eq!(known.read_u8().await.expect("an octet"), 7);
    drop((stranger, known));
    let counters = hub.counters();
    assert_eq!((counters.connections, counters.strangers, counters.shown_out), (0, 0, 1));
}

fn address(number: u64) -> Origin {
    let number = u32::try_from(number).expect("not so many");
    Origin::remote(IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
}

#[tokio::test]
async fn too_many_strangers_are_turned_away_and_counted() {
    let dir = Dir::new("places");
    let hub = dir.hub();
    let mut strangers: Vec<_> =
        (0..REMOTE.strangers).map(|number| Place::take(&hub, address(number)).expect("a place")).collect();
    let late = address(REMOTE.strangers);
    assert!(Place::take(&hub, late).is_none());
    assert_eq!(hub.counters().turned_away, 1);
    // The host's own socket is another way in, and has its own.
    let local: Vec<_> = (0..LOCAL.strangers).map(|_| Place::take(&hub, Origin::Local).expect("a place")).collect();
    assert!(Place::take(&hub, Origin::Local).is_none());
    drop(local);
    // One who shows who it is makes room for another.
    strangers[0].know();
    strangers[0].know();
    strangers.extend(Place::take(&hub, late));
    assert_eq!(strangers.len() as u64, REMOTE.strangers + 1);
    assert!(Place::take(&hub, late).is_none());
    drop(strangers);
    assert_eq!((hub.counters().connections, hub.counters().strangers), (0, 0));
    let places = lock(&hub.places);
    assert_eq!((places.local, places.remote, places.addresses.len()), (Taken::default(), Taken::default(), 0));
}

#[tokio::test]
async fn one_address_does_not_have_all_places() {
    let dir = Dir::new("address");
    let hub = dir.hub();
    let one = address(1);
    let known: Vec<_> = (0..ADDRESS.connections)
        .map(|_| {
            let place = Place::take(&hub, one).expect("a place");
            place.know();
            place
        })
        .collect();
    assert!(Place::take(&hub, one).is_none(), "however well it is known");
    assert!(Place::take(&hub, address(2)).is_some());
    drop(known);
    let _strangers: Vec<_> = (0..ADDRESS.strangers).map(|_| Place::take(&hub, one).expect("a place")).collect();
    assert!(Place::take(&hub, one).is_none());
    assert!(Place::take(&hub, address(2)).is_some());
}

#[test]
fn an_ipv6_host_is_its_network_and_ipv4_is_ipv4_however_it_comes() {
    for (text, expected) in [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
    ] {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(Origin::remote(address(text)), Origin::Remote(address(expected)), "{text}");
    }
}
