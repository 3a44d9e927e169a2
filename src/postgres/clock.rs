//! Readings of a database's clock.

use crate::channel::frames::DatabaseClock;
use jiff::Timestamp;
use std::time::Duration;

/// A column with the server's clock, in microseconds since 1970.
pub(super) const SQL: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Reads [`SQL`] from an answer that came this moment and in which the clock was read last.
pub(super) fn read(column: Option<&str>) -> Option<DatabaseClock> {
    read_aged(column, Duration::ZERO)
}

/// The same, for a clock that was read this long ago.
pub(super) fn read_aged(column: Option<&str>, age: Duration) -> Option<DatabaseClock> {
    let microseconds = column?.parse().ok()?;
    Some(DatabaseClock {
        now: Timestamp::from_microsecond(microseconds).ok()?,
        age_ms: u64::try_from(age.as_millis()).ok()?,
    })
}
