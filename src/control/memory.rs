//! What the leader remembers between passes. All of it may be lost at any time: a lost password ends its lease, and
//! everything else is found out again.

use crate::channel::frames::{DatabaseClock, ProbeReport};
use crate::keys::Password;
use crate::plan::dynamic_secret::Early;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passwords on their way into a Secret, by verifier: the lease's UID is not known yet when they are made.
#[derive(Default)]
pub struct Passwords(Mutex<HashMap<String, (Arc<Password>, Instant)>>);

impl Passwords {
    /// Keeps a password until it is delivered.
    pub fn keep(&self, verifier: &str, password: Password) {
        locked(&self.0).insert(verifier.to_owned(), (Arc::new(password), Instant::now()));
    }

    /// The password of a verifier.
    pub fn of(&self, verifier: &str) -> Option<Arc<Password>> {
        locked(&self.0).get(verifier).map(|(password, _)| password.clone())
    }

    /// Forgets (and wipes) a password. Returns how long it was kept: the time from claim to delivery.
    pub fn forget(&self, verifier: &str) -> Option<Duration> {
        locked(&self.0).remove(verifier).map(|(_, since)| since.elapsed())
    }
}

/// Why we deleted leases, by UID: for the history only.
#[derive(Default)]
pub struct Endings(Mutex<HashMap<String, Early>>);

impl Endings {
    /// Remembers why.
    pub fn note(&self, uid: &str, why: Early) {
        locked(&self.0).insert(uid.to_owned(), why);
    }

    /// Why, if it was us and this process.
    pub fn of(&self, uid: &str) -> Option<Early> {
        locked(&self.0).get(uid).copied()
    }

    /// Forgets a lease that is released.
    pub fn forget(&self, uid: &str) {
        locked(&self.0).remove(uid);
    }
}

/// Attempts in a row that did not take a lease back, by UID: spaces the next ones.
#[derive(Default)]
pub struct Attempts(Mutex<HashMap<String, Tried>>);

struct Tried {
    times: i64,
    /// When this was first asked for.
    first: Instant,
    /// The next attempt is not due before.
    due: Option<Instant>,
}

impl Default for Tried {
    fn default() -> Self {
        Self {
            times: 0,
            first: Instant::now(),
            due: None,
        }
    }
}

impl Attempts {
    /// How long it is tried already; the first question is the beginning.
    pub fn age(&self, uid: &str) -> Duration {
        locked(&self.0).entry(uid.to_owned()).or_default().first.elapsed()
    }

    /// Counts one more and returns how many it is.
    pub fn count(&self, uid: &str) -> i64 {
        let mut all = locked(&self.0);
        let tried = all.entry(uid.to_owned()).or_default();
        tried.times += 1;
        tried.times
    }

    /// The next attempt is not due before `pause` is over, whatever wakes the object meanwhile: the write that tells of
    /// this one does.
    pub fn pause(&self, uid: &str, pause: Duration) {
        locked(&self.0).entry(uid.to_owned()).or_default().due = Instant::now().checked_add(pause);
    }

