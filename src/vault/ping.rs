//! Pinging an engine. Only the leader holds engines, so it is asked through the Engine object: an annotation asks, its status
//! answers. No request of a client, and no token, is handed on to another process.

use super::Vault;
use super::call::Call;
use super::reply::{Refusal, Reply};
use crate::api::Engine;
use crate::api::conditions::{self, READY};
use crate::api::names::PING;
use crate::cluster::Intention;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// How long the leader and the engine may take together.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reader gets the heartbeat that is on record when the engine is not heard of within this time.
const READERS_PATIENCE: Duration = Duration::from_secs(3);
/// A heartbeat on record that is younger is shown as it is, so that readers in a loop do not write in a loop.
const RECENT: SignedDuration = SignedDuration::from_secs(30);

impl Vault {
    pub(super) async fn ping(&self, call: &Call, engine: &Engine) -> Result<Reply, Refusal> {
        let late = || Refusal::new(504, "the operator's leader did not pass the ping on; does one lead?");
        let engine = self.asked(call, engine, PATIENCE).await?.ok_or_else(late)?;
        let answer = engine.status.and_then(|status| status.ping).ok_or_else(late)?;
        if answer.round_trip_millis.is_some() {
            return Ok(Reply::message(answer.message));
        }
        Err(Refusal::new(503, answer.message))
    }

    /// The engine as it is when it was heard of just now: what is on record of one that is connected is up to ten minutes old.
    pub(super) async fn heard_of(&self, call: &Call, engine: Engine) -> Engine {
        if !is_stale(&engine, Timestamp::now()) {
            return engine;
        }
        match self.asked(call, &engine, READERS_PATIENCE).await {
            Ok(heard) => heard.unwrap_or(engine),
            Err(refusal) => {
                // A read does not fail because something could not be written.
                tracing::info!(
                    engine = engine.name_any(),
                    code = refusal.code,
                    "an engine could not be asked"
                );
                engine
            }
        }
    }

    /// The engine with the answer to a ping; none where there was none in time.
    async fn asked(&self, call: &Call, engine: &Engine, patience: Duration) -> Result<Option<Engine>, Refusal> {
        let api: Api<Engine> = Api::namespaced(self.client.clone(), &call.tenant.namespace);
        let name = engine.name_any();
        let asked = uuid::Uuid::new_v4().to_string();
        let patch = json!({"metadata": {"uid": engine.uid(), "annotations": {PING: asked}}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .to(|| format!("ask engine {name} for an answer"))?;
        let mut states = std::pin::pin!(watch_object(api, &name));
        let answered = async {
            while let Some(state) = states.next().await {
                let Ok(Some(engine)) = state else { continue };
                let answer = engine.status.as_ref().and_then(|status| status.ping.as_ref());
                if answer.is_some_and(|answer| answer.asked == asked) {
                    return Some(engine);
                }
            }
            None
        };
        Ok(tokio::time::timeout(patience, answered).await.ok().flatten())
    }
}

/// Whether an engine is connected and its heartbeat on record old. Of one that is away the record is the last there was.
fn is_stale(engine: &Engine, now: Timestamp) -> bool {
    let Some(status) = &engine.status else { return false };
    let connected = conditions::find(&status.conditions, READY).is_some_and(|ready| ready.status == "True");
    let heard = status.last_heartbeat.as_ref().map(|at| at.0);
    connected && heard.is_none_or(|heard| now.duration_since(heard) > RECENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(ready: &str, heard: i64) -> Engine {
        let at = Timestamp::from_second(heard).unwrap().to_string();
        let engine = json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": "Engine",
            "metadata": {"name": "one"},
            "spec": {"pool": "orders"},
            "status": {
                "lastHeartbeat": at,
                "conditions": [{
                    "type": "Ready", "status": ready, "reason": "X", "message": "", "lastTransitionTime": at,
                }],
            },
        });
        serde_json::from_value(engine).unwrap()
    }

    #[test]
    fn only_a_connected_engine_that_was_not_heard_of_lately_is_asked() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert!(is_stale(&engine("True", 900), now));
        assert!(!is_stale(&engine("True", 980), now));
        assert!(!is_stale(&engine("False", 900), now));
    }
}
