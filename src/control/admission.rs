//! Limits on how many leases are open: counting them and making one more is one step. Only the leader counts, and only one
//! lease at a time passes here, so counting must not cost more the more leases there are: the cache counts, and what it does
//! not show yet is known here, since every lease passes here and every one ends here.

use super::cached_lease::label;
use super::context::Context;
use super::hold::{Error, Halt, Hold};
use super::prepare::{Prepared, admit};
use super::watches::LEASES;
use crate::api::CredentialLease;
use crate::api::conditions::Reason;
use crate::api::names::{DYNAMIC_SECRET_LABEL, POOL_LABEL};
use crate::cluster::{Intention, Parts};
use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// After a leadership began, and after an answer that was lost, the API server counts for so long: a lease may have come
/// about that nobody here knows of.
const DOUBT: SignedDuration = SignedDuration::from_secs(30);

/// What is known of leases beyond the cache.
pub struct Admission {
    turn: tokio::sync::Mutex<()>,
    books: Mutex<Books>,
}

struct Books {
    doubt_until: Timestamp,
    /// Leases that passed here and that the cache does not show with their labels yet.
    passed: HashMap<ObjectRef<CredentialLease>, Passed>,
    /// UIDs of leases that ended here and that the cache still shows.
    ended: HashSet<String>,
}

struct Passed {
    pool: String,
    dynamic_secret: String,
}

impl Passed {
    fn has(&self, (label, uid): (&str, &str)) -> bool {
        let of = if label == POOL_LABEL {
            &self.pool
        } else {
            &self.dynamic_secret
        };
        of == uid
    }
}

impl Admission {
    /// For a leadership that begins now.
    pub fn new(now: Timestamp) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            books: Mutex::new(Books {
                doubt_until: later(now),
                passed: HashMap::new(),
                ended: HashSet::new(),
            }),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease is closed: it counts no more, whatever the cache still shows.
    pub fn ended(&self, lease: &CredentialLease) {
        let mut books = self.books();
        books.passed.remove(&ObjectRef::from_obj(lease));
        books.ended.extend(lease.uid());
    }

    /// The cache shows a lease with its labels: it counts there.
    pub fn shown(&self, lease: &CredentialLease) {
        self.books().passed.remove(&ObjectRef::from_obj(lease));
    }

    /// The cache shows a lease no more.
    pub fn gone(&self, lease: &CredentialLease) {
        let mut books = self.books();
        books.passed.remove(&ObjectRef::from_obj(lease));
        if let Some(uid) = lease.uid() {
            books.ended.remove(&uid);
        }
    }

    fn is_in_doubt(&self, now: Timestamp) -> bool {
        now < self.books().doubt_until
    }

    /// Open leases of one label beside `own`, by what `shown` finds in the cache.
    fn count(
        &self,
        namespace: &str,
        of: (&str, &str),
        own: Option<&str>,
        cache: &impl Fn(&ObjectRef<CredentialLease>) -> bool,
        shown: &[String],
    ) -> i64 {
        let mut books = self.books();
        books.passed.retain(|lease, _| !cache(lease));
        let counts = |uid: &&String| Some(uid.as_str()) != own && !books.ended.contains(*uid);
        let in_cache = shown.iter().filter(counts).count();
        let is_of = |(lease, passed): &(&ObjectRef<CredentialLease>, &Passed)| {
            lease.namespace.as_deref() == Some(namespace) && passed.has(of)
        };
        let beyond = books.passed.iter().filter(is_of).count();
        i64::try_from(in_cache + beyond).unwrap_or(i64::MAX)
    }
}

fn later(now: Timestamp) -> Timestamp {
    now.saturating_add(DOUBT).unwrap_or(Timestamp::MAX)
}

/// Counts the namespace's open leases against the limits of pool and dynamic secret and then runs `make`, which returns the
/// name of the lease, as one step. `own` is the UID of the lease that asks: its labels are written before its claim, and
/// where that was interrupted it would count against itself.
pub async fn within_limits(
    ctx: &Context,
    prepared: &Prepared,
    own: Option<&str>,
    make: impl AsyncFnOnce() -> Result<String, Halt>,
) -> Result<(), Halt> {
    let foreign = prepared.owner.namespace() != prepared.pool.namespace();
    let limited = foreign && prepared.pool.spec.access.iter().any(|rule| rule.max_leases.is_some());
    let most = prepared.owner.spec.max_leases;
    let (pool, dynamic_secret) = (
        prepared.pool.uid().unwrap_or_default(),
        prepared.owner.uid().unwrap_or_default(),
    );
    let _one_at_a_time = if limited || most.is_some() {
        Some(ctx.admission.turn.lock().await)
    } else {
        None
    };
    if limited {
        admit(prepared, open(ctx, prepared, (POOL_LABEL, &pool), own).await?)?;
    }
    if let Some(most) = most {
        let of_owner = open(ctx, prepared, (DYNAMIC_SECRET_LABEL, &dynamic_secret), own).await?;
        if of_owner >= most {
            let message = format!(
                "{of_owner} leases are open, which is as many as spec.maxLeases admits ({most}); one more is issued when one ends"
            );
            return Err(Hold::new(Reason::TooManyLeases, message).into());
        }
    }
    let namespace = prepared.owner.namespace().unwrap_or_default();
    match make().await {
        Ok(name) => {
            let lease = ObjectRef::new(&name).within(&namespace);
            ctx.admission
                .books()
                .passed
                .insert(lease, Passed { pool, dynamic_secret });
            Ok(())
        }
        Err(halt) => {
            if is_unclear(&halt) {
                ctx.admission.books().doubt_until = later(ctx.now());
            }
            Err(halt)
        }
    }
}

