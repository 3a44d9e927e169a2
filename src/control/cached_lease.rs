//! What the cache keeps of a lease. There are thousands of them, so it keeps what somebody reads, and once what is the same in
//! many. Nothing is taken from a lease without a claim: that one is written back as a whole when it is taken on. Of one with a
//! claim only status and finalizers are ever written, and nothing of these is left out.

use crate::api::CredentialLease;
use crate::api::dynamic_secret::AccountOptions;
use crate::api::lease::{Claim, ClaimedGroup, ClaimedPool, Maker};
use crate::api::names::{DYNAMIC_SECRET_LABEL, POOL_LABEL, ROTATE_AT};
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Makes leases smaller before the cache takes them in.
#[derive(Default)]
pub struct Slimming {
    makers: Shared<Maker>,
    pools: Shared<ClaimedPool>,
    groups: Shared<ClaimedGroup>,
    accounts: Shared<AccountOptions>,
    texts: Shared<str>,
}

impl Slimming {
    /// To be done once, to what the API server answered. Leaves out what nobody reads from the cache: who wrote which field,
    /// and of a lease with a claim its owners, all annotations but one, and labels that say what the claim says. What is
    /// left may only be read through [`label`].
    pub fn slim(&mut self, lease: &mut CredentialLease) {
        lease.metadata.managed_fields = None;
        lease.metadata.finalizers.iter_mut().for_each(Vec::shrink_to_fit);
        if let Some(status) = &mut lease.status {
            status.conditions.shrink_to_fit();
        }
        let in_status = lease.status.as_mut().and_then(|status| status.claim.as_deref_mut());
        for claim in lease.spec.claim.as_deref_mut().into_iter().chain(in_status) {
            self.share(claim);
        }
        let Some(claim) = lease.claim() else { return };
        let labels = lease.metadata.labels.as_ref();
        let said = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        let as_claimed = OURS.iter().all(|key| said(key) == claimed(claim, key));
        let mut labels = lease.metadata.labels.take().unwrap_or_default();
        labels.retain(|key, _| OURS.contains(&key.as_str()));
        lease.metadata.labels = (!as_claimed).then_some(labels);
        lease.metadata.owner_references = None;
        let annotations = lease.metadata.annotations.take();
        let asked = annotations.and_then(|mut all| all.remove_entry(ROTATE_AT));
        lease.metadata.annotations = asked.map(|asked| [asked].into());
    }

    fn share(&mut self, claim: &mut Claim) {
        self.makers.share(&mut claim.maker);
        self.pools.share(&mut claim.pool);
        if let Some(group) = Arc::get_mut(&mut claim.group) {
            group.grants.shrink_to_fit();
        }
        self.groups.share(&mut claim.group);
        if let Some(account) = &mut claim.account {
            self.accounts.share(account);
        }
        for text in [
            &mut claim.dynamic_secret_uid,
            &mut claim.server,
            &mut claim.user_prefix,
            &mut claim.fingerprint,
        ] {
            self.texts.share(text);
        }
    }
}

/// The labels that somebody reads from the cache.
const OURS: [&str; 2] = [DYNAMIC_SECRET_LABEL, POOL_LABEL];

/// What a label says that the operator writes with a claim.
fn claimed<'a>(claim: &'a Claim, key: &str) -> Option<&'a str> {
    match key {
        DYNAMIC_SECRET_LABEL => Some(&claim.dynamic_secret_uid),
        POOL_LABEL => Some(&claim.pool.uid),
        _ => None,
    }
}

/// What a lease from the cache has as its label for dynamic secret or pool. One without labels, and only that one, has
/// those that belong to its claim; where somebody took one off or changed it, the rest was kept.
pub fn label<'a>(lease: &'a CredentialLease, key: &str) -> Option<&'a str> {
    match &lease.metadata.labels {
        Some(labels) => labels.get(key).map(String::as_str),
        None => claimed(lease.claim()?, key),
    }
}

/// Fewest that are kept before those are looked for that nobody has any more.
const FEW: usize = 64;