    /// How long the next attempt has to wait; none where it is due.
    pub fn left(&self, uid: &str) -> Option<Duration> {
        let due = locked(&self.0).get(uid)?.due?;
        Some(due.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Starts anew: something changed.
    pub fn reset(&self, uid: &str) {
        locked(&self.0).remove(uid);
    }
}

/// Objects whose backoff something made pointless: an engine connected, a base secret or a pool changed.
#[derive(Default)]
pub struct Nudges(Mutex<HashSet<String>>);

impl Nudges {
    /// The next pass over this object (by UID) does not wait for its backoff.
    pub fn nudge(&self, uid: &str) {
        locked(&self.0).insert(uid.to_owned());
    }

    /// Whether it was nudged since last asked.
    pub fn take(&self, uid: &str) -> bool {
        locked(&self.0).remove(uid)
    }
}

/// What of each pool and namespace (by UID) dynamic secrets rely on, as last seen.
#[derive(Default)]
pub struct ReliedOn(Mutex<HashMap<String, String>>);

impl ReliedOn {
    /// Remembers what is seen now and returns what was seen before.
    pub fn replace(&self, uid: &str, what: String) -> Option<String> {
        locked(&self.0).insert(uid.to_owned(), what)
    }

    /// Forgets what is gone.
    pub fn forget(&self, uid: &str) {
        locked(&self.0).remove(uid);
    }
}

/// Versions of base secrets that pools found ready in this leadership: another one is looked at, whatever the status says.
#[derive(Default)]
pub struct CheckedBases(Mutex<HashMap<(String, String), String>>);

impl CheckedBases {
    /// An engine of the pool (by UID) found this version of the base secret ready.
    pub fn note(&self, pool_uid: &str, base: &str, version: &str) {
        locked(&self.0).insert((pool_uid.to_owned(), base.to_owned()), version.to_owned());
    }

    /// Whether this version was found ready.
    pub fn has(&self, pool_uid: &str, base: &str, version: &str) -> bool {
        locked(&self.0)
            .get(&(pool_uid.to_owned(), base.to_owned()))
            .is_some_and(|known| known == version)
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, pool_uid: &str) {
        locked(&self.0).retain(|(of, _), _| of != pool_uid);
    }
}

/// What engines reported of database servers, by server record.
#[derive(Default)]
pub struct ServerFacts(Mutex<HashMap<String, Facts>>);

/// What engines reported of one server.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Database clock minus operator clock.
    pub offset: Option<SignedDuration>,
    /// The database's clock, and when it said so, by what no leap of our own clock changes.
    clock: Option<(Timestamp, Instant)>,
    /// The last probe and the base secret's version that it was made with.
    pub probe: Option<(String, ProbeReport)>,
    /// Groups that an engine has made or checked in this process's life, with the time.
    pub groups: HashMap<String, Timestamp>,
}

impl ServerFacts {
    /// Takes in a clock reading that arrived at `now`.
    pub fn heard(&self, record: &str, clock: DatabaseClock, now: Timestamp) {
        let age = SignedDuration::from_millis(i64::try_from(clock.age_ms).unwrap_or(i64::MAX));
        let Ok(there) = clock.now.checked_add(age) else { return };
        let mut all = locked(&self.0);
        let facts = all.entry(record.to_owned()).or_default();
        facts.offset = Some(there.duration_since(now));
        facts.clock = Some((there, Instant::now()));
    }

    /// Our own clock leapt: how far the others are from it is not known any more.
    pub fn forget_clocks(&self) {
        for facts in locked(&self.0).values_mut() {
            (facts.offset, facts.clock) = (None, None);
        }
    }

    /// The database's clock now; none until an engine has reported it. Counted on from there and not from the operator's
    /// clock: an account that is claimed in the moment of a leap would otherwise be valid for as much longer.
    pub fn database_time(&self, record: &str) -> Option<Timestamp> {
        let (there, then) = locked(&self.0).get(record)?.clock?;
        there.checked_add(then.elapsed()).ok()
    }

    /// Takes in a probe.
    pub fn probed(&self, record: &str, base_version: &str, report: ProbeReport) {
        locked(&self.0).entry(record.to_owned()).or_default().probe = Some((base_version.to_owned(), report));
    }

    /// All that is known of a server.
    pub fn of(&self, record: &str) -> Facts {
        locked(&self.0).get(record).cloned().unwrap_or_default()
    }

    /// An engine made or checked the group.
    pub fn group_seen(&self, record: &str, group: &str, now: Timestamp) {
        locked(&self.0)
            .entry(record.to_owned())
            .or_default()
            .groups
            .insert(group.to_owned(), now);
    }

    /// The group is dropped or doubtful.
    pub fn group_lost(&self, record: &str, group: &str) {
        if let Some(facts) = locked(&self.0).get_mut(record) {
            facts.groups.remove(group);
        }
    }
}

/// Where base secrets lead, by namespace and name: all that a dynamic secret needs to know to tell whether its credential
/// is still for the right server. No password in it.
#[derive(Default)]
pub struct BaseIdentities(Mutex<HashMap<(String, String), BaseIdentity>>);

/// Where one base secret leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseIdentity {
    /// Resource version that this was read from.
    pub version: String,
    /// Server record.
    pub record: String,
    /// Its database, which completes grants.
    pub database: String,
}