/// Whether a lease may have come about all the same.
fn is_unclear(halt: &Halt) -> bool {
    matches!(halt, Halt::Error(Error::Cluster(error)) if !error.is_conflict())
}

async fn open(ctx: &Context, prepared: &Prepared, of: (&str, &str), own: Option<&str>) -> Result<i64, Error> {
    let namespace = prepared.owner.namespace().unwrap_or_default();
    if ctx.admission.is_in_doubt(ctx.now()) || !ctx.stores.filled.has(LEASES) {
        return listed(ctx, &namespace, of, own).await;
    }
    let leases = &ctx.stores.leases;
    let in_cache = if of.0 == DYNAMIC_SECRET_LABEL {
        ctx.stores.lease_index.owned(leases, &namespace, of.1)
    } else {
        let has_label = |lease: &CredentialLease| label(lease, of.0) == Some(of.1);
        leases.state_filter(|lease| lease.metadata.namespace.as_deref() == Some(&namespace) && has_label(lease))
    };
    let shown: Vec<String> = in_cache.iter().filter_map(|lease| lease.uid()).collect();
    let is_shown = |lease: &ObjectRef<CredentialLease>| {
        let found = leases.get(lease);
        found.is_some_and(|lease| label(&lease, DYNAMIC_SECRET_LABEL).is_some())
    };
    Ok(ctx.admission.count(&namespace, of, own, &is_shown, &shown))
}

/// The same count by the API server.
async fn listed(ctx: &Context, namespace: &str, (label, uid): (&str, &str), own: Option<&str>) -> Result<i64, Error> {
    let api: Api<CredentialLease> = Api::namespaced(ctx.client.clone(), namespace);
    let params = ListParams::default().labels(&format!("{label}={uid}"));
    let (mut leases, mut others) = (Parts::of(api, params), 0);
    while let Some(part) = leases
        .next_metadata()
        .await
        .to(|| format!("count the leases of namespace {namespace}"))?
    {
        others += part.iter().filter(|lease| lease.metadata.uid.as_deref() != own).count();
    }
    Ok(i64::try_from(others).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: (&str, &str) = (DYNAMIC_SECRET_LABEL, "owner");

    fn admission() -> Admission {
        Admission::new(Timestamp::UNIX_EPOCH)
    }

    fn pass(admission: &Admission, name: &str) {
        let passed = Passed {
            pool: "pool".to_owned(),
            dynamic_secret: "owner".to_owned(),
        };
        let lease = ObjectRef::new(name).within("shop");
        admission.books().passed.insert(lease, passed);
    }

    fn lease(name: &str) -> CredentialLease {
        let lease = serde_json::json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": "CredentialLease",
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"dynamicSecret": "app"},
        });
        serde_json::from_value(lease).unwrap()
    }

    /// Counts while the cache shows these leases.
    fn count(admission: &Admission, of: (&str, &str), own: Option<&str>, shown: &[&str]) -> i64 {
        let is_shown = |lease: &ObjectRef<CredentialLease>| shown.contains(&lease.name.as_str());
        let uids: Vec<String> = shown.iter().map(|&name| name.to_owned()).collect();
        admission.count("shop", of, own, &is_shown, &uids)
    }

    #[test]
    fn a_lease_counts_once_whether_or_not_the_cache_shows_it() {
        let admission = admission();
        pass(&admission, "a");
        pass(&admission, "b");
        assert_eq!(count(&admission, OWNER, None, &["a"]), 2);
        assert_eq!(count(&admission, OWNER, None, &["a", "b"]), 2);
        assert_eq!(
            count(&admission, (POOL_LABEL, "pool"), None, &["a"]),
            1,
            "what was seen is the cache's"
        );
        pass(&admission, "c");
        assert_eq!(count(&admission, (POOL_LABEL, "other"), None, &[]), 0);
        assert_eq!(admission.count("bank", OWNER, None, &|_| false, &[]), 0);
    }

    #[test]
    fn a_lease_that_ended_counts_no_more_although_the_cache_still_shows_it() {
        let admission = admission();
        pass(&admission, "a");
        admission.ended(&lease("a"));
        assert_eq!(count(&admission, OWNER, None, &[]), 0);
        assert_eq!(count(&admission, OWNER, None, &["a", "b"]), 1);
        admission.gone(&lease("a"));
        assert!(admission.books().ended.is_empty() && admission.books().passed.is_empty());
    }

    #[test]
    fn nobody_counts_against_himself() {
        let admission = admission();
        assert_eq!(count(&admission, OWNER, Some("a"), &["a", "b"]), 1);
    }

    #[test]
    fn at_first_and_after_a_lost_answer_the_api_server_counts() {
        let admission = admission();
        assert!(admission.is_in_doubt(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(29)));
        assert!(!admission.is_in_doubt(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(30)));
    }
}
