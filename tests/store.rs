//! The store: one suite over both engines, what only one of them can do, and what a SIGKILL leaves of either.
//!
//! Environment:
//! - `DVR_REQUIRE_PEERS=1`: fail where etcd is not installed (Debian: `etcd-server`), as CI does; otherwise a line says
//!   what did not run.
//! - `DVR_STORE_KILLS=N`: how many writers of an embedded store are killed, how many of an etcd's, and how often one of
//!   three members of etcd is; without it 100, 12 and 12.
//! - `DVR_STORE_SEED=N`: when they are killed. A failure prints its own.

#![expect(clippy::expect_used, reason = "what a test needs and does not get ends it")]

#[path = "support/loopback.rs"]
mod loopback;
#[path = "support/etcd.rs"]
mod members;
mod stores;

use std::time::Duration;

use stores::peer::Etcd;
use stores::{suite, within};

/// Each case on a fresh store of each engine.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $case() {
                let dir = super::stores::Dir::new();
                super::within(async { super::suite::$case(super::stores::open(&dir)).await });
            })*
        }
        mod etcd {
            $(#[test] fn $case() {
                let Some(etcd) = super::Etcd::start() else { return };
                super::within(async { super::suite::$case(etcd.open()).await });
            })*
        }
    };
}

on_both!(
    a_transaction_is_made_as_expected_or_names_the_first_key_that_differs,
    a_revision_is_what_changed_something,
    a_snapshot_is_its_prefix_whole_and_sorted,
    a_watch_tells_every_revision_once_in_order_wherever_it_resumes,
    a_watch_sees_its_prefix_alone,
    a_watch_that_is_asked_and_dropped_loses_nothing,
    a_revoked_lease_takes_its_keys_in_one_revision,
    a_lease_that_has_ended_is_refused,
    a_lease_lives_while_it_is_kept,
    what_is_compacted_is_told_and_the_rest_is_kept,
    limits_are_named,
    the_largest_transaction_passes,
    no_increment_of_concurrent_writers_is_lost,
);

/// The same random transactions have the same outcomes, revisions, entries and changes.
#[test]
fn the_two_engines_agree() {
    let Some(etcd) = Etcd::start() else { return };
    let dir = stores::Dir::new();
    within(async { suite::agree(&stores::open(&dir), &etcd.open(), 400).await });
}

mod embedded_alone {
    use super::stores::{self, Dir, embedded, within};

    #[test]
    fn a_store_that_is_open_elsewhere_is_refused() {
        let dir = Dir::new();
        let first = stores::open(&dir);
        let Err(second) = dvr::store::Store::open_embedded(&dir.file()) else { panic!("opened twice") };
        assert!(matches!(second, dvr::store::StoreError::Held { .. }), "{second}");
        drop(first);
        stores::open(&dir);
    }

    #[test]
    fn another_format_is_left_alone() {
        embedded::another_format_is_left_alone(&Dir::new());
    }

    #[test]
    fn what_is_closed_is_found_again() {
        let dir = Dir::new();
        within(embedded::what_is_closed_is_found_again(&dir));
    }

    #[test]
    fn history_goes_by_its_bounds_also_on_disk() {
        let dir = Dir::new();
        within(embedded::history_goes_by_its_bounds_also_on_disk(&dir));
    }

    #[test]
    fn leases_end_by_the_time_the_store_has_lived() {
        let dir = Dir::new();
        within(embedded::leases_end_by_the_time_the_store_has_lived(&dir));
    }

    #[test]
    fn what_waits_together_is_written_together() {
        let dir = Dir::new();
        within(embedded::what_waits_together_is_written_together(&dir));
    }

    #[test]
    fn a_full_queue_is_named_and_counted() {
        let dir = Dir::new();
        within(embedded::a_full_queue_is_named_and_counted(&dir));
    }
}

mod etcd_alone {
    use super::stores::{outage, within};
    use super::{Duration, Etcd};

    #[test]
    fn a_member_that_is_down_is_passed_over() {
        let Some(etcd) = Etcd::start() else { return };
        within(outage::a_member_that_is_down_is_passed_over(&etcd));
    }

    #[test]
    fn a_watch_and_a_lease_outlive_the_server() {
        let Some(mut etcd) = Etcd::start() else { return };
        within(outage::a_watch_and_a_lease_outlive_the_server(&mut etcd, Duration::from_secs(20)));
    }

    #[test]
    fn certificates_are_asked_for_both_ways() {
        let Some((etcd, tls)) = Etcd::start_with_tls() else { return };
        within(async {
            outage::certificates_are_asked_for_both_ways(&etcd, &tls).await;
            outage::a_controller_shows_its_certificate(&etcd).await;
        });
    }
}

mod killed {
    use super::Etcd;
    use super::stores::{Dir, alone, torture, within};

    #[test]
    fn writers_of_an_embedded_store() {
        if torture::is_child() {
            return within(torture::child());
        }
        let dir = Dir::new();
        alone(torture::writers(
            "killed::writers_of_an_embedded_store",
            &torture::Target::Embedded(dir.file()),
            torture::kills(100),
        ));
    }

    #[test]
    fn writers_of_etcd() {
        if torture::is_child() {
            return within(torture::child());
        }
        let Some(etcd) = Etcd::cluster(3) else { return };
        let target = torture::Target::Etcd(etcd.endpoints());
        alone(torture::writers("killed::writers_of_etcd", &target, torture::kills(12)));
    }

    #[test]
    fn members_of_etcd() {
        let Some(mut etcd) = Etcd::cluster(3) else { return };
        alone(torture::members(&mut etcd, torture::kills(12)));
    }
}

/// `cargo test --release --test store -- --ignored --nocapture figures`
#[test]
#[ignore = "measures, and judges nothing"]
fn figures() {
    let dir = stores::Dir::new();
    let store = stores::open(&dir);
    within(stores::figures::of("embedded", store.clone(), std::process::id()));
    stores::figures::after_a_crash(&dir);
    drop(store);
    let Some(etcd) = Etcd::start() else { return };
    within(async { stores::figures::of("etcd", etcd.open(), etcd.pid()).await });
}
