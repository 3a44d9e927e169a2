//! What every controller works with.

use super::admission::Admission;
use super::audit::AuditMemory;
use super::closing::Closing;
use super::credential_cache::SeenCredential;
use super::crowd::Crowds;
use super::deferred_wakes::DeferredWakes;
use super::group_commit::GroupCommits;
use super::guards::Guards;
use super::hold::{Error, Hold};
use super::lease_index::LeaseIndex;
use super::memory::{Attempts, BaseIdentities, CheckedBases, Endings, Nudges, Passwords, ReliedOn, ServerFacts};
use super::occupied::Waiter;
use super::once::Once;
use super::own_writes::OwnWrites;
use super::password_stock::PasswordStock;
use super::places::Places;
use super::recent_records::RecentRecords;
use super::report::Ending;
use super::revocations::Revocations;
use super::silence::Silence;
use super::sync::lanes::Lanes;
use super::watches::Filled;
use crate::api::conditions::Reason;
use crate::api::lease::{ClaimedPool, Maker};
use crate::api::names::OPERATOR;
use crate::api::{CredentialLease, DsvTenant, DynamicSecret, Engine, EnginePool, SecretSync};
use crate::channel::hub::Hub;
use crate::clock;
use crate::cluster::installation::Installation;
use crate::cluster::leadership::{Leader, NotLeading, Term};
use crate::cluster::objects;
use crate::cluster::watched::Namespaces;
use crate::plan::sync::destination::Allowed;
use crate::telemetry::ledger::{Deed, Entry, Ledger};
use crate::telemetry::metrics::Metrics;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::api::PartialObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What the installer decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's namespace.
    pub home: String,
    /// Name of this installation in its namespace.
    pub release: String,
    /// Where engines dial: host:port, several for several replicas.
    pub engine_endpoints: Vec<String>,
    /// Image of managed engines.
    pub engine_image: String,
    /// Namespaces that are served.
    pub served: Namespaces,
    /// Most managed engines that one pool may ask for.
    pub max_engines_per_pool: i32,
    /// Between two audits of every server.
    pub audit_every: Duration,
    /// Between two looks at whether something is to be pushed; no tenant's interval is shorter.
    pub sync_period: Duration,
    /// Addresses that secrets are pushed to besides public ones.
    pub sync_allowed: Arc<Allowed>,
    /// Our own pod, where we run in one: it is labelled while we lead, and the Service selects the label.
    pub pod: Option<String>,
    /// Where it is noted what was done with accounts.
    pub ledger: Ledger,
}

/// Caches of the watched kinds. What they show may be old; every effect has its own precondition.
#[derive(Clone)]
pub struct Stores {
    /// Leases.
    pub leases: Store<CredentialLease>,
    /// Which of them belong together.
    pub lease_index: Arc<LeaseIndex>,
    /// Dynamic secrets.
    pub dynamic_secrets: Store<DynamicSecret>,
    /// Pools.
    pub pools: Store<EnginePool>,
    /// Engines.
    pub engines: Store<Engine>,
    /// DSV tenants.
    pub dsv_tenants: Store<DsvTenant>,
    /// Syncs.
    pub secret_syncs: Store<SecretSync>,
    /// Credential Secrets: whose they are.
    pub credentials: Store<SeenCredential>,
    /// Base secrets, metadata only.
    pub bases: Store<PartialObjectMeta<Secret>>,
    /// Whether they are complete.
    pub filled: Filled,
}

/// Ways to wake controllers.
#[derive(Clone)]
pub struct Wakes {
    /// Look at this lease.
    pub leases: UnboundedSender<ObjectRef<CredentialLease>>,
    /// Look at this dynamic secret.
    pub dynamic_secrets: UnboundedSender<ObjectRef<DynamicSecret>>,
    /// Look at this pool.
    pub pools: UnboundedSender<ObjectRef<EnginePool>>,
    /// Look at this engine.
    pub engines: UnboundedSender<ObjectRef<Engine>>,
    /// Look at this DSV tenant.
    pub dsv_tenants: UnboundedSender<ObjectRef<DsvTenant>>,
    /// Look at this sync.
    pub secret_syncs: UnboundedSender<ObjectRef<SecretSync>>,
    /// Watch the Secret that occupies somebody's target.
    pub occupied: UnboundedSender<Waiter>,
}

