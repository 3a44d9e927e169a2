//! A lane for each tenant: how many pushes are under way, who waits, whether the tenant answers, and the client that is
//! logged in.

use crate::api::conditions::Reason;
use crate::api::{DsvTenant, SecretSync};
use crate::cluster::numbers::{self, Numbered};
use crate::control::context::{Context, Wakes};
use crate::control::hold::{Error, Hold};
use crate::plan::sync::breaker::Breaker;
use crate::sync::{PushError, Tenant};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Pushes to one tenant at once, where it says nothing else.
const IN_FLIGHT: i32 = 4;

/// All lanes, by the tenants' UIDs.
#[derive(Default)]
pub struct Lanes {
    lanes: Arc<Mutex<HashMap<String, Lane>>>,
    /// Numbers are given one at a time: they stand in one object.
    numbering: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Lane {
    in_flight: i32,
    waiting: VecDeque<ObjectRef<SecretSync>>,
    queued: HashSet<ObjectRef<SecretSync>>,
    breaker: Breaker,
    /// Why it is open.
    why: Option<Hold>,
    /// What the client was made of, and itself.
    client: Option<(String, Arc<Tenant>)>,
}

/// Whether one may go.
pub enum Entry {
    /// Yes.
    Go(Permit),
    /// Others are under way; one is woken when there is room.
    Wait,
    /// The tenant does not answer; not before then.
    Closed(Timestamp, Hold),
}

/// A place in a lane, given back when dropped: the next one is woken.
pub struct Permit {
    lanes: Arc<Mutex<HashMap<String, Lane>>>,
    tenant: String,
    wake: UnboundedSender<ObjectRef<SecretSync>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lane) = lanes.get_mut(&self.tenant) else {
            return;
        };
        // A lane that was forgotten meanwhile and made anew owes nothing for it.
        lane.in_flight = (lane.in_flight - 1).max(0);
        if let Some(next) = lane.waiting.pop_front() {
            lane.queued.remove(&next);
            // A closed channel means that this leadership is over.
            let _ = self.wake.send(next);
        }
    }
}

impl Lane {
    fn told(&self) -> Hold {
        let why = || Hold::new(Reason::TenantUnreachable, "the tenant does not answer");
        self.why.clone().unwrap_or_else(why)
    }
}

impl Lanes {
    fn locked(&self) -> MutexGuard<'_, HashMap<String, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a place.
    pub fn enter(&self, tenant: &DsvTenant, who: ObjectRef<SecretSync>, now: Timestamp, wakes: &Wakes) -> Entry {
        let uid = tenant.uid().unwrap_or_default();
        let mut lanes = self.locked();
        let lane = lanes.entry(uid.clone()).or_default();
        if lane.in_flight >= tenant.spec.max_in_flight.unwrap_or(IN_FLIGHT) {
            if lane.queued.insert(who.clone()) {
                lane.waiting.push_back(who);
            }
            return Entry::Wait;
        }
        if let Err(until) = lane.breaker.ask(now) {
            return Entry::Closed(until, lane.told());
        }
        lane.in_flight += 1;
        Entry::Go(Permit {
            lanes: self.lanes.clone(),
            tenant: uid,
            wake: wakes.secret_syncs.clone(),
        })
    }

    /// The tenant answered: whoever waited for that goes on. Returns whether it is back.
    pub fn answered(&self, tenant: &str, wakes: &Wakes) -> bool {
        let mut lanes = self.locked();
        let Some(lane) = lanes.get_mut(tenant) else {
            return false;
        };
        let is_back = lane.breaker.answered();
        if is_back {
            lane.queued.clear();
            for next in lane.waiting.drain(..) {
                let _ = wakes.secret_syncs.send(next);
            }
        }
        is_back
    }

    /// Something went wrong at the tenant. Returns whether it counts as down from now on.
    pub fn failed(&self, tenant: &str, error: &PushError, now: Timestamp) -> bool {
        let mut lanes = self.locked();
        let lane = lanes.entry(tenant.to_owned()).or_default();
        let was_open = lane.breaker.open_until().is_some();
        lane.why = Some(Hold::from(error));
        match error {
            PushError::Patience(length) => {
                let length = SignedDuration::try_from(*length).unwrap_or(SignedDuration::from_mins(1));
                lane.breaker.wait(now.saturating_add(length).unwrap_or(Timestamp::MAX));
            }
            error if error.is_silence() => lane.breaker.silent(now, tenant),
            _ => {
                lane.breaker.answered();
            }
        }
        !was_open && lane.breaker.open_until().is_some()
    }

    /// Until when nobody asks the tenant, and why.
    pub fn closed_until(&self, tenant: &str) -> Option<(Timestamp, Hold)> {
        let lanes = self.locked();
        let lane = lanes.get(tenant)?;
        Some((lane.breaker.open_until()?, lane.told()))
    }

    /// The client that was made of the same, or the one that `make` makes.
    pub fn client(
        &self,
        tenant: &str,
        made_of: &str,
        make: impl FnOnce() -> Result<Tenant, PushError>,
    ) -> Result<Arc<Tenant>, PushError> {
        let mut lanes = self.locked();
        let lane = lanes.entry(tenant.to_owned()).or_default();
        if let Some((known, client)) = &lane.client
            && known == made_of
        {
            return Ok(client.clone());
        }
        let client = Arc::new(make()?);
        lane.client = Some((made_of.to_owned(), client.clone()));
        // Another login or another address has not failed yet.
        lane.breaker.answered();
        Ok(client)
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&self, tenant: &str) {
        self.locked().remove(tenant);
    }

    /// The number of an object.
    pub async fn number(&self, ctx: &Context, namespace: &str, what: (Numbered, &str, &str)) -> Result<i64, Error> {
        let _turn = self.numbering.lock().await;
        Ok(numbers::assign(&ctx.client, &ctx.settings.home, namespace, what).await?)
    }
}
