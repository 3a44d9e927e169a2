//! Pinging an engine. Only the leader holds engines, so it is asked through the Engine object: an annotation asks, its status
//! answers. No request of a client, and no token, is handed on to another process.

use super::Vault;
use super::call::Call;
use super::reply::{Refusal, Reply};
use crate::api::Engine;
use crate::api::names::PING;
use crate::cluster::Intention;
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// How long the leader and the engine may take together.
const PATIENCE: Duration = Duration::from_secs(10);

impl Vault {
    pub(super) async fn ping(&self, call: &Call, engine: &Engine) -> Result<Reply, Refusal> {
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
                let answer = engine.status.and_then(|status| status.ping);
                if let Some(answer) = answer.filter(|answer| answer.asked == asked) {
                    return Some(answer);
                }
            }
            None
        };
        let late = || Refusal::new(504, "the operator's leader did not pass the ping on; does one lead?");
        let answer = tokio::time::timeout(PATIENCE, answered).await;
        let answer = answer.ok().flatten().ok_or_else(late)?;
        if answer.round_trip_millis.is_some() {
            return Ok(Reply::message(answer.message));
        }
        Err(Refusal::new(503, answer.message))
    }
}
