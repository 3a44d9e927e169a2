//! Ending the sessions of roles that may no longer log in, and proof that none is on its way.
//!
//! One sweep is not enough: a backend that read its role before the DROP committed shows up in `pg_stat_activity` only
//! afterwards. Until then it is visible only by the virtual transaction that it starts up in. So the barrier takes every
//! backend that is in a transaction and not yet listed as somebody's session, and waits until each of them has either
//! appeared (then it is ended, if it is one of ours) or left that state. Backends that look the role up later do not find it.
//!
//! Nothing is filtered by `backend_type` or `state`: a login without `pg_read_all_stats` sees both as NULL for sessions of
//! other roles, and would find nothing.
//!
//! A client that stalls while it authenticates stays suspect until `authentication_timeout` (60 s). It looks its role up
//! only after it has authenticated, so it is harmless, but it cannot be told from one that is not. What is left when the
//! time is over is kept per role, so that the next attempt waits for those same backends and not for newer ones: a
//! stranger who keeps stalling connections cannot hold a revocation up for longer than that timeout.

use super::connect::Session;
use super::failure::Trouble;
use super::pool::{Checkout, Server, lock};
use super::sql::oid_array;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// Longest wait in one task.
const LIMIT: Duration = Duration::from_secs(5);
/// First and longest pause between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// How long suspects are remembered; well past the longest sensible `authentication_timeout`.
const REMEMBERED: Duration = Duration::from_mins(15);

/// From 18 on, the process of a standby that replays the log is not listed any more among those without user and database
/// that can be told from starting backends, and it is in a transaction for ever. Its number, the first part of its virtual
/// transaction's name, lies behind those of all backends.
const STANDBYS_OWN: &str = "(NOT pg_is_in_recovery() OR split_part(virtualxid, '/', 1)::int < (SELECT sum(setting::int) \
    FROM pg_settings WHERE name IN ('max_connections', 'autovacuum_worker_slots', 'max_worker_processes', 'max_wal_senders')))";

/// Backends that may still become a session of one role.
pub(super) struct Unfinished {
    suspects: BTreeSet<i32>,
    since: Instant,
}

/// What stands after the barrier, by role OID. A role in neither has no session, and none will come.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    /// How many sessions did not end.
    pub(super) alive: BTreeMap<u32, usize>,
    /// Roles for which some backend has not finished logging in.
    pub(super) starting: BTreeSet<u32>,
    /// Our login may not end the sessions.
    pub(super) forbidden: bool,
}

/// A role whose sessions are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) oid: u32,
    /// It could not log in before this task began, so what an earlier task saw still counts.
    pub(super) was_shut: bool,
}

/// One look at the server.
#[derive(Default)]
struct Seen {
    /// In a transaction, and not listed as a session of anybody.
    starting: BTreeSet<i32>,
    alive: BTreeMap<u32, usize>,
}

/// Ends the sessions of these roles. The DROP or NOLOGIN that keeps new ones out must have been committed before.
pub(super) async fn clear(
    server: &Server,
    session: &Checkout<'_>,
    roles: &BTreeSet<Target>,
) -> Result<Cleared, Trouble> {
    let mut cleared = Cleared::default();
    if roles.is_empty() {
        return Ok(cleared);
    }
    let oids: Vec<u32> = roles.iter().map(|role| role.oid).collect();
    let mut suspects = remembered(server, roles);
    wait(session, &oids, &mut suspects, &mut cleared).await?;
    remember(server, suspects);
    Ok(cleared)
}

/// Ends the sessions of these roles on a standby, where they can no longer log in. Gives how many sessions, or roles with
/// logins that have not finished, are left.
pub(super) async fn end_on(session: &Session, oids: &[u32]) -> Result<usize, Trouble> {
    let mut cleared = Cleared::default();
    wait(session, oids, &mut BTreeMap::new(), &mut cleared).await?;
    Ok(cleared.alive.values().sum::<usize>() + cleared.starting.len())
}

