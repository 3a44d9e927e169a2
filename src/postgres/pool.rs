//! The kept sessions of one login on one server, and what is remembered about that server.

use super::barrier::Unfinished;
use super::connect::{Place, Session, TextRows};
use super::failure::{Trouble, failure};
use super::group::Ensured;
use super::pace::{self, Change, Pace};
use super::revoke::Joint;
use super::tls;
use crate::channel::frames::{Failure, FailureClass, ServerLogin};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Most sessions in the maintenance database, per login, for everything but issuing, which has its own ([`pace`]): neither
/// waits for the other.
const SESSIONS: usize = 4;
/// A session is replaced after this long, so that a failover behind a stable name, or a role setting, is noticed.
const MAX_AGE: Duration = Duration::from_mins(10);
/// A session that was idle this long is asked whether it still lives; a firewall may have forgotten it silently.
const DOUBTFUL: Duration = Duration::from_secs(15);
/// How long that question may take.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(2);

/// One login on one server.
pub(super) struct Server {
    pub(super) login: ServerLogin,
    tls: OnceLock<Option<MakeRustlsConnect>>,
    sessions: Arc<Semaphore>,
    issues: Arc<Semaphore>,
    pace: Mutex<Pace>,
    idle: Mutex<Vec<Idle>>,
    used: Mutex<Instant>,
    /// Sessions opened before are not kept: what they found out is over.
    renewed: Mutex<Instant>,
    /// Which of several hosts was writable last.
    writable: AtomicUsize,
    /// Group roles that were seen to carry their grants.
    pub(super) groups: Mutex<HashMap<String, Ensured>>,
    /// One at a time brings groups into being: ten issues of a new group need one group.
    pub(super) grouping: tokio::sync::Mutex<()>,
    /// Revocations of several tasks that are done as one.
    pub(super) joint: Joint,
    /// Barriers that ran out of time, by role OID.
    pub(super) unfinished: Mutex<HashMap<u32, Unfinished>>,
    /// Since when a standby could not be looked at.
    pub(super) standbys_in_trouble: Mutex<HashMap<String, Instant>>,
}

struct Idle {
    session: Session,
    since: Instant,
}

