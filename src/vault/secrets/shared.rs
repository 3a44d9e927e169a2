//! One account for several reads: of one caller, at one replica, for as long as the dynamic secret says.
//!
//! It is for readers that ask every minute whether something has changed. What is shared is in the memory of the replica that
//! made it, never with another one, and is wiped when the window ends, at the latest with the account.

use super::{Asked, attributes};
use crate::api::lease::Phase;
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::objects;
use crate::keys::SecretText;
use crate::vault::Vault;
use crate::vault::reply::Refusal;
use crate::vault::secrets::item::Item;
use crate::vault::time;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is left of an account's life when nobody new is given it any more.
const LAST: SignedDuration = SignedDuration::from_secs(10);

/// Whose account it is: of which state of which dynamic secret, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    secret: String,
    generation: i64,
    caller: String,
}

/// An account that was handed over once. `Debug` is left out: it would show the password's length.
struct Held {
    lease: CredentialLease,
    data: Vec<(String, SecretText)>,
    /// When it is shared no longer.
    until: Timestamp,
    /// When the account ends.
    end: Timestamp,
}

/// Locked while somebody looks or issues, so that two reads at once make one account.
type Slot = Arc<tokio::sync::Mutex<Option<Held>>>;

/// What this replica shares.
#[derive(Default, Clone)]
pub struct Shared(Arc<Mutex<HashMap<Key, Slot>>>);

impl Shared {
    fn slot(&self, key: &Key) -> Slot {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(key.clone()).or_default().clone()
    }

    /// Wipes what is in the slot when its window ends, unless something newer is in it by then.
    fn forget_later(&self, key: Key, slot: Slot, until: Timestamp) {
        let shared = self.clone();
        let left = Duration::try_from(until.duration_since(time::now())).unwrap_or_default();
        tokio::spawn(async move {
            tokio::time::sleep(left).await;
            let mut held = slot.lock().await;
            if held.as_ref().is_some_and(|held| held.until <= until) {
                *held = None;
                let mut all = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                all.remove(&key);
            }
        });
    }
}

impl Held {
    fn new(lease: CredentialLease, data: &Map<String, Value>, window: Duration) -> Option<Self> {
        let end = lease.status.as_ref()?.expires_at.as_ref()?.0;
        let window = SignedDuration::try_from(window).ok()?;
        let until = time::now().saturating_add(window).ok()?;
        let until = until.min(end.saturating_sub(LAST).ok()?);
        let texts = data
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), SecretText::new(value.as_str()?))));
        Some(Self {
            data: texts.collect(),
            lease,
            until,
            end,
        })
    }

    fn shown(&self, now: Timestamp) -> Map<String, Value> {
        let texts = self.data.iter().map(|(key, text)| (key.clone(), json!(text.reveal())));
        let mut all: Map<String, Value> = texts.collect();
        let left = self.end.duration_since(now).as_secs().max(0);
        all.insert("ttl".to_owned(), json!(left.to_string()));
        all
    }
}

impl Vault {
    /// An account for a reader: one of his own, or the one that he was given a moment ago.
    pub(super) async fn account_for(
        &self,
        asked: &Asked<'_>,
        object: &DynamicSecret,
        item: &Item,
    ) -> Result<Map<String, Value>, Refusal> {
        let tenant = &asked.call.tenant;
        let Some(window) = attributes::share_for(&item.attributes) else {
            return self.issue(tenant, object).await.map(|(data, _)| data);
        };
        let key = Key {
            secret: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            caller: asked.caller.subject.clone(),
        };
        let slot = self.shared.slot(&key);
        let mut held = slot.lock().await;
        if let Some(held) = held.as_ref()
            && self.is_good(held).await?
        {
            return Ok(held.shown(time::now()));
        }
        *held = None;
        let (data, lease) = self.issue(tenant, object).await?;
        *held = Held::new(lease, &data, window);
        if let Some(held) = held.as_ref() {
            self.shared.forget_later(key, slot.clone(), held.until);
        }
        Ok(data)
    }

    /// Whether the account is there still: somebody may have ended it.
    async fn is_good(&self, held: &Held) -> Result<bool, Refusal> {
        if time::now() >= held.until {
            return Ok(false);
        }
        let namespace = held.lease.namespace().unwrap_or_default();
        let lease: Option<CredentialLease> = objects::read(&self.client, &namespace, &held.lease.name_any()).await?;
        Ok(lease.is_some_and(|lease| {
            let phase = lease.status.as_ref().and_then(|status| status.phase);
            lease.uid() == held.lease.uid()
                && lease.metadata.deletion_timestamp.is_none()
                && phase == Some(Phase::Issued)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::lease::{CredentialLeaseSpec, CredentialLeaseStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn held(life: i64, window: u64) -> Held {
        let spec = CredentialLeaseSpec {
            dynamic_secret: "app".into(),
            verifier: None,
            target: None,
            ttl: None,
            bound_to: None,
            claim: None,
        };
        let mut lease = CredentialLease::new("app-1", spec);
        let end = time::now().saturating_add(SignedDuration::from_secs(life)).unwrap();
        lease.status = Some(CredentialLeaseStatus {
            expires_at: Some(Time(end)),
            ..CredentialLeaseStatus::default()
        });
        let data = json!({"username": "u", "password": "p", "ttl": "1000"});
        Held::new(lease, data.as_object().unwrap(), Duration::from_secs(window)).unwrap()
    }

    #[test]
    fn nothing_is_shared_longer_than_the_account_lives() {
        let long = held(60, 3600);
        assert!(long.until <= long.end.saturating_sub(LAST).unwrap());
        let short = held(3600, 60);
        assert!(short.until < short.end.saturating_sub(SignedDuration::from_mins(50)).unwrap());
        let shown = short.shown(short.end.saturating_sub(SignedDuration::from_secs(7)).unwrap());
        assert_eq!((&shown["password"], &shown["ttl"]), (&json!("p"), &json!("7")));
    }

    #[tokio::test]
    async fn what_was_shared_is_wiped_when_its_window_ends_though_nobody_asks() {
        let shared = Shared::default();
        let key = Key {
            secret: "uid".into(),
            generation: 1,
            caller: "users:a".into(),
        };
        let slot = shared.slot(&key);
        let held = held(3600, 2);
        let until = held.until;
        *slot.lock().await = Some(held);
        shared.forget_later(key, slot.clone(), until);
        let wiped = async {
            while slot.lock().await.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wiped).await.unwrap();
        assert!(time::now() >= until, "not before its end");
        assert!(shared.0.lock().unwrap().is_empty());
    }
}
