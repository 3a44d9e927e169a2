//! Counting the sessions of an account: whether somebody still uses a credential that was replaced.
//!
//! Every login sees whose each session is, whatever else is hidden from it. Sessions on standbys do not show on the primary.

use super::clock;
use super::connect::Session;
use super::failure::{Trouble, failure};
use super::pool::Server;
use crate::channel::frames::{DatabaseClock, Failure, FailureClass};
use std::time::Instant;
use tokio_postgres::types::Type;

/// See [`super::Servers::sessions`].
pub(super) async fn count(server: &Server, role: &str, until: Instant) -> Result<(u64, DatabaseClock), Failure> {
    let session = server.session(until).await?;
    let read = tokio::time::timeout_at(until.into(), read(&session, role)).await;
    let read = read.unwrap_or_else(|_| Err(Trouble::Lost("the count of sessions did not come in time".to_owned())))?;
    session.keep();
    Ok(read)
}

async fn read(session: &Session, role: &str) -> Result<(u64, DatabaseClock), Trouble> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1::text";
    let rows = session
        .query("count the sessions of an account", sql, &[(&role, Type::TEXT)])
        .await?;
    let count = rows.first().and_then(|row| row.try_get::<_, i64>(0).ok());
    let count = count.and_then(|count| u64::try_from(count).ok());
    let unread = || failure(FailureClass::Server, "the count of sessions cannot be read");
    Ok((count.ok_or_else(unread)?, clock::ask(session).await?))
}
