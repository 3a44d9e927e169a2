//! The life of a session: reads, writes and watches until one of them ends it, then says why and cleans up.

use super::session::{Draining, Outbox, Session};
use super::{Hub, HubEvent};
use crate::channel::Timing;
use crate::channel::frames::{CloseCode, Outcome, ToEngine, ToOperator};
use crate::channel::noise::NoiseError;
use crate::channel::wire::{FrameReader, FrameWriter, WireError};
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// A session compares itself with the directory each time this many pings could have come, in case nobody calls
/// [`Hub::recheck`].
const RECHECK_EVERY: u32 = 7;

/// How a session ended.
struct End {
    code: CloseCode,
    reason: String,
    /// The other side can still be told.
    told: bool,
}

impl End {
    fn say(code: CloseCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            told: true,
        }
    }

    fn of(error: &WireError) -> Self {
        let (code, told) = match error {
            WireError::Closed(_) | WireError::Broken(_) => (CloseCode::Other, false),
            WireError::Stalled => (CloseCode::Silent, false),
            WireError::TooLarge
            | WireError::Garbage(_)
            | WireError::Text
            | WireError::Json(_)
            | WireError::Noise(NoiseError::Frame | NoiseError::TooLarge { .. }) => (CloseCode::BadFrame, true),
            WireError::Noise(_) => (CloseCode::Other, true),
        };
        Self {
            code,
            reason: error.to_string(),
            told,
        }
    }
}

impl Hub {
    pub(super) async fn serve(
        &self,
        session: Arc<Session>,
        outbox: Outbox,
        mut writer: FrameWriter,
        mut reader: FrameReader,
    ) {
        self.register(&session);
        let ending = outbox.ending.clone();
        let end = tokio::select! {
            end = read(&session, &mut reader, self.inner.timing) => end,
            end = write(&session, &mut writer, outbox, self.inner.timing) => end,
            end = self.watch(&session, ending) => end,
        };
        session.finish(&end.reason);
        self.unregister(&session, &end);
        if end.told {
            part(writer, reader, end.code, end.reason).await;
        }
    }

    fn register(&self, session: &Arc<Session>) {
        let added = self.inner.table.add(session);
        let until = Instant::now() + self.inner.timing.drain;
        for old in &added.older {
            let reason = "a newer session of this engine took over".to_owned();
            old.drain(Draining {
                until,
                code: CloseCode::Replaced,
                reason,
            });
            self.inner.metrics.takeovers.inc();
        }
        let (engine, pool_uid) = (session.engine.clone(), session.pool_uid());
        tracing::info!(
            namespace = engine.namespace,
            engine = engine.name,
            session = session.name,
            replaced = added.older.len(),
            "an engine connected"
        );
        if added.duplicated {
            tracing::warn!(
                namespace = engine.namespace,
                engine = engine.name,
                "several processes use this engine's key; give each engine its own Engine object and key"
            );
            self.tell(HubEvent::DuplicateSession {
                engine: engine.clone(),
                pool_uid: pool_uid.clone(),
            });
        }
        self.tell(HubEvent::Connected { engine, pool_uid });
        // Leadership may have gone, or the Engine changed, between the handshake and the registration.
        if !*self.inner.leading.borrow() {
            session.end(
                CloseCode::NotLeading,
                "another replica of the operator leads now; reconnect",
            );
        }
        self.recheck_session(session);
    }

    fn unregister(&self, session: &Arc<Session>, end: &End) {
        let last = self.inner.table.remove(session);
        let engine = session.engine.clone();
        tracing::info!(
            namespace = engine.namespace,
            engine = engine.name,
            session = session.name,
            code = ?end.code,
            reason = end.reason,
            "an engine's session ended"
        );
        if last {
            self.tell(HubEvent::Disconnected {
                engine,
                pool_uid: session.pool_uid(),
            });
        }
    }

    pub(super) fn tell(&self, event: HubEvent) {
        // Without a listener there is nobody to tell.
        let _ = self.inner.events.send(event);
    }

