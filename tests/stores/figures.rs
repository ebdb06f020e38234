//! How fast the engines are here: for reports, not for judgement.

use std::time::Duration;

use dvr::store::{Op, Store};
use futures::future::join_all;
use tokio::time::Instant;

use super::{Dir, next, open, put, revision, write};

fn rss_kb(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("?").trim().to_owned()
}

/// A copy of the file under an open store is what a crash leaves.
pub(crate) fn after_a_crash(dir: &Dir) {
    let crashed = Dir::new();
    let octets = std::fs::copy(dir.file(), crashed.file()).expect("a copy");
    let began = Instant::now();
    let store = open(&crashed);
    println!("embedded: {} MB opened after a crash in {:?}", octets >> 20, began.elapsed());
    drop(store);
}

pub(crate) async fn of(name: &str, store: Store, pid: u32) {
    println!("{name}: rss before {}", rss_kb(pid));
    for writers in [1_u32, 16, 128] {
        let began = Instant::now();
        let each = 2048 / writers;
        join_all((0..writers).map(|writer| {
            let store = store.clone();
            async move {
                for number in 0..each {
                    write(&store, vec![put(&format!("w/{writer}/{number}"), &"x".repeat(300))]).await;
                }
            }
        }))
        .await;
        let rate = f64::from(writers * each) / began.elapsed().as_secs_f64();
        println!("{name}: {writers} writers: {rate:.0} commits/s, {} durable writes so far", store.counters().syncs);
    }
    let mut watch = store.watch("lat/", revision(&store).await).expect("a watch");
    let mut spans: Vec<Duration> = Vec::new();
    for number in 0..300 {
        let began = Instant::now();
        let ((), _) = tokio::join!(
            async {
                next(&mut watch).await;
                spans.push(began.elapsed());
            },
            write(&store, vec![put("lat/k", &number.to_string())])
        );
    }
    spans.sort();
    println!("{name}: put to watch: median {:?}, p99 {:?}", spans[150], spans[297]);
    let began = Instant::now();
    for group in 0..1000 {
        let ops: Vec<Op> = (0..100).map(|at| put(&format!("port/{group:04}/{at:03}"), &"x".repeat(300))).collect();
        write(&store, ops).await;
    }
    println!("{name}: 100,000 entries in transactions of 100: {:?}", began.elapsed());
    let began = Instant::now();
    let snapshot = store.read("port/").await.expect("a snapshot");
    println!("{name}: read of {} entries: {:?}", snapshot.entries.len(), began.elapsed());
    drop(snapshot);
    println!("{name}: rss after {}, {:?}", rss_kb(pid), store.counters());
}