/// Everything that the controllers of one leadership share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the installer decided.
    pub settings: Settings,
    /// Who we are, and in which term.
    pub me: Maker,
    /// Whether we still lead.
    pub leader: Leader,
    /// Keys and id.
    pub installation: Arc<Installation>,
    /// The engines.
    pub hub: Hub,
    /// Caches.
    pub stores: Stores,
    /// Ways to wake controllers.
    pub wakes: Wakes,
    /// Passwords on their way.
    pub passwords: Passwords,
    /// Passwords for the next ones.
    pub password_stock: PasswordStock,
    /// Server records that were read a moment ago.
    pub recent_records: RecentRecords,
    /// Why we ended leases.
    pub endings: Endings,
    /// Failed attempts to take leases back.
    pub attempts: Attempts,
    /// Backoffs that something made pointless.
    pub nudges: Nudges,
    /// Who waits for a place below a limit of leases.
    pub places: Places,
    /// What dynamic secrets rely on in pools and namespaces.
    pub relied_on: ReliedOn,
    /// What engines reported of servers.
    pub servers: ServerFacts,
    /// Where base secrets lead.
    pub bases: BaseIdentities,
    /// Base secrets that pools found ready.
    pub checked: CheckedBases,
    /// Collects revocations into batches.
    pub revocations: Revocations,
    /// Collects the ends of leases of one dynamic secret into one write.
    pub histories: GroupCommits<Ending>,
    /// Who waits for which server.
    pub crowds: Crowds,
    /// Leases whose accounts are proven gone.
    pub closing: Closing,
    /// Servers that do not answer.
    pub silence: Silence,
    /// What engines guard.
    pub guards: Guards,
    /// Counts.
    pub metrics: Metrics,
    /// In whose name Events are written.
    pub reporter: Reporter,
    /// Events that were written for a state that still lasts: one each, not one a pass.
    pub told: Once<Reason>,
    /// What was noted of leases, by UID: once each, however often a step is repeated.
    pub noted: Once<Deed>,
    /// UIDs of leases whose end was written in this leadership: the cache may not show it yet.
    pub recorded: Mutex<HashSet<String>>,
    /// Versions of credential Secrets whose data was found intact, by lease UID.
    pub intact: Mutex<HashMap<String, String>>,
    /// Counting leases against a limit and making one more is one step.
    pub admission: Admission,
    /// Held for reading from the making of a server record until the lease that needs it is written, and for writing while
    /// one is removed.
    pub keeping: Arc<tokio::sync::RwLock<()>>,
    /// What audits remember.
    pub audit: AuditMemory,
    /// Pushes that are under way.
    pub lanes: Lanes,
    /// Dynamic secrets that will be looked at in a moment.
    pub deferred: DeferredWakes,
    /// What was written into leases a moment ago.
    pub own_writes: OwnWrites,
}

impl Context {
    /// Everything for one leadership; nothing is remembered yet.
    pub fn new(
        client: Client,
        settings: Settings,
        metrics: Metrics,
        (term, leader): (&Term, Leader),
        installation: Arc<Installation>,
        (hub, stores, wakes): (Hub, Stores, Wakes),
    ) -> Self {
        let reporter = Reporter {
            controller: OPERATOR.to_owned(),
            instance: Some(term.holder.clone()),
        };
        Self {
            reporter,
            client,
            settings,
            me: Maker::from(term),
            leader,
            installation,
            hub,
            stores,
            wakes,
            metrics,
            passwords: Passwords::default(),
            password_stock: PasswordStock::default(),
            recent_records: RecentRecords::default(),
            endings: Endings::default(),
            attempts: Attempts::default(),
            nudges: Nudges::default(),
            places: Places::default(),
            relied_on: ReliedOn::default(),
            servers: ServerFacts::default(),
            bases: BaseIdentities::default(),
            checked: CheckedBases::default(),
            revocations: Revocations::default(),
            histories: GroupCommits::default(),
            crowds: Crowds::default(),
            closing: Closing::default(),
            silence: Silence::default(),
            guards: Guards::default(),
            told: Once::default(),
            noted: Once::default(),
            recorded: Mutex::default(),
            intact: Mutex::default(),
            admission: Admission::new(clock::now()),
            keeping: Arc::default(),
            audit: AuditMemory::default(),
            lanes: Lanes::default(),
            deferred: DeferredWakes::default(),
            own_writes: OwnWrites::default(),
        }
    }

    /// The operator's clock.
    pub fn now(&self) -> Timestamp {
        clock::now()
    }

    /// To be asked before each effect: an operator that was stopped for a while and wakes up must not act.
    pub fn still_leading(&self) -> Result<(), Error> {
        self.leader
            .check(self.me.term)
            .map_err(|lost: NotLeading| Error::NotLeading(lost))
    }

    /// Refuses what lies in a namespace that is not served: there the operator may not even read a Secret.
    pub fn serves(&self, namespace: &str) -> Result<(), Hold> {
        if self.settings.served.has(namespace) {
            return Ok(());
        }
        let message = format!(
            "namespace {namespace} is not among those that the operator serves; ask whoever installed it to add it to the \
             chart's watch.namespaces"
        );
        Err(Hold::new(Reason::NotServed, message))
    }

