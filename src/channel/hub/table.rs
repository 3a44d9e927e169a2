//! All sessions of a hub, and what is remembered about engines beyond a session.

use super::EngineId;
use super::session::Session;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Takeovers within this time count together.
const WINDOW: Duration = Duration::from_mins(1);
/// This many are no bad network any more, but two processes with one key.
const MANY: usize = 3;

#[derive(Default)]
pub(super) struct Table {
    // A plain mutex: it is held for a few map operations and never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they connected.
    sessions: Vec<Arc<Session>>,
    engines: HashMap<String, Memory>,
}

/// What stays known about an engine when it is gone.
struct Memory {
    engine: EngineId,
    heard: Timestamp,
    takeovers: VecDeque<Instant>,
}

/// What adding a session changed.
pub(super) struct Added {
    /// Older sessions of the same engine, which are to drain.
    pub(super) older: Vec<Arc<Session>>,
    /// The engine just became a duplicated one.
    pub(super) duplicated: bool,
}

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, session: &Arc<Session>) -> Added {
        let mut state = self.state();
        let same = |other: &&Arc<Session>| other.engine.uid == session.engine.uid;
        let older: Vec<_> = state.sessions.iter().filter(same).cloned().collect();
        state.sessions.push(session.clone());
        let memory = state
            .engines
            .entry(session.engine.uid.clone())
            .or_insert_with(|| Memory {
                engine: session.engine.clone(),
                heard: session.last_heard(),
                takeovers: VecDeque::new(),
            });
        // The same process that reconnects over a bad line is no rival of itself.
        let rivals = older
            .iter()
            .any(|old| old.draining().is_none() && old.boot != session.boot);
        let before = memory.is_duplicated();
        if rivals {
            memory.takeovers.push_back(Instant::now());
            while memory.takeovers.len() > MANY {
                memory.takeovers.pop_front();
            }
        }
        Added {
            older,
            duplicated: !before && memory.is_duplicated(),
        }
    }

    /// Takes a session out. True if the engine has no other one that takes tasks.
    pub(super) fn remove(&self, session: &Arc<Session>) -> bool {
        let mut state = self.state();
        state.sessions.retain(|other| !Arc::ptr_eq(other, session));
        if let Some(memory) = state.engines.get_mut(&session.engine.uid) {
            memory.heard = memory.heard.max(session.last_heard());
        }
        !state
            .sessions
            .iter()
            .any(|other| other.engine.uid == session.engine.uid && other.draining().is_none())
    }

    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.state().sessions.clone()
    }

    pub(super) fn of_pool(&self, pool_uid: &str) -> Vec<Arc<Session>> {
        self.state()
            .sessions
            .iter()
            .filter(|session| session.is_of_pool(pool_uid))
            .cloned()
            .collect()
    }

    pub(super) fn takers(&self, pool_uid: &str) -> usize {
        let takes = |session: &&Arc<Session>| session.is_of_pool(pool_uid) && session.draining().is_none();
        self.state().sessions.iter().filter(takes).count()
    }

    /// Oldest first.
    pub(super) fn of_engine(&self, engine_uid: &str) -> Vec<Arc<Session>> {
        self.state()
            .sessions
            .iter()
            .filter(|session| session.engine.uid == engine_uid)
            .cloned()
            .collect()
    }

    pub(super) fn is_duplicated(&self, engine_uid: &str) -> bool {
        self.state().engines.get(engine_uid).is_some_and(Memory::is_duplicated)
    }

    pub(super) fn last_heard(&self, engine_uid: &str) -> Option<Timestamp> {
        let state = self.state();
        let sessions = state.sessions.iter().filter(|session| session.engine.uid == engine_uid);
        let live = sessions.map(|session| session.last_heard()).max();
        live.max(state.engines.get(engine_uid).map(|memory| memory.heard))
    }

    /// Engines that are remembered without being connected.
    pub(super) fn absent(&self, these: impl Fn(&EngineId) -> bool) -> Vec<EngineId> {
        let state = self.state();
        let connected: HashSet<&str> = state
            .sessions
            .iter()
            .map(|session| session.engine.uid.as_str())
            .collect();
        let known = state
            .engines
            .iter()
            .filter(|(uid, _)| !connected.contains(uid.as_str()));
        known
            .map(|(_, memory)| &memory.engine)
            .filter(|engine| these(engine))
            .cloned()
            .collect()
    }

    /// Drops what is remembered about an engine, unless it is connected.
    pub(super) fn forget(&self, engine: &EngineId) {
        let mut state = self.state();
        if !state.sessions.iter().any(|session| session.engine.uid == engine.uid) {
            state.engines.remove(&engine.uid);
        }
    }
}

impl Memory {
    fn is_duplicated(&self) -> bool {
        self.takeovers.iter().filter(|at| at.elapsed() < WINDOW).count() >= MANY
    }
}
