//! Which history a server writes: a failover, a restored backup or another server behind the same name shows here.

use super::connect::Session;
use super::failure::Trouble;

/// The timeline as the server writes it now. What `pg_control` says lags behind a promotion until the next checkpoint.
const WRITTEN: &str = "SELECT s.system_identifier, \
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint FROM pg_control_system() s";
/// Where the write position is hidden, as some services do.
const CHECKPOINT: &str =
    "SELECT s.system_identifier, c.timeline_id FROM pg_control_system() s, pg_control_checkpoint() c";

/// System identifier and timeline; both parts together name one history. None where the login may not ask.
pub(super) async fn read(session: &Session) -> Result<(Option<String>, Option<i64>), Trouble> {
    for sql in [WRITTEN, CHECKPOINT] {
        match session.text("read the server's identity", sql).await {
            Ok(rows) => {
                let column = |index: usize| rows.last().and_then(|row| row.get(index)).and_then(Option::as_deref);
                let timeline = column(1).and_then(|timeline| timeline.parse().ok());
                return Ok((column(0).map(str::to_owned), timeline));
            }
            Err(Trouble::Refused(_)) => {}
            Err(lost) => return Err(lost),
        }
    }
    Ok((None, None))
}
