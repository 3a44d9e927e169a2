//! What the audit remembers within one leadership. All of it may be lost: without it less is known for certain, so less
//! is revoked before its time.

use super::say::Said;
use crate::control::hold::Hold;
use crate::plan::audit::Brake;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a released lease is remembered: longer than a round may take.
const RELEASED: Duration = Duration::from_mins(10);
/// How long past its end a lost lease is remembered; from the end on the signed comment tells.
const LOST: SignedDuration = SignedDuration::from_hours(1);
/// Rounds in a row without an answer after which a pool says that its audit stands still.
const PATIENCE: u32 = 3;

/// Which servers a round looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    #[default]
    Nothing,
    /// Server records by name, and all that the engines of pools (by UID) reach.
    Some {
        /// Server records.
        records: BTreeSet<String>,
        /// Pools.
        pools: BTreeSet<String>,
    },
    /// All of them.
    All,
}

impl Wanted {
    fn record(name: &str) -> Self {
        Self::Some {
            records: BTreeSet::from([name.to_owned()]),
            pools: BTreeSet::new(),
        }
    }

    fn pool(uid: &str) -> Self {
        Self::Some {
            records: BTreeSet::new(),
            pools: BTreeSet::from([uid.to_owned()]),
        }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Nothing, one) | (one, Self::Nothing) => one,
            (
                Self::Some { mut records, mut pools },
                Self::Some {
                    records: more,
                    pools: further,
                },
            ) => {
                records.extend(more);
                pools.extend(further);
                Self::Some { records, pools }
            }
        }
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::Nothing
    }

    /// Whether a server is among them, given the pools whose engines may reach it.
    pub fn includes(&self, record: &str, reached_by: &[String]) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some { records, pools } => {
                records.contains(record) || reached_by.iter().any(|uid| pools.contains(uid))
            }
            Self::All => true,
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct AuditMemory {
    asked: Notify,
    inner: Mutex<Inner>,
}

/// A lease that vanished without proof.
struct Lost {
    /// Its server.
    record: String,
    /// Until when that counts.
    until: Timestamp,
}

#[derive(Default)]
struct Inner {
    wanted: Wanted,
    due: BTreeMap<String, Timestamp>,
    /// Leases that are gone without proof, with the time until which that matters.
    lost: HashMap<String, Lost>,
    released: HashMap<String, Instant>,
    /// Servers that did not answer; when they do again, they may be others.
    doubted: BTreeSet<String>,
    histories: HashMap<String, String>,
    brakes: HashMap<String, Brake>,
    /// What was said last, by server record.
    said: BTreeMap<String, Said>,
    unreached: BTreeMap<String, (u32, Hold)>,
    confirmations: HashMap<String, String>,
}