    async fn watch(&self, session: &Session, mut ending: watch::Receiver<Option<(CloseCode, String)>>) -> End {
        let timing = self.inner.timing;
        let mut recheck = interval(timing.ping * RECHECK_EVERY);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(draining) = session.draining()
                && (session.is_idle() || draining.until <= Instant::now())
            {
                return End::say(draining.code, draining.reason);
            }
            let silent = session.heard_at() + timing.silence;
            if silent <= Instant::now() {
                return End::say(CloseCode::Silent, "nothing was heard from the engine for too long");
            }
            let until = session.draining().map_or(silent, |draining| draining.until.min(silent));
            tokio::select! {
                ended = ending.wait_for(Option::is_some) => {
                    let said = ended.ok().and_then(|said| said.clone());
                    let (code, reason) = said.unwrap_or((CloseCode::Stopping, "the operator stops".to_owned()));
                    return End::say(code, reason);
                }
                () = session.settled.notified() => {}
                () = sleep_until(until) => {}
                _ = recheck.tick() => self.recheck_session(session),
            }
        }
    }
}

/// Says goodbye and lets the other side read it: closing a socket with unread data would destroy what is still on its way.
pub(super) async fn part(writer: FrameWriter, mut reader: FrameReader, code: CloseCode, reason: String) {
    let last = ToEngine::Close {
        code,
        reason: reason.clone(),
    };
    writer.close(&last, &reason).await;
    reader.drain().await;
}

async fn read(session: &Session, reader: &mut FrameReader, timing: Timing) -> End {
    loop {
        let text = match reader.next().await {
            Ok(text) => text,
            Err(error) => return End::of(&error),
        };
        session.heard_now();
        match serde_json::from_slice::<ToOperator>(&text) {
            Ok(frame) => {
                if let Some(end) = take(session, frame, timing) {
                    return end;
                }
            }
            Err(error) => {
                // A newer engine may answer in a way that we cannot read; that is one task's trouble, not the session's.
                let Ok(OutcomeOf { id, .. }) = serde_json::from_slice(&text) else {
                    return End::of(&WireError::Json(error));
                };
                let message =
                    "the engine's answer could not be read; are operator and engine of one version?".to_owned();
                tracing::warn!(engine = session.engine.name, session = session.name, id, "{message}");
                session.resolve(id, Outcome::Unknown { message });
            }
        }
    }
}

/// The part of an outcome frame that every version has.
#[derive(Deserialize)]
struct OutcomeOf {
    #[serde(rename = "type")]
    _type: OutcomeType,
    id: u64,
}

#[derive(Deserialize)]
enum OutcomeType {
    #[serde(rename = "outcome")]
    Outcome,
}

fn take(session: &Session, frame: ToOperator, timing: Timing) -> Option<End> {
    match frame {
        ToOperator::Outcome { id, outcome } => {
            if !session.resolve(id, outcome) {
                tracing::debug!(session = session.name, id, "an outcome came that nobody waits for");
            }
        }
        ToOperator::Ping { n } => session.say(ToEngine::Pong { n }),
        ToOperator::Leaving { reason } => {
            tracing::info!(
                engine = session.engine.name,
                session = session.name,
                reason,
                "an engine is leaving"
            );
            // The engine ends the session when it is done; the silence limit ends it if it does not.
            let until = Instant::now() + timing.drain;
            session.drain(Draining {
                until,
                code: CloseCode::Stopping,
                reason: "the engine stopped".to_owned(),
            });
        }
        ToOperator::Hello { .. } => return Some(End::say(CloseCode::BadFrame, "a second hello came")),
        ToOperator::Pong { .. } | ToOperator::Unknown => {}
    }
    None
}

async fn write(session: &Session, writer: &mut FrameWriter, mut outbox: Outbox, timing: Timing) -> End {
    // An engine pings by itself. Only one of which nothing was heard for longer is asked: with a thousand engines the
    // operator would otherwise do nothing but greet.
    let quiet = timing.silence * 2 / 3;
    let mut asked = Instant::now();
    let mut n = 0;
    loop {
        let due = session.heard_at().max(asked) + quiet;
        let sent = tokio::select! {
            biased;
            Some(frame) = outbox.control.recv() => writer.send(&frame).await,
            () = sleep_until(due) => {
                if due < session.heard_at() + quiet {
                    continue;
                }
                (n, asked) = (n + 1, Instant::now());
                writer.send(&ToEngine::Ping { n }).await
            }
            Some(task) = outbox.tasks.recv() => {
                if !session.hand(task.id) {
                    continue;
                }
                writer.send_text(&task.text).await
            }
        };
        if let Err(error) = sent {
            return End::of(&error);
        }
    }
}