/// Things of which one is enough, however many have it.
struct Shared<T: ?Sized> {
    all: HashSet<Arc<T>>,
    /// With so many, those are dropped that nobody has any more.
    many: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self {
            all: HashSet::new(),
            many: FEW,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    /// Puts the one that others have already in the place of this one.
    fn share(&mut self, one: &mut Arc<T>) {
        if let Some(known) = self.all.get(&**one) {
            *one = known.clone();
            return;
        }
        if self.all.len() >= self.many {
            self.all.retain(|known| Arc::strong_count(known) > 1);
            self.many = (2 * self.all.len()).max(FEW);
        }
        self.all.insert(one.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(dynamic_secret: &str) -> Value {
        json!({
            "maker": {"holder": "op", "term": 1}, "dynamicSecretUid": dynamic_secret, "serial": 1, "server": "server-x",
            "pool": {"namespace": "databases", "name": "orders", "uid": "pool"},
            "group": {"name": "dsvg_x", "grants": [{"what": "SELECT", "where": "a.b.c"}], "since": "2026-11-22T09:00:00Z"},
            "userPrefix": "dsv_", "fingerprint": "f", "ttlSeconds": 60, "claimedAt": "2026-11-22T10:00:00Z",
            "issueDeadline": "2026-11-22T10:01:00Z", "validUntil": "2026-11-22T11:00:00Z",
            "expiresAt": "2026-11-22T11:00:00Z", "ownedObjects": "Reassign", "account": {"connectionLimit": 2},
        })
    }

    fn lease(labels: &Value, claim: &Value) -> CredentialLease {
        let lease = json!({
            "apiVersion": "dsv.dev/v1alpha1", "kind": "CredentialLease",
            "metadata": {
                "name": "one", "namespace": "shop", "labels": labels, "finalizers": ["dsv.dev/revoke"],
                "annotations": {ROTATE_AT: "now", "other": "x"},
                "ownerReferences": [{"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "name": "orders", "uid": "ds"}],
                "managedFields": [{"manager": "x"}],
            },
            "spec": {"dynamicSecret": "orders"},
            "status": {"phase": "Pending", "verifier": "v", "claim": claim},
        });
        serde_json::from_value(lease).unwrap()
    }

    fn slim(labels: &Value, claim: &Value) -> CredentialLease {
        let mut lease = lease(labels, claim);
        Slimming::default().slim(&mut lease);
        lease
    }

    fn both(lease: &CredentialLease) -> [Option<&str>; 2] {
        OURS.map(|key| label(lease, key))
    }

    #[test]
    fn labels_say_of_a_slim_lease_what_they_said_before() {
        let claim = claim("ds");
        for (labels, said) in [
            (
                json!({DYNAMIC_SECRET_LABEL: "ds", POOL_LABEL: "pool", "app": "x"}),
                [Some("ds"), Some("pool")],
            ),
            (
                json!({DYNAMIC_SECRET_LABEL: "ds", POOL_LABEL: "another"}),
                [Some("ds"), Some("another")],
            ),
            (
                json!({DYNAMIC_SECRET_LABEL: "another", POOL_LABEL: "pool"}),
                [Some("another"), Some("pool")],
            ),
            (json!({POOL_LABEL: "pool"}), [None, Some("pool")]),
            (json!({DYNAMIC_SECRET_LABEL: "ds"}), [Some("ds"), None]),
            (json!({"app": "x"}), [None, None]),
            (json!({}), [None, None]),
            (Value::Null, [None, None]),
        ] {
            assert_eq!(both(&slim(&labels, &claim)), said, "{labels}");
        }
        // Before the claim is written there is nothing else that says it.
        let early = slim(&json!({DYNAMIC_SECRET_LABEL: "ds"}), &Value::Null);
        assert_eq!(both(&early), [Some("ds"), None]);
        assert_eq!(both(&slim(&Value::Null, &Value::Null)), [None, None]);
    }

    #[test]
    fn what_is_written_back_is_kept() {
        let (labels, claim) = (json!({DYNAMIC_SECRET_LABEL: "ds", POOL_LABEL: "pool"}), claim("ds"));
        let (whole, slim_one) = (lease(&labels, &claim), slim(&labels, &claim));
        assert_eq!((&slim_one.spec, &slim_one.status), (&whole.spec, &whole.status));
        assert_eq!(slim_one.metadata.finalizers, whole.metadata.finalizers);
        assert_eq!(
            slim_one.metadata.annotations,
            Some([(ROTATE_AT.into(), "now".into())].into())
        );
        assert_eq!(slim_one.metadata.owner_references, None);
        // One that is taken on is written as a whole.
        let (mut whole, asked) = (lease(&labels, &Value::Null), slim(&labels, &Value::Null));
        whole.metadata.managed_fields = None;
        assert_eq!(asked.metadata, whole.metadata);
        assert_eq!((asked.spec, asked.status), (whole.spec, whole.status));
    }

    #[test]
    fn what_is_the_same_is_there_once_and_goes_with_the_last_who_has_it() {
        let mut slimming = Slimming::default();
        let mut made = |dynamic_secret: &str| {
            let mut lease = lease(&Value::Null, &claim(dynamic_secret));
            slimming.slim(&mut lease);
            lease
        };
        let (one, two) = (made("ds"), made("ds"));
        let (first, second) = (one.claim().unwrap(), two.claim().unwrap());
        assert!(Arc::ptr_eq(&first.pool, &second.pool) && Arc::ptr_eq(&first.group, &second.group));
        assert!(Arc::ptr_eq(&first.maker, &second.maker) && Arc::ptr_eq(&first.server, &second.server));
        let accounts = (first.account.as_ref().unwrap(), second.account.as_ref().unwrap());
        assert!(Arc::ptr_eq(accounts.0, accounts.1));
        for number in 0..10 * FEW {
            drop(made(&format!("ds-{number}")));
        }
        let last = made("ds");
        assert!(Arc::ptr_eq(
            &last.claim().unwrap().dynamic_secret_uid,
            &first.dynamic_secret_uid
        ));
        assert!(slimming.texts.all.len() <= FEW, "{}", slimming.texts.all.len());
    }
}