impl BaseIdentities {
    /// What was read of a base secret, if it is still of this version.
    pub fn of(&self, namespace: &str, name: &str, version: &str) -> Option<BaseIdentity> {
        let all = locked(&self.0);
        all.get(&(namespace.to_owned(), name.to_owned()))
            .filter(|known| known.version == version)
            .cloned()
    }

    /// The base secrets that lead to a server record, as `namespace/name`.
    pub fn leading_to(&self, record: &str) -> BTreeSet<String> {
        let all = locked(&self.0);
        let these = all.iter().filter(|(_, known)| known.record == record);
        these
            .map(|((namespace, name), _)| format!("{namespace}/{name}"))
            .collect()
    }

    /// Remembers what was read.
    pub fn keep(&self, namespace: &str, name: &str, identity: BaseIdentity) {
        locked(&self.0).insert((namespace.to_owned(), name.to_owned()), identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_waits_for_its_time_unless_something_changed() {
        let attempts = Attempts::default();
        assert!(
            attempts.age("a") < Duration::from_secs(60),
            "it begins with the question"
        );
        assert_eq!(attempts.left("a"), None);
        assert_eq!(attempts.count("a"), 1);
        attempts.pause("a", Duration::from_secs(60));
        assert!(attempts.left("a").is_some_and(|left| left > Duration::from_secs(50)));
        assert_eq!(attempts.left("b"), None);
        assert_eq!(attempts.count("a"), 2, "the pause does not forget the count");
        attempts.reset("a");
        assert_eq!(attempts.left("a"), None);
        assert_eq!(attempts.count("a"), 1);
        attempts.pause("a", Duration::ZERO);
        assert_eq!(attempts.left("a"), None);
    }

    #[test]
    fn the_databases_clock_does_not_follow_a_leap_of_ours() {
        let servers = ServerFacts::default();
        let there = Timestamp::from_second(1_000_000).unwrap();
        let clock = DatabaseClock {
            now: there,
            age_ms: 500,
        };
        assert_eq!(servers.database_time("a"), None);
        // Whatever our own clock says now, or will say.
        servers.heard("a", clock, Timestamp::from_second(5).unwrap());
        let later = servers.database_time("a").unwrap().duration_since(there);
        assert!(
            later >= SignedDuration::from_millis(500) && later < SignedDuration::from_secs(60),
            "{later:?}"
        );
        servers.forget_clocks();
        assert_eq!(servers.database_time("a"), None);
        assert_eq!(servers.of("a").offset, None);
    }

    #[test]
    fn a_server_is_named_by_the_base_secrets_that_lead_to_it_now() {
        let bases = BaseIdentities::default();
        let identity = |record: &str| BaseIdentity {
            version: "1".to_owned(),
            record: record.to_owned(),
            database: "orders".to_owned(),
        };
        bases.keep("databases", "orders-db", identity("server-a"));
        bases.keep("databases", "alias", identity("server-a"));
        bases.keep("databases", "moved", identity("server-a"));
        bases.keep("databases", "moved", identity("server-b"));
        let names: Vec<String> = bases.leading_to("server-a").into_iter().collect();
        assert_eq!(names, ["databases/alias", "databases/orders-db"]);
        assert!(bases.leading_to("server-c").is_empty());
    }

    #[test]
    fn a_base_secret_counts_as_checked_in_one_version_and_for_one_pool() {
        let checked = CheckedBases::default();
        checked.note("pool", "orders-db", "7");
        assert!(checked.has("pool", "orders-db", "7"));
        assert!(!checked.has("pool", "orders-db", "8") && !checked.has("other", "orders-db", "7"));
        checked.note("other", "orders-db", "7");
        checked.forget("pool");
        assert!(!checked.has("pool", "orders-db", "7") && checked.has("other", "orders-db", "7"));
    }
}