impl AuditMemory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, what: Wanted) {
        let mut inner = self.inner();
        inner.wanted = std::mem::take(&mut inner.wanted).and(what);
        self.asked.notify_one();
    }

    /// Look at every server.
    pub fn want_all(&self) {
        self.want(Wanted::All);
    }

    /// Look at one server.
    pub fn want_record(&self, record: &str) {
        self.want(Wanted::record(record));
    }

    /// Look at the servers of one pool.
    pub fn want_pool(&self, uid: &str) {
        self.want(Wanted::pool(uid));
    }

    /// A round did not come to its end.
    pub(super) fn want_again(&self, wanted: Wanted) {
        self.want(wanted);
    }

    /// Look at one server at that time, in the operator's clock; an earlier one that is agreed stays.
    pub(super) fn want_at(&self, record: &str, at: Timestamp) {
        let mut inner = self.inner();
        let due = inner.due.entry(record.to_owned()).or_insert(at);
        *due = at.min(*due);
    }

    /// Waits until somebody asked.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    pub(super) fn take(&self) -> Wanted {
        std::mem::take(&mut self.inner().wanted)
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        let first = self.inner().due.values().min().copied()?;
        let left = first.duration_since(now).max(SignedDuration::ZERO);
        Duration::try_from(left).ok()
    }

    pub(super) fn take_due(&self, now: Timestamp) -> Wanted {
        let mut inner = self.inner();
        let due: BTreeSet<String> = inner
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(record, _)| record.clone())
            .collect();
        inner.due.retain(|_, at| *at > now);
        if due.is_empty() {
            return Wanted::Nothing;
        }
        Wanted::Some {
            records: due,
            pools: BTreeSet::new(),
        }
    }

    /// A lease is about to be released: its account is proven gone.
    pub fn released(&self, uid: &str) {
        self.inner().released.insert(uid.to_owned(), Instant::now());
    }

    /// A lease of that server is gone, which ends at `until`. Without proof, its account may still be there.
    pub fn lease_gone(&self, uid: &str, record: &str, until: Timestamp) {
        {
            let mut inner = self.inner();
            if inner.released.contains_key(uid) {
                return;
            }
            let until = until.saturating_add(LOST).unwrap_or(until);
            let record = record.to_owned();
            inner.lost.insert(uid.to_owned(), Lost { record, until });
        }
        tracing::warn!(uid, record, "a lease vanished without proof that its account is gone");
        self.want_record(record);
    }

    /// UIDs of lost and of released leases.
    pub(super) fn gone(&self, now: Timestamp) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut inner = self.inner();
        inner.lost.retain(|_, lost| lost.until > now);
        inner.released.retain(|_, at| at.elapsed() < RELEASED);
        (
            inner.lost.keys().cloned().collect(),
            inner.released.keys().cloned().collect(),
        )
    }

    /// Whether a lease of that server is lost.
    pub(super) fn misses_a_lease(&self, record: &str, now: Timestamp) -> bool {
        let inner = self.inner();
        inner
            .lost
            .values()
            .any(|lost| lost.record == record && lost.until > now)
    }

    /// A task on the server had no answer.
    pub fn doubt(&self, record: &str) {
        self.inner().doubted.insert(record.to_owned());
    }

    /// A task on the server succeeded. After a doubt it may be another server by now.
    pub fn trust(&self, record: &str) {
        if self.inner().doubted.remove(record) {
            self.want_record(record);
        }
    }

    /// The server was just looked at; there is nothing to be doubted.
    pub(super) fn looked_at(&self, record: &str) {
        let mut inner = self.inner();
        inner.doubted.remove(record);
        inner.unreached.remove(record);
    }

    /// A probe told which history the server writes.
    pub fn history_heard(&self, record: &str, history: &str) {
        let before = self.inner().histories.insert(record.to_owned(), history.to_owned());
        if before.is_some_and(|before| before != history) {
            self.want_record(record);
        }
    }

    /// The value of a pool's confirming annotation. A new one is acted upon at once.
    pub fn confirmation_seen(&self, pool_uid: &str, value: Option<&String>) {
        let Some(value) = value else {
            self.inner().confirmations.remove(pool_uid);
            return;
        };
        let before = self.inner().confirmations.insert(pool_uid.to_owned(), value.clone());
        if before.as_ref() != Some(value) {
            self.want_pool(pool_uid);
        }
    }

    pub(super) fn braked(&self, record: &str) -> Option<Brake> {
        self.inner().brakes.get(record).cloned()
    }

    /// What waits now. What was confirmed is remembered until nothing is left of it, or the rest would wait again.
    pub(super) fn set_brake(&self, record: &str, brake: Option<Brake>, something_left: bool) {
        let mut inner = self.inner();
        match brake {
            Some(brake) => {
                inner.brakes.insert(record.to_owned(), brake);
            }
            None if !something_left => {
                inner.brakes.remove(record);
            }
            None => {}
        }
    }

    pub(super) fn unreached(&self, record: &str, hold: Hold) {
        tracing::info!(
            server = record,
            reason = hold.reason.as_str(),
            message = hold.message,
            "the server could not be audited"
        );
        let mut inner = self.inner();
        let count = inner.unreached.get(record).map_or(0, |(count, _)| *count);
        inner.unreached.insert(record.to_owned(), (count + 1, hold));
    }

    pub(super) fn unreached_count(&self) -> usize {
        self.inner().unreached.len()
    }

    /// Why a server was not reached for several rounds.
    pub(super) fn standstill(&self, record: &str) -> Option<Hold> {
        let inner = self.inner();
        let (count, hold) = inner.unreached.get(record)?;
        (*count >= PATIENCE).then(|| hold.clone())
    }

    pub(super) fn say(&self, said: Said) {
        self.inner().said.insert(said.record.clone(), said);
    }

    pub(super) fn everything_said(&self) -> Vec<Said> {
        self.inner().said.values().cloned().collect()
    }

    /// Forgets servers without a record.
    pub(super) fn keep_only(&self, records: &BTreeSet<&str>) {
        let mut inner = self.inner();
        inner.said.retain(|record, _| records.contains(record.as_str()));
        inner.unreached.retain(|record, _| records.contains(record.as_str()));
        inner.brakes.retain(|record, _| records.contains(record.as_str()));
        inner.due.retain(|record, _| records.contains(record.as_str()));
    }

    pub(super) fn forget(&self, record: &str) {
        let mut inner = self.inner();
        inner.said.remove(record);
        inner.brakes.remove(record);
        inner.due.remove(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_adds_up() {
        let both = Wanted::record("a").and(Wanted::pool("p"));
        assert!(both.includes("a", &[]) && both.includes("b", &["p".to_owned()]));
        assert!(!both.includes("b", &["q".to_owned()]));
        assert_eq!(both.clone().and(Wanted::All), Wanted::All);
        assert_eq!(Wanted::Nothing.and(both.clone()), both);
        assert!(!Wanted::Nothing.includes("a", &["p".to_owned()]));
    }

    #[test]
    fn a_lease_that_was_released_is_not_lost() {
        let memory = AuditMemory::default();
        let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(100).unwrap());
        memory.released("1");
        memory.lease_gone("1", "server-1", later);
        memory.lease_gone("2", "server-1", later);
        let (lost, released) = memory.gone(now);
        assert_eq!((lost.len(), released.len()), (1, 1));
        assert!(lost.contains("2"));
        assert!(memory.misses_a_lease("server-1", now) && !memory.misses_a_lease("server-2", now));
        assert_eq!(memory.take(), Wanted::record("server-1"));
        assert!(memory.gone(Timestamp::from_second(4000).unwrap()).0.is_empty());
    }

    #[test]
    fn a_server_that_comes_back_and_another_history_ask_for_an_audit() {
        let memory = AuditMemory::default();
        memory.trust("server-1");
        memory.history_heard("server-1", "7/1");
        assert!(memory.take().is_empty(), "nothing is new");
        memory.doubt("server-1");
        memory.trust("server-1");
        assert_eq!(memory.take(), Wanted::record("server-1"));
        memory.history_heard("server-1", "7/2");
        assert_eq!(memory.take(), Wanted::record("server-1"));
        memory.history_heard("server-1", "7/2");
        memory.doubt("server-1");
        memory.looked_at("server-1");
        memory.trust("server-1");
        assert!(memory.take().is_empty(), "the audit itself has looked");
    }

    #[test]
    fn a_time_that_is_agreed_is_kept_and_comes_once() {
        let memory = AuditMemory::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        memory.want_at("server-1", at(50));
        memory.want_at("server-1", at(80));
        assert_eq!(memory.next_due(at(40)), Some(Duration::from_secs(10)));
        assert!(memory.take_due(at(49)).is_empty());
        assert_eq!(memory.take_due(at(50)), Wanted::record("server-1"));
        assert!(memory.take_due(at(100)).is_empty());
    }

    #[test]
    fn a_confirmation_is_acted_upon_once() {
        let memory = AuditMemory::default();
        let value = "abc".to_owned();
        memory.confirmation_seen("p", Some(&value));
        assert_eq!(memory.take(), Wanted::pool("p"));
        memory.confirmation_seen("p", Some(&value));
        memory.confirmation_seen("p", None);
        assert!(memory.take().is_empty());
    }
}
