//! Ending sessions that outlived their account.
//!
//! DROP ROLE ends no session: one whose role was dropped by hand, or by us in a moment that we did not survive, goes on with
//! what PUBLIC may do and with its open cursors. Revoking ends sessions by itself; this is the net below it. It runs in the
//! engine, since that has login and OIDs already and goes on while the operator is away.
//!
//! Only sessions of OIDs that this engine issued or was told to revoke are ended, and only while no role has that OID. A
//! session of anybody else's role is never touched, whatever became of the role.

use super::failure::Trouble;
use super::pool::{Server, lock};
use super::sql::oid_array;
use crate::channel::frames::{Account, Done, FailureClass, Outcome, Revocation};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long an account is looked after beyond its end, or since it was last revoked.
const AFTERWARDS: Duration = Duration::from_mins(10);
/// Most accounts of one server that are looked after. The ones that end first give way.
const MOST: usize = 20_000;
/// How long one look may wait for a session.
const PATIENCE: Duration = Duration::from_secs(10);

/// OIDs of accounts by server record.
#[derive(Debug, Default)]
pub(super) struct Recorded(Mutex<BTreeMap<String, Kept>>);

/// OIDs with the time until which each is looked after, and the same by time: whichever gives way is found at once.
#[derive(Debug, Default)]
struct Kept {
    until: BTreeMap<u32, Instant>,
    ends: BTreeSet<(Instant, u32)>,
}

impl Kept {
    fn insert(&mut self, oid: u32, until: Instant) {
        if let Some(before) = self.until.insert(oid, until) {
            self.ends.remove(&(before, oid));
        }
        self.ends.insert((until, oid));
        if self.until.len() > MOST {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, oid)) = self.ends.pop_first() {
            self.until.remove(&oid);
        }
    }

    fn drop_before(&mut self, now: Instant) {
        while self.ends.first().is_some_and(|(until, _)| *until <= now) {
            self.drop_first();
        }
    }
}

impl Recorded {
    /// An account was issued: it may be gone at any time from now on.
    pub(super) fn note_issued(&self, record: &str, account: &Account, outcome: &Outcome) {
        if let Outcome::Done {
            done: Done::Issued { role_oid, .. },
            clock: Some(clock),
        } = outcome
        {
            let left = account.valid_until.duration_since(clock.now);
            self.note(record, *role_oid, Duration::try_from(left).unwrap_or_default());
        }
    }

    /// Accounts are about to be revoked.
    pub(super) fn note_revoked(&self, record: &str, accounts: &[Revocation]) {
        for oid in accounts.iter().filter_map(|account| account.role_oid) {
            self.note(record, oid, Duration::ZERO);
        }
    }

    fn note(&self, record: &str, oid: u32, life: Duration) {
        let Some(until) = Instant::now().checked_add(life.saturating_add(AFTERWARDS)) else {
            return;
        };
        lock(&self.0).entry(record.to_owned()).or_default().insert(oid, until);
    }

    /// All that are looked after now.
    pub(super) fn all(&self) -> BTreeMap<String, Vec<u32>> {
        let now = Instant::now();
        let mut all = lock(&self.0);
        all.retain(|_, kept| {
            kept.drop_before(now);
            !kept.until.is_empty()
        });
        all.iter()
            .map(|(record, kept)| (record.clone(), kept.until.keys().copied().collect()))
            .collect()
    }

    fn forget(&self, record: &str) {
        lock(&self.0).remove(record);
    }
}

/// Ends the sessions of those OIDs that no role has any more. Returns how many.
pub(super) async fn end(server: &Server, recorded: &Recorded, oids: &[u32]) -> usize {
    let record = &server.login.record;
    match end_now(server, oids).await {
        Ok(ended) => {
            for (oid, count) in &ended {
                tracing::warn!(
                    server = record,
                    oid,
                    count,
                    "ended sessions of an account whose role is gone"
                );
            }
            ended.values().sum()
        }
        Err(Trouble::Refused(failure)) if failure.class == FailureClass::LoginRefused => {
            // Asking again and again with a password that is no longer right could lock the login out.
            recorded.forget(record);
            tracing::info!(
                server = record,
                message = failure.message,
                "sessions of gone accounts are not looked for until the next task brings a login"
            );
            0
        }
        Err(trouble) => {
            tracing::info!(server = record, message = %trouble, "could not look for sessions of gone accounts");
            0
        }
    }
}

async fn end_now(server: &Server, oids: &[u32]) -> Result<BTreeMap<u32, usize>, Trouble> {
    let used = server.used_at();
    let session = server.session(Instant::now() + PATIENCE).await?;
    // Looking is no use: a login is forgotten by its last task.
    server.set_used_at(used);
    let sql = format!(
        "SELECT a.usesysid, pg_terminate_backend(a.pid) FROM pg_stat_activity a \
         WHERE a.usesysid = ANY ({}) AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)",
        oid_array(oids)
    );
    let until = Instant::now() + PATIENCE;
    let rows = session
        .text_until(until, "end sessions of accounts that are gone", &sql)
        .await?;
    let mut ended = BTreeMap::new();
    for row in &rows {
        let column = |index: usize| row.get(index).and_then(Option::as_deref);
        if let (Some(oid), Some("t")) = (column(0).and_then(|oid| oid.parse().ok()), column(1)) {
            *ended.entry(oid).or_default() += 1;
        }
    }
    session.keep();
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_looked_after_to_its_end_and_a_while_longer() {
        let recorded = Recorded::default();
        recorded.note("server-1", 7, Duration::from_secs(3600));
        recorded.note("server-1", 8, Duration::ZERO);
        recorded.note("server-2", 9, Duration::ZERO);
        assert_eq!(recorded.all()["server-1"], [7, 8]);
        lock(&recorded.0).get_mut("server-1").unwrap().insert(7, Instant::now());
        recorded.forget("server-2");
        assert_eq!(recorded.all(), BTreeMap::from([("server-1".to_owned(), vec![8])]));
    }

    #[test]
    fn the_books_of_one_server_are_bounded() {
        let recorded = Recorded::default();
        let most = u32::try_from(MOST).unwrap();
        recorded.note("server-1", 1, Duration::from_secs(3600));
        for oid in 2..most + 3 {
            recorded.note("server-1", oid, Duration::ZERO);
        }
        let all = recorded.all();
        assert_eq!(all["server-1"].len(), MOST);
        assert!(all["server-1"].contains(&1), "the one that lives longest was forgotten");
    }
}
