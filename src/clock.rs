//! The one clock the packet path reads.

use std::sync::LazyLock;
use std::time::Instant;

use crate::types::Timestamp;

#[expect(clippy::disallowed_methods, reason = "this is the clock that others take `now` from")]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time since the first call in this process; never runs backwards.
#[must_use]
pub fn monotonic() -> Timestamp {
    Timestamp::from_nanos(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
