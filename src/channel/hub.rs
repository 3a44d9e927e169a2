//! The operator's end of the channel: accepts engines, keeps their sessions, hands them tasks.
//!
//! The hub decides nothing about accounts and reads no Kubernetes object: who may connect comes from an
//! [`EngineDirectory`], and whether this process leads from a watch. It runs on the leader only; elsewhere it answers 503.

mod accept;
mod metrics;
mod serve;
mod session;
mod table;

pub use metrics::HubMetrics;

use super::Timing;
use super::frames::{CloseCode, Outcome, Task};
use crate::keys::{ChannelCertificate, ChannelKey, EnginePublicKey};
use axum::Router;
use jiff::Timestamp;
use rand::seq::SliceRandom;
use session::{Refused, Reply, Session};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use table::Table;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::Instant;

/// Handshakes at once; each costs a fraction of a millisecond, so a whole fleet is in within seconds.
const MAX_HANDSHAKES: usize = 128;
/// Events that a slow listener may lag behind before it is told that it missed some.
const EVENTS: usize = 1024;

/// What the operator shows to engines.
#[derive(Debug)]
pub struct HubIdentity {
    key: ChannelKey,
    certificate: RwLock<Arc<ChannelCertificate>>,
}

impl HubIdentity {
    /// The process's channel key with its certificate.
    pub fn new(key: ChannelKey, certificate: ChannelCertificate) -> Self {
        Self {
            key,
            certificate: RwLock::new(Arc::new(certificate)),
        }
    }

    /// Public half of the channel key, to be certified.
    pub fn public(&self) -> crate::keys::ChannelPublicKey {
        self.key.public()
    }

    /// Replaces the certificate, for sessions to come. To be done weekly; see [`crate::keys::CERTIFICATE_LIFE`].
    pub fn renew(&self, certificate: ChannelCertificate) {
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
    }

    fn certificate(&self) -> Arc<ChannelCertificate> {
        self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Knows which engines may connect.
pub trait EngineDirectory: Send + Sync + 'static {
    /// The Engine of that namespace and name. Called often, so from memory.
    fn find(&self, namespace: &str, name: &str) -> Option<Registration>;
}

/// An Engine object, as far as the hub cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// UID of the Engine object.
    pub engine_uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// UID of its pool.
    pub pool_uid: String,
    /// Keys that may connect in its name now: the current one, and the previous one until its end.
    pub public_keys: Vec<EnginePublicKey>,
    /// It may not connect.
    pub disabled: bool,
    /// It is on its way out: it only gets tasks that take something back.
    pub revocations_only: bool,
}

/// Which engine did something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EngineId {
    /// UID of the Engine object.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A connected engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Which engine.
    pub engine: EngineId,
    /// UID of its pool.
    pub pool_uid: String,
    /// Name of the session, in both sides' logs.
    pub session: String,
    /// Where it connects from, as far as the outer connection shows.
    pub remote: Option<SocketAddr>,
    /// Since when.
    pub connected_at: Timestamp,
    /// When something was last heard from it.
    pub last_heard: Timestamp,
    /// Version of its program.
    pub version: String,
    /// Random name of its process's start.
    pub boot: String,
    /// Kinds of tasks that it can do.
    pub tasks: Vec<String>,
    /// It gets no new tasks.
    pub draining: bool,
    /// Several processes seem to use this engine's key: they took over from each other three times within a minute.
    pub duplicate_session: bool,
    /// Tasks without an outcome yet.
    pub in_flight: usize,
}

/// Something that may wake a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubEvent {
    /// An engine can take tasks.
    Connected {
        /// Which one.
        engine: EngineId,
        /// UID of its pool.
        pool_uid: String,
    },
    /// An engine is gone, or takes no more tasks, and no newer session of it exists.
    Disconnected {
        /// Which one.
        engine: EngineId,
        /// UID of its pool.
        pool_uid: String,
    },
    /// Two processes fight over one engine's name. Sent when it starts, not on every takeover.
    DuplicateSession {
        /// Which one.
        engine: EngineId,
        /// UID of its pool.
        pool_uid: String,
    },
}

/// What became of a call.
#[allow(clippy::large_enum_variant, reason = "returned once per task, kept nowhere")]
#[derive(Debug, Clone, PartialEq)]
pub enum CallResult {
    /// An engine was asked. [`Outcome::Unknown`] if it did not answer in time or was lost afterwards.
    Answered {
        /// Which engine.
        engine: EngineId,
        /// What it answered.
        outcome: Outcome,
    },
    /// No engine that can do this is connected; nothing was sent.
    NoEngine,
    /// Every engine that can do this has a full queue; nothing was sent.
    Busy,
    /// The task does not fit into a frame; nothing was sent, and the same again fails again.
    TooLarge,
}

/// The operator's end of the channel. Cheap to clone; all clones are one hub.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<HubIdentity>,
    directory: Arc<dyn EngineDirectory>,
    leading: watch::Receiver<bool>,
    timing: Timing,
    table: Table,
    handshakes: Arc<Semaphore>,
    events: broadcast::Sender<HubEvent>,
    metrics: HubMetrics,
}

