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

#[tokio::test]
async fn too_many_strangers_are_turned_away_and_counted() {
    let dir = Dir::new("places");
    let hub = dir.hub();
    let mut strangers: Vec<_> = (0..STRANGERS).map(|_| Place::take(&hub).expect("a place")).collect();
    assert!(Place::take(&hub).is_none());
    assert_eq!(hub.counters().turned_away, 1);
    // One who shows who it is makes room for another.
    strangers[0].know();
    strangers.extend(Place::take(&hub));
    assert_eq!(strangers.len() as u64, STRANGERS + 1);
    drop(strangers);
    assert_eq!((hub.counters().connections, hub.counters().strangers), (0, 0));
}
