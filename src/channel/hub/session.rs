//! One engine's session as its callers see it: what it can do, which tasks are out, whether it still takes more.

use super::{EngineId, Registration, SessionInfo};
use crate::channel::frames::{CloseCode, MAX_FRAME, Outcome, Task, ToEngine};
use crate::channel::wire;
use crate::channel::{MAX_QUEUED, MAX_RUNNING};
use crate::clock;
use crate::keys::EnginePublicKey;
use jiff::Timestamp;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Tasks that may be out at once: those that the engine works on and those that wait there.
const MAX_OUT: usize = MAX_RUNNING + MAX_QUEUED;
/// Pongs, a welcome and a drain: more in a row than fit here can only be a peer that floods us with pings.
const CONTROL: usize = 16;

/// A task on its way to the writer.
pub(super) struct Queued {
    pub(super) id: u64,
    pub(super) text: Zeroizing<Vec<u8>>,
}

/// The writer's ends of a session's queues.
pub(super) struct Outbox {
    pub(super) tasks: mpsc::Receiver<Queued>,
    pub(super) control: mpsc::Receiver<ToEngine>,
    pub(super) ending: watch::Receiver<Option<(CloseCode, String)>>,
}

/// What an engine said about itself in its hello, and what surrounds it.
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) key: EnginePublicKey,
    pub(super) registration: Registration,
    pub(super) remote: Option<SocketAddr>,
    pub(super) boot: String,
    pub(super) version: String,
    pub(super) tasks: Vec<String>,
}

/// One engine's session.
pub(super) struct Session {
    pub(super) name: String,
    pub(super) engine: EngineId,
    pub(super) key: EnginePublicKey,
    pub(super) boot: String,
    version: String,
    tasks: Vec<String>,
    remote: Option<SocketAddr>,
    connected_at: Timestamp,
    queue: mpsc::Sender<Queued>,
    control: mpsc::Sender<ToEngine>,
    ending: watch::Sender<Option<(CloseCode, String)>>,
    /// Woken when the last task of a draining session is answered.
    pub(super) settled: Notify,
    // A plain mutex: it is held for a few map operations and never across an await.
    state: Mutex<State>,
}

struct State {
    open: bool,
    registration: Registration,
    draining: Option<Draining>,
    out: HashMap<u64, Out>,
    next_id: u64,
    heard: (Instant, Timestamp),
}

#[derive(Clone)]
pub(super) struct Draining {
    pub(super) until: Instant,
    pub(super) code: CloseCode,
    pub(super) reason: String,
}

struct Out {
    answer: oneshot::Sender<Outcome>,
    /// The writer began to send it, so the engine may have it.
    handed: bool,
}

/// Why a session does not take a task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Gone,
    Full,
    TooLarge,
}

/// How a wait for an outcome ended.
pub(super) enum Reply {
    Outcome(Outcome),
    /// The patience was over while the task still waited here.
    NeverSent,
    /// The session ended before the task was sent.
    SessionLost,
}