/// Takes a lock that guards plain data: what a panicking holder left is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(super) fn new(login: ServerLogin) -> Self {
        Self {
            login,
            tls: OnceLock::new(),
            sessions: Arc::new(Semaphore::new(SESSIONS)),
            issues: Arc::new(Semaphore::new(pace::LEAST)),
            pace: Mutex::default(),
            idle: Mutex::default(),
            used: Mutex::new(Instant::now()),
            renewed: Mutex::new(Instant::now()),
            writable: AtomicUsize::new(0),
            groups: Mutex::default(),
            grouping: tokio::sync::Mutex::default(),
            joint: Joint::default(),
            unfinished: Mutex::default(),
            standbys_in_trouble: Mutex::default(),
        }
    }

    pub(super) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    /// When a task last used this login.
    pub(super) fn used_at(&self) -> Instant {
        *lock(&self.used)
    }

    /// Makes it seem last used at that time.
    pub(super) fn set_used_at(&self, at: Instant) {
        *lock(&self.used) = at;
    }

    /// Closes sessions that were idle for longer, and says whether the login itself was.
    pub(super) fn is_idle(&self, older_than: Duration) -> bool {
        lock(&self.idle).retain(|idle| idle.since.elapsed() < older_than && !idle.session.is_closed());
        let issuing = self.issues.available_permits() < lock(&self.pace).width();
        lock(&self.used).elapsed() >= older_than && !issuing && self.sessions.available_permits() == SESSIONS
    }

    /// No session that is open by now is used for another task.
    pub(super) fn renew_sessions(&self) {
        *lock(&self.renewed) = Instant::now();
    }

    /// Waits until one more CREATE ROLE may run, and gives a session for it.
    pub(super) async fn issue_session(&self, until: Instant) -> Result<Checkout<'_>, Failure> {
        self.checkout(&self.issues, until).await
    }

    /// A session in the maintenance database, kept or new, for anything else.
    pub(super) async fn session(&self, until: Instant) -> Result<Checkout<'_>, Failure> {
        self.checkout(&self.sessions, until).await
    }

    async fn checkout(&self, places: &Arc<Semaphore>, until: Instant) -> Result<Checkout<'_>, Failure> {
        self.touch();
        let waited = tokio::time::timeout_at(until.into(), Arc::clone(places).acquire_owned()).await;
        let permit = waited.ok().and_then(Result::ok).ok_or_else(|| self.crowded())?;
        let session = if let Some(session) = self.kept().await {
            session
        } else {
            let opened = tokio::time::timeout_at(until.into(), self.open(&self.login.database)).await;
            opened.unwrap_or_else(|_| Err(self.slow()))?
        };
        Ok(Checkout {
            server: self,
            session,
            permit,
        })
    }

    async fn kept(&self) -> Option<Session> {
        loop {
            let idle = lock(&self.idle).pop()?;
            let opened = idle.session.opened;
            if idle.session.is_closed() || opened.elapsed() > MAX_AGE || opened < *lock(&self.renewed) {
                continue;
            }
            if idle.since.elapsed() < DOUBTFUL {
                return Some(idle.session);
            }
            let asked =
                tokio::time::timeout(DOUBT_TIMEOUT, idle.session.text("ask whether the session lives", "")).await;
            if matches!(asked, Ok(Ok(_))) {
                return Some(idle.session);
            }
        }
    }

    /// A new session in any database of the server, on its writable host.
    pub(super) async fn open(&self, database: &str) -> Result<Session, Failure> {
        let tls = self.tls()?;
        let places = self.places()?;
        let first = self.writable.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for turn in 0..places.len() {
            let at = (first + turn) % places.len();
            let Some(place) = places.get(at) else { continue };
            match Session::open(&self.login, tls, place, database).await {
                Ok(session) => {
                    self.writable.store(at, Ordering::Relaxed);
                    return Ok(session);
                }
                Err(failure) => failures.push(failure),
            }
        }
        Err(worst(failures))
    }

    fn places(&self) -> Result<Vec<Place>, Failure> {
        let addresses = self.login.addresses();
        if addresses.is_empty() || addresses.iter().any(|(host, _)| host.starts_with('/')) {
            let record = &self.login.record;
            return Err(failure(
                FailureClass::BadTask,
                format!("server {record}: host must be a name or an address; correct the base secret"),
            ));
        }
        let place = |(host, port)| Place { host, port };
        Ok(addresses.into_iter().map(place).collect())
    }

    /// The hosts beside the writable one.
    pub(super) fn others(&self) -> Result<Vec<Place>, Failure> {
        let mut places = self.places()?;
        let writable = self.writable.load(Ordering::Relaxed);
        if writable < places.len() {
            places.remove(writable);
        }
        Ok(places)
    }

    pub(super) fn tls(&self) -> Result<Option<&MakeRustlsConnect>, Failure> {
        if let Some(made) = self.tls.get() {
            return Ok(made.as_ref());
        }
        let made = tls::connector(&self.login)?;
        Ok(self.tls.get_or_init(|| made).as_ref())
    }

    fn slow(&self) -> Failure {
        let (record, host) = (&self.login.record, &self.login.host);
        failure(
            FailureClass::Unreachable,
            format!("server {record} at {host} did not let us in in time; check host, port and network policy"),
        )
    }

    pub(super) fn crowded(&self) -> Failure {
        let record = &self.login.record;
        failure(
            FailureClass::Busy,
            format!("no session with server {record} came free in time; it is tried again"),
        )
    }
}

/// Of the failures of several hosts: a standby is only to blame if every host is one.
fn worst(mut failures: Vec<Failure>) -> Failure {
    let all: Vec<String> = failures.iter().map(|failure| failure.message.clone()).collect();
    let at = failures
        .iter()
        .position(|failure| failure.class != FailureClass::ReadOnly)
        .unwrap_or(0);
    let mut told = failures.swap_remove(at);
    told.message = all.join("; ");
    told
}

/// A session on loan. Unless it is given back, it ends: one with a half-read answer or an open transaction is never reused.
pub(super) struct Checkout<'a> {
    server: &'a Server,
    session: Session,
    permit: OwnedSemaphorePermit,
}

impl Checkout<'_> {
    /// Runs SQL as [`Session::text`], and gives up when the time is over. The statement itself may go on.
    pub(super) async fn text_until(&self, until: Instant, doing: &str, sql: &str) -> Result<TextRows, Trouble> {
        let answered = tokio::time::timeout_at(until.into(), self.session.text(doing, sql)).await;
        answered.unwrap_or_else(|_| {
            Err(Trouble::Lost(format!(
                "to {doing} was sent, but no answer came in time"
            )))
        })
    }

    /// Gives the session back for the next task.
    pub(super) fn keep(self) {
        if !self.session.is_closed() {
            lock(&self.server.idle).push(Idle {
                session: self.session,
                since: Instant::now(),
            });
        }
    }

    /// As [`Checkout::keep`], for one from [`Server::issue_session`] on which an account was made in that time.
    pub(super) fn keep_issued(mut self, took: Duration) {
        let server = self.server;
        let pressed = server.issues.available_permits() == 0;
        match lock(&server.pace).note(took, pressed) {
            Change::Wider => server.issues.add_permits(1),
            Change::Narrower => {
                if let Some(one) = self.permit.split(1) {
                    one.forget();
                }
            }
            Change::Same => {}
        }
        self.keep();
    }
}

impl Deref for Checkout<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}