/// Ends sessions until none is left and none can come, or until the time is over.
async fn wait(
    session: &Session,
    oids: &[u32],
    suspects: &mut BTreeMap<u32, BTreeSet<i32>>,
    cleared: &mut Cleared,
) -> Result<(), Trouble> {
    let until = Instant::now() + LIMIT;
    let mut pause = PAUSE.0;
    loop {
        let seen = match look(session, oids, !cleared.forbidden).await {
            Err(trouble) if trouble.is(&SqlState::INSUFFICIENT_PRIVILEGE) && !cleared.forbidden => {
                cleared.forbidden = true;
                continue;
            }
            seen => seen?,
        };
        for oid in oids {
            suspects
                .entry(*oid)
                .and_modify(|left| left.retain(|pid| seen.starting.contains(pid)))
                .or_insert_with(|| seen.starting.clone());
        }
        cleared.alive = seen.alive;
        cleared.starting = suspects
            .iter()
            .filter(|(_, left)| !left.is_empty())
            .map(|(oid, _)| *oid)
            .collect();
        let done = cleared.alive.is_empty() && cleared.starting.is_empty();
        if done || Instant::now() + pause >= until {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn look(session: &Session, oids: &[u32], end: bool) -> Result<Seen, Trouble> {
    let ours = oid_array(oids);
    let ending = if end {
        format!(", CASE WHEN usesysid = ANY({ours}) THEN pg_terminate_backend(pid) END")
    } else {
        String::new()
    };
    // The order counts: a backend that is listed by the second statement may have left its transaction, never the reverse.
    // From 18 on a backend is listed early, with neither user nor database; autovacuum has a database and no user.
    let listed = if session.version >= 180_000 {
        "(usesysid IS NOT NULL OR datid IS NOT NULL)"
    } else {
        "true"
    };
    let running = if session.version >= 180_000 {
        STANDBYS_OWN
    } else {
        "true"
    };
    let sql = format!(
        "SELECT DISTINCT 'running', pid FROM pg_locks WHERE locktype = 'virtualxid' AND pid IS NOT NULL AND {running}; \
         SELECT CASE WHEN usesysid = ANY({ours}) THEN 'ours' ELSE 'listed' END, pid, usesysid{ending} \
         FROM pg_stat_activity WHERE {listed}"
    );
    let rows = session.text("end the accounts' sessions", &sql).await?;
    let mut seen = Seen::default();
    for row in &rows {
        let column = |index: usize| row.get(index).and_then(Option::as_deref);
        let Some(pid) = column(1).and_then(|pid| pid.parse::<i32>().ok()) else {
            continue;
        };
        if column(0) == Some("running") {
            seen.starting.insert(pid);
            continue;
        }
        seen.starting.remove(&pid);
        if let (Some("ours"), Some(oid)) = (column(0), column(2).and_then(|oid| oid.parse::<u32>().ok())) {
            *seen.alive.entry(oid).or_default() += 1;
        }
    }
    Ok(seen)
}

fn remembered(server: &Server, roles: &BTreeSet<Target>) -> BTreeMap<u32, BTreeSet<i32>> {
    let mut unfinished = lock(&server.unfinished);
    unfinished.retain(|_, left| left.since.elapsed() < REMEMBERED);
    let shut = roles.iter().filter(|role| role.was_shut);
    shut.filter_map(|role| unfinished.get(&role.oid).map(|left| (role.oid, left.suspects.clone())))
        .collect()
}

fn remember(server: &Server, suspects: BTreeMap<u32, BTreeSet<i32>>) {
    let mut unfinished = lock(&server.unfinished);
    for (oid, suspects) in suspects {
        if suspects.is_empty() {
            unfinished.remove(&oid);
        } else {
            unfinished.insert(
                oid,
                Unfinished {
                    suspects,
                    since: Instant::now(),
                },
            );
        }
    }
}