impl Session {
    pub(super) fn open(opening: Opening) -> (Arc<Self>, Outbox) {
        let (queue, tasks) = mpsc::channel(MAX_OUT);
        let (control, control_out) = mpsc::channel(CONTROL);
        let (ending, ending_seen) = watch::channel(None);
        let registration = opening.registration;
        let engine = EngineId {
            uid: registration.engine_uid.clone(),
            namespace: registration.namespace.clone(),
            name: registration.name.clone(),
        };
        let now = clock::now();
        let state = State {
            open: true,
            registration,
            draining: None,
            out: HashMap::new(),
            next_id: 1,
            heard: (Instant::now(), now),
        };
        let session = Self {
            name: opening.name,
            engine,
            key: opening.key,
            boot: opening.boot,
            version: opening.version,
            tasks: opening.tasks,
            remote: opening.remote,
            connected_at: now,
            queue,
            control,
            ending,
            settled: Notify::new(),
            state: Mutex::new(state),
        };
        (
            Arc::new(session),
            Outbox {
                tasks,
                control: control_out,
                ending: ending_seen,
            },
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pool_uid(&self) -> String {
        self.state().registration.pool_uid.clone()
    }

    pub(super) fn is_of_pool(&self, pool_uid: &str) -> bool {
        self.state().registration.pool_uid == pool_uid
    }

    /// Whether this session takes a task of that kind now.
    pub(super) fn can(&self, task: &Task) -> bool {
        let takes_back = matches!(
            task,
            Task::Echo
                | Task::Revoke { .. }
                | Task::DropGroup { .. }
                | Task::Inventory { .. }
                | Task::Sessions { .. }
                | Task::Guard { .. }
                | Task::Forget { .. }
        );
        let state = self.state();
        state.open
            && state.draining.is_none()
            && (takes_back || !state.registration.revocations_only)
            && self.tasks.iter().any(|kind| kind == task.kind())
    }

    /// Queues a task for the engine.
    pub(super) fn submit(self: &Arc<Self>, task: &Task, patience: Duration) -> Result<Pending, Refused> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut state = self.state();
            if !state.open || state.draining.is_some() {
                return Err(Refused::Gone);
            }
            if state.out.len() >= MAX_OUT {
                return Err(Refused::Full);
            }
            let id = state.next_id;
            state.next_id += 1;
            state.out.insert(id, Out { answer, handed: false });
            id
        };
        // From here on the guard takes the task off the books, whichever way this ends.
        let pending = Pending {
            session: self.clone(),
            id,
            answered,
        };
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let frame = ToEngine::Task {
            id,
            patience_ms,
            task: Box::new(task.clone()),
        };
        let text = wire::encode(&frame).map_err(|_| Refused::TooLarge)?;
        if text.len() > MAX_FRAME {
            return Err(Refused::TooLarge);
        }
        match self.queue.try_send(Queued { id, text }) {
            Ok(()) => Ok(pending),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refused::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refused::Gone),
        }
    }

    /// The writer asks right before sending: false if nobody waits for it any more. True commits: it counts as sent.
    pub(super) fn hand(&self, id: u64) -> bool {
        self.state().out.get_mut(&id).map(|out| out.handed = true).is_some()
    }

    /// An outcome came. False if nobody waits for it (any more).
    pub(super) fn resolve(&self, id: u64, outcome: Outcome) -> bool {
        let out = {
            let mut state = self.state();
            // An outcome of a task that was never sent is nobody's.
            if !state.out.get(&id).is_some_and(|out| out.handed) {
                return false;
            }
            state.out.remove(&id)
        };
        self.settled.notify_one();
        out.is_some_and(|out| out.answer.send(outcome).is_ok())
    }

    fn withdraw(&self, id: u64) -> bool {
        let out = self.state().out.remove(&id);
        self.settled.notify_one();
        out.is_some_and(|out| out.handed)
    }

    /// No new tasks. Tasks that were not sent yet go back to their callers, who try another session.
    pub(super) fn drain(&self, draining: Draining) {
        let frame = ToEngine::Drain {
            reason: draining.reason.clone(),
        };
        {
            let mut state = self.state();
            if !state.open || state.draining.is_some() {
                return;
            }
            state.draining = Some(draining);
            state.out.retain(|_, out| out.handed);
        }
        let _ = self.control.try_send(frame);
        self.settled.notify_one();
    }

    pub(super) fn draining(&self) -> Option<Draining> {
        self.state().draining.clone()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state().out.is_empty()
    }

    /// Queues a frame that is not a task; a flood of them is cut off.
    pub(super) fn say(&self, frame: ToEngine) {
        let _ = self.control.try_send(frame);
    }

    /// Ends the session from outside. The first reason stays.
    pub(super) fn end(&self, code: CloseCode, reason: &str) {
        self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            if first {
                *ending = Some((code, reason.to_owned()));
            }
            first
        });
    }

    /// The session is over: whoever waits learns what is known about his task.
    pub(super) fn finish(&self, why: &str) {
        let out = {
            let mut state = self.state();
            state.open = false;
            std::mem::take(&mut state.out)
        };
        for (_, task) in out {
            if task.handed {
                let message = format!("the connection to the engine was lost while it worked on this: {why}");
                let _ = task.answer.send(Outcome::Unknown { message });
            }
        }
    }

    pub(super) fn heard_now(&self) {
        self.state().heard = (Instant::now(), clock::now());
    }

    pub(super) fn heard_at(&self) -> Instant {
        self.state().heard.0
    }

    pub(super) fn last_heard(&self) -> Timestamp {
        self.state().heard.1
    }

    /// Takes over what changed in the Engine object. True if it serves another pool now, such as one that was deleted and
    /// made anew under the same name.
    pub(super) fn update(&self, registration: Registration) -> bool {
        let mut state = self.state();
        let moved = state.registration.pool_uid != registration.pool_uid;
        state.registration = registration;
        moved
    }

    pub(super) fn describe(&self, duplicate_session: bool) -> SessionInfo {
        let state = self.state();
        SessionInfo {
            engine: self.engine.clone(),
            pool_uid: state.registration.pool_uid.clone(),
            session: self.name.clone(),
            remote: self.remote,
            connected_at: self.connected_at,
            last_heard: state.heard.1,
            version: self.version.clone(),
            boot: self.boot.clone(),
            tasks: self.tasks.clone(),
            draining: state.draining.is_some(),
            duplicate_session,
            in_flight: state.out.len(),
        }
    }
}

/// A task that waits for its outcome. Dropping it takes the task off the books; an outcome that comes later is ignored.
pub(super) struct Pending {
    session: Arc<Session>,
    id: u64,
    answered: oneshot::Receiver<Outcome>,
}

impl Pending {
    pub(super) async fn wait(mut self, deadline: Instant) -> Reply {
        match tokio::time::timeout_at(deadline, &mut self.answered).await {
            Ok(Ok(outcome)) => Reply::Outcome(outcome),
            Ok(Err(_)) => Reply::SessionLost,
            Err(_) if self.session.withdraw(self.id) => Reply::Outcome(Outcome::Unknown {
                message: "the engine did not answer in time; it may still be working on this".to_owned(),
            }),
            // The outcome, or the end of the session, may have come between the timeout and the withdrawal.
            Err(_) => self.answered.try_recv().map_or(Reply::NeverSent, Reply::Outcome),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.session.withdraw(self.id);
    }
}

#[cfg(test)]
mod tests;