    /// Looks at a lease's dynamic secret again; where it may have thousands of leases, in a moment.
    pub fn wake_owner(&self, lease: &CredentialLease) {
        let namespace = lease.namespace().unwrap_or_default();
        let name = &lease.spec.dynamic_secret;
        if lease.claim().is_some_and(|claim| claim.serial > 0) {
            return self.wake_dynamic_secret(&namespace, name);
        }
        let owner = ObjectRef::new(name).within(&namespace);
        self.deferred.wake(owner, &self.wakes.dynamic_secrets);
    }

    /// Looks at a dynamic secret again.
    pub fn wake_dynamic_secret(&self, namespace: &str, name: &str) {
        // A closed channel means that this leadership is over; the next one looks at everything.
        let _ = self.wakes.dynamic_secrets.send(ObjectRef::new(name).within(namespace));
    }

    /// Looks at a lease again.
    pub fn wake_lease(&self, namespace: &str, name: &str) {
        let _ = self.wakes.leases.send(ObjectRef::new(name).within(namespace));
    }

    /// A target is occupied: whoever waits for it looks again when the Secret there goes.
    pub fn await_place(&self, waiter: Waiter) {
        let _ = self.wakes.occupied.send(waiter);
    }

    /// The dynamic secret of a lease; none where it is gone or another one of the same name. The cache may be old, so what it
    /// does not show is asked for: without an answer nobody would be told of the lease's end.
    pub async fn owner(&self, lease: &CredentialLease) -> Result<Option<DynamicSecret>, Error> {
        let namespace = lease.namespace().unwrap_or_default();
        let name = &lease.spec.dynamic_secret;
        let ours = |found: &DynamicSecret| {
            lease
                .claim()
                .is_none_or(|claim| found.uid().as_deref() == Some(&*claim.dynamic_secret_uid))
        };
        let cached = self
            .stores
            .dynamic_secrets
            .get(&ObjectRef::new(name).within(&namespace));
        if let Some(found) = cached.filter(|found| ours(found)) {
            return Ok(Some(found.as_ref().clone()));
        }
        let live: Option<DynamicSecret> = match objects::read(&self.client, &namespace, name).await {
            // Without the definition there is nobody to tell. Its accounts are taken back all the same.
            Err(error) if error.is_not_served() => None,
            other => other?,
        };
        Ok(live.filter(ours))
    }

    /// UID of the pool whose engines reach a lease's server: the pool that was claimed, or, where that one is gone (restored
    /// from a backup, made anew), the one of its name.
    pub fn pool_uid(&self, claimed: &ClaimedPool) -> String {
        let found = self
            .stores
            .pools
            .get(&ObjectRef::new(&claimed.name).within(&claimed.namespace));
        found.and_then(|pool| pool.uid()).unwrap_or_else(|| claimed.uid.clone())
    }

    /// Writes an Event once per state; `reason` names the state.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, reason: Reason, note: &str, type_: EventType) {
        let uid = object.meta().uid.clone().unwrap_or_default();
        if self.told.is_first(&uid, reason) {
            self.announce(object, reason, note, type_).await;
        }
    }

    /// Writes an Event: this happened just now.
    pub async fn announce<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: Reason,
        note: &str,
        type_: EventType,
    ) {
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(note.chars().take(1024).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let reference: ObjectReference = object.object_ref(&());
        // A recorder of its own for each: one that remembers counts a second Event of the same reason onto the first, and
        // what the second has to say is lost.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        if let Err(error) = recorder.publish(&event, &reference).await {
            tracing::debug!(%error, reason = reason.as_str(), "an Event could not be written");
        }
    }

    /// Notes in the ledger what is done with a lease's account, before that is written anywhere else: after a crash in between
    /// it stands there twice, which is better than not at all.
    pub fn note(&self, lease: &CredentialLease, deed: Deed, account: &str) {
        let uid = lease.uid().unwrap_or_default();
        if self.noted.is_first(&uid, deed) {
            self.settings.ledger.note(&Entry {
                deed,
                namespace: lease.namespace().unwrap_or_default(),
                dynamic_secret: lease.spec.dynamic_secret.clone(),
                lease: lease.name_any(),
                account: account.to_owned(),
            });
        }
    }

    /// Whether the data of the lease's Secret was found intact in this version.
    pub fn intact(&self, uid: &str, version: &str) -> bool {
        self.intact
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .is_some_and(|known| known == version)
    }

    /// The data of the lease's Secret is intact in this version.
    pub fn note_intact(&self, uid: &str, version: &str) {
        self.intact
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned(), version.to_owned());
    }

    /// Whether this leadership wrote the lease's end.
    pub fn recorded(&self, uid: &str) -> bool {
        self.recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(uid)
    }

    /// The lease's end is written.
    pub fn note_recorded(&self, uid: &str) {
        self.recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned());
    }

    /// The states of an object are over: the next one is told again.
    pub fn told_no_more(&self, uid: &str) {
        self.told.forget(uid);
        self.closing.forget(uid);
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.intact.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
