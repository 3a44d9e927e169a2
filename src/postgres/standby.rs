//! Ending sessions on standbys: a DROP on the primary reaches them by replay, but the sessions there live on, and the primary
//! cannot see them.
//!
//! Only hosts that the base secret lists are known, and only those with the primary's system identifier are touched: on any
//! other server the same OID is somebody else. A standby that cannot be looked at holds an account up, with its name in the
//! status, but not for ever: after [`GIVEN_UP`] of trouble it does not count until it is seen again. By then the account
//! has no rights there, if only replay goes on, and cannot log in anywhere.

use super::barrier;
use super::connect::{Place, Session};
use super::failure::{Trouble, failure};
use super::pool::{Checkout, Server, lock};
use crate::channel::frames::{Failure, FailureClass};
use futures::future::join_all;
use std::time::{Duration, Instant};

/// How long a standby that does not answer holds accounts up.
const GIVEN_UP: Duration = Duration::from_mins(5);
/// Longest wait for a session on a standby.
const LOGIN: Duration = Duration::from_secs(3);
/// Longest wait until a standby has replayed the DROP, and longest wait for its sessions to end.
const LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Ends the sessions of these roles on every standby. Gives what is still in the way, as a sentence.
pub(super) async fn clear(server: &Server, session: &Checkout<'_>, oids: &[u32]) -> Result<Option<String>, Trouble> {
    let standbys = server.others()?;
    if standbys.is_empty() || oids.is_empty() {
        return Ok(None);
    }
    let primary = match Primary::of(session).await {
        Err(Trouble::Refused(failure)) => Err(failure),
        known => Ok(known?),
    };
    let looks = standbys.iter().map(|place| async {
        match &primary {
            Ok(primary) => clear_one(server, place, primary, oids).await,
            Err(failure) => Err(failure.clone()),
        }
    });
    let ended = join_all(looks).await;
    let troubles = standbys
        .iter()
        .zip(ended)
        .filter_map(|(place, ended)| held_up_by(server, place, ended.err()));
    let troubles: Vec<String> = troubles.collect();
    Ok((!troubles.is_empty()).then(|| troubles.join("; ")))
}

/// What a standby has to have in common with the primary.
struct Primary {
    lsn: String,
    system: String,
}

impl Primary {
    async fn of(session: &Session) -> Result<Self, Trouble> {
        let sql = "SELECT pg_current_wal_lsn(), (SELECT system_identifier FROM pg_control_system())";
        let rows = session.text("read the position of the log", sql).await?;
        let column = |index: usize| rows.last().and_then(|row| row.get(index)).cloned().flatten();
        Ok(Self {
            lsn: column(0).unwrap_or_default(),
            system: column(1).unwrap_or_default(),
        })
    }
}

/// The sentence, unless the trouble lasts for so long that it does not count any more.
fn held_up_by(server: &Server, place: &Place, trouble: Option<Failure>) -> Option<String> {
    let name = place.to_string();
    let mut known = lock(&server.standbys_in_trouble);
    let Some(trouble) = trouble else {
        known.remove(&name);
        return None;
    };
    let since = *known.entry(name).or_insert_with(Instant::now);
    let (server, standby, error) = (&server.login.record, place.to_string(), &trouble.message);
    if since.elapsed() >= GIVEN_UP {
        tracing::warn!(
            server,
            standby,
            error,
            "sessions of revoked accounts may go on at this standby"
        );
        return None;
    }
    Some(format!(
        "sessions that may go on at standby {standby}: {error}; it is not waited for longer than {} minutes",
        GIVEN_UP.as_secs() / 60
    ))
}

async fn clear_one(server: &Server, place: &Place, primary: &Primary, oids: &[u32]) -> Result<(), Failure> {
    let session = Session::open_anywhere(&server.login, server.tls()?, place, LOGIN).await?;
    let until = Instant::now() + LIMIT;
    if !is_replica(&session, primary).await? {
        return Ok(());
    }
    // Before that, the role could still log in there.
    while !has_replayed(&session, &primary.lsn).await? {
        if Instant::now() >= until {
            // Those that are there end at least.
            barrier::end_on(&session, oids).await?;
            let message = "it has not replayed the removal of the account yet";
            return Err(failure(FailureClass::Busy, message));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let left = barrier::end_on(&session, oids).await?;
    if left == 0 {
        return Ok(());
    }
    Err(failure(
        FailureClass::Busy,
        format!("{left} session(s) or logins there have not ended"),
    ))
}

/// Whether this host replays what our primary writes. A primary of the same list, as after a failover by hand, is none.
async fn is_replica(session: &Session, primary: &Primary) -> Result<bool, Trouble> {
    let sql = "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system())";
    let rows = session
        .text("ask whether it is a standby of the same server", sql)
        .await?;
    let column = |index: usize| rows.last().and_then(|row| row.get(index)).and_then(Option::as_deref);
    if column(1) != Some(primary.system.as_str()) {
        let message = "it is another server than the writable one (its system identifier differs); take it off the base \
                       secret's list of hosts";
        return Err(failure(FailureClass::BadTask, message).into());
    }
    Ok(column(0) == Some("t"))
}

async fn has_replayed(session: &Session, lsn: &str) -> Result<bool, Trouble> {
    let sql = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, true)";
    let rows = session
        .query(
            "ask how far the standby is",
            sql,
            &[(&lsn, tokio_postgres::types::Type::TEXT)],
        )
        .await?;
    Ok(rows.first().is_some_and(|row| row.try_get(0).unwrap_or_default()))
}