impl Hub {
    /// A hub without sessions. It accepts engines while `leading` is true, and counts on in `metrics`.
    pub fn new(
        identity: Arc<HubIdentity>,
        directory: Arc<dyn EngineDirectory>,
        leading: watch::Receiver<bool>,
        timing: Timing,
        metrics: HubMetrics,
    ) -> Self {
        let inner = Inner {
            identity,
            directory,
            leading,
            timing,
            table: Table::default(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            events: broadcast::channel(EVENTS).0,
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Serves `GET /v1/engines/connect`.
    pub fn router(&self) -> Router {
        accept::router(self.clone())
    }

    /// What it counts.
    pub fn metrics(&self) -> &HubMetrics {
        &self.inner.metrics
    }

    /// Connections and disconnections from now on. After `Lagged`, look at everything once.
    pub fn events(&self) -> broadcast::Receiver<HubEvent> {
        self.inner.events.subscribe()
    }

    /// Has a random engine of the pool do a task.
    ///
    /// Waits for the outcome as long as `patience` and a moment for the way. A task that was never handed to its engine
    /// goes to another one; one that was is [`Outcome::Unknown`] if the outcome does not come: it may have been done.
    pub async fn call(&self, pool_uid: &str, task: Task, patience: Duration) -> CallResult {
        let mut candidates = self.inner.table.of_pool(pool_uid);
        candidates.retain(|session| session.can(&task));
        candidates.shuffle(&mut rand::rng());
        self.ask(candidates, task, patience).await
    }

    /// Has one certain engine do a task.
    pub async fn call_engine(&self, engine_uid: &str, task: Task, patience: Duration) -> CallResult {
        let mut candidates = self.inner.table.of_engine(engine_uid);
        candidates.retain(|session| session.can(&task));
        self.ask(candidates, task, patience).await
    }

    async fn ask(&self, candidates: Vec<Arc<Session>>, task: Task, patience: Duration) -> CallResult {
        let task = Box::new(task);
        let deadline = Instant::now() + patience + self.inner.timing.grace;
        let mut nothing = CallResult::NoEngine;
        for session in candidates {
            let left = deadline.saturating_duration_since(Instant::now()).min(patience);
            if left.is_zero() {
                break;
            }
            let pending = match session.submit(&task, left) {
                Ok(pending) => pending,
                Err(Refused::Gone) => continue,
                Err(Refused::Full) => {
                    self.inner.metrics.overflows.inc();
                    nothing = CallResult::Busy;
                    continue;
                }
                Err(Refused::TooLarge) => return CallResult::TooLarge,
            };
            match pending.wait(deadline).await {
                Reply::Outcome(outcome) => {
                    return CallResult::Answered {
                        engine: session.engine.clone(),
                        outcome,
                    };
                }
                Reply::NeverSent => nothing = CallResult::Busy,
                Reply::SessionLost => {}
            }
        }
        nothing
    }

    /// Sessions of a pool, draining ones included.
    pub fn connected(&self, pool_uid: &str) -> Vec<SessionInfo> {
        let sessions = self.inner.table.of_pool(pool_uid);
        sessions.iter().map(|session| self.describe(session)).collect()
    }

    /// How many sessions of a pool take tasks: those that drain do not count. With a thousand engines far cheaper than
    /// [`Hub::connected`].
    pub fn takers(&self, pool_uid: &str) -> usize {
        self.inner.table.takers(pool_uid)
    }

    /// An engine's newest session.
    pub fn session(&self, engine_uid: &str) -> Option<SessionInfo> {
        self.inner
            .table
            .of_engine(engine_uid)
            .last()
            .map(|session| self.describe(session))
    }

    fn describe(&self, session: &Session) -> SessionInfo {
        session.describe(self.inner.table.is_duplicated(&session.engine.uid))
    }

    /// When something was last heard from an engine in this process's life, connected or not.
    pub fn last_heard(&self, engine_uid: &str) -> Option<Timestamp> {
        self.inner.table.last_heard(engine_uid)
    }

    /// Compares every session with the directory: ends those of engines that are disabled, gone or have another key, and
    /// takes over changed pools and limits. To be called when an EnginePool object changes; sessions also check themselves.
    pub fn recheck(&self) {
        self.recheck_those(|_| true);
    }

    /// The same for one engine, when its object changes. A key costs a multiplication on the curve each time it is read, and a
    /// thousand engines write a heartbeat now and then.
    pub fn recheck_engine(&self, namespace: &str, name: &str) {
        self.recheck_those(|engine| engine.name == name && engine.namespace == namespace);
    }

    fn recheck_those(&self, these: impl Fn(&EngineId) -> bool) {
        for session in self.inner.table.all() {
            if these(&session.engine) {
                self.recheck_session(&session);
            }
        }
        for engine in self.inner.table.absent(&these) {
            let found = self.inner.directory.find(&engine.namespace, &engine.name);
            if found.is_none_or(|found| found.engine_uid != engine.uid) {
                self.inner.table.forget(&engine);
            }
        }
    }

    fn recheck_session(&self, session: &Session) {
        match accept::admit(
            &*self.inner.directory,
            &session.key,
            &session.engine.namespace,
            &session.engine.name,
        ) {
            Ok(found) if found.engine_uid == session.engine.uid => {
                if session.update(found) {
                    self.tell(HubEvent::Connected {
                        engine: session.engine.clone(),
                        pool_uid: session.pool_uid(),
                    });
                }
            }
            Ok(_) => session.end(CloseCode::Disabled, "this Engine was deleted and made anew; reconnect"),
            Err(refusal) => session.end(refusal.code, &refusal.reason),
        }
    }

    /// Ends every session, as when leadership is lost. Outcomes that are still out become [`Outcome::Unknown`].
    pub fn close_all(&self, code: CloseCode) {
        let reason = match code {
            CloseCode::NotLeading => "another replica of the operator leads now; reconnect",
            CloseCode::Stopping => "the operator stops; reconnect",
            _ => "the operator ends all sessions; reconnect",
        };
        for session in self.inner.table.all() {
            session.end(code, reason);
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({} sessions)", self.inner.table.all().len())
    }
}
