//! Servers that do not answer. A pass that waits for one holds a place that others need, and with thousands of leases on a
//! dead server there would be no place left. So once a server was silent twice in a row, nobody is sent there any more but
//! one who looks every few seconds; everybody else is told at once, and woken when it answers again.
//!
//! What is done with a server is not decided here.

use super::context::Context;
use super::hold::Hold;
use super::tasks::ask;
use super::{servers, watches};
use crate::channel::frames::Task;
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Attempts in a row without an answer that make a server silent. One may be the engine's own trouble.
const SILENT: u32 = 2;
/// Between two looks at servers that are silent.
const LOOK: Duration = Duration::from_secs(2);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Silent servers that are looked at together.
const LOOKS_AT_ONCE: usize = 16;

/// Pool and server record: one pool's engines may reach what another's do not.
type Key = (String, String);

/// What is known of servers that did not answer. Those that do are not in it.
#[derive(Default)]
pub struct Silence {
    unanswered: Mutex<HashMap<Key, (u32, Hold)>>,
    began: Notify,
}

impl Silence {
    fn locked(&self) -> MutexGuard<'_, HashMap<Key, (u32, Hold)>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last attempt found, if the server is silent.
    fn of(&self, pool_uid: &str, record: &str) -> Option<Hold> {
        let unanswered = self.locked();
        // Nearly always: without copying the names.
        if unanswered.is_empty() {
            return None;
        }
        let (times, hold) = unanswered.get(&(pool_uid.to_owned(), record.to_owned()))?;
        (*times >= SILENT).then(|| hold.clone())
    }

    /// An attempt had no answer from the server.
    pub fn unanswered(&self, pool_uid: &str, record: &str, hold: Hold) {
        let mut unanswered = self.locked();
        let known = unanswered
            .entry((pool_uid.to_owned(), record.to_owned()))
            .or_insert((0, hold.clone()));
        *known = (known.0.saturating_add(1), hold);
        if known.0 == SILENT {
            tracing::warn!(record, reason = %known.1.message, "a server is silent; it is looked at every few seconds");
            self.began.notify_one();
        }
    }

    /// The server answered, whatever it said. True if it was silent before.
    pub fn answered(&self, pool_uid: &str, record: &str) -> bool {
        let mut unanswered = self.locked();
        if unanswered.is_empty() {
            return false;
        }
        let known = unanswered.remove(&(pool_uid.to_owned(), record.to_owned()));
        known.is_some_and(|(times, _)| times >= SILENT)
    }

    fn silent(&self) -> Vec<Key> {
        let unanswered = self.locked();
        let silent = unanswered.iter().filter(|(_, (times, _))| *times >= SILENT);
        silent.map(|(key, _)| key.clone()).collect()
    }
}

/// Why nobody is sent to this server now. Without an engine it is not the server that people should look at.
pub fn hold(ctx: &Context, pool_uid: &str, record: &str) -> Option<Hold> {
    let hold = ctx.silence.of(pool_uid, record)?;
    (ctx.hub.takers(pool_uid) > 0).then_some(hold)
}

/// Looks at silent servers until this is dropped.
pub async fn watch(ctx: Arc<Context>) {
    loop {
        let silent = ctx.silence.silent();
        if silent.is_empty() {
            ctx.silence.began.notified().await;
        }
        tokio::time::sleep(LOOK).await;
        futures::stream::iter(silent)
            .for_each_concurrent(LOOKS_AT_ONCE, |(pool, record)| look(&ctx, pool, record))
            .await;
    }
}

/// Asking notes the answer itself. A server whose record is gone is nobody's any more.
async fn look(ctx: &Context, pool_uid: String, record: String) {
    // Without an engine nobody can look, and a pool that is gone never has one again: the API server is not asked for it.
    if hold(ctx, &pool_uid, &record).is_none() {
        return;
    }
    match servers::record(ctx, &record).await {
        Ok(Some(found)) => {
            let task = Task::Probe { server: found.login };
            let _ = ask(ctx, &pool_uid, &record, task, PATIENCE).await;
        }
        Ok(None) => over(ctx, &pool_uid, &record),
        Err(error) => tracing::debug!(record, %error, "the record of a silent server could not be read"),
    }
}

/// A server answered: whatever waits for its pool goes on at once.
pub fn over(ctx: &Context, pool_uid: &str, record: &str) {
    if ctx.silence.answered(pool_uid, record) {
        tracing::info!(record, "a silent server answers again");
        watches::engine_connected(ctx, pool_uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;

    fn hold(message: &str) -> Hold {
        Hold::new(Reason::DatabaseUnreachable, message)
    }

    #[test]
    fn a_server_is_silent_after_two_attempts_in_a_row() {
        let silence = Silence::default();
        silence.unanswered("pool", "server", hold("first"));
        assert!(silence.of("pool", "server").is_none());
        assert!(!silence.answered("pool", "server"), "it was not silent yet");
        silence.unanswered("pool", "server", hold("again"));
        assert!(silence.of("pool", "server").is_none(), "it answered in between");
        silence.unanswered("pool", "server", hold("last"));
        assert_eq!(
            silence.of("pool", "server").map(|hold| hold.message),
            Some("last".to_owned())
        );
        assert!(silence.of("pool", "another").is_none());
        assert!(silence.of("another", "server").is_none());
        assert_eq!(silence.silent(), [("pool".to_owned(), "server".to_owned())]);
        assert!(silence.answered("pool", "server"));
        assert!(silence.of("pool", "server").is_none());
    }
}
