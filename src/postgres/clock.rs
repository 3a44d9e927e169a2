//! Readings of a database's clock.

use super::connect::Session;
use super::failure::{Trouble, failure};
use crate::channel::frames::{DatabaseClock, FailureClass};
use jiff::Timestamp;
use std::time::{Duration, Instant};

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

/// Asks for it. It was read somewhere between question and answer; the middle is off by half of that at most.
pub(super) async fn ask(session: &Session) -> Result<DatabaseClock, Trouble> {
    let asked = Instant::now();
    let rows = session
        .text("read the database's clock", &format!("SELECT {SQL}"))
        .await?;
    let column = rows.last().and_then(|row| row.first()).and_then(Option::as_deref);
    read_aged(column, asked.elapsed() / 2)
        .ok_or_else(|| failure(FailureClass::Server, "the database's clock cannot be read").into())
}
