//! `kubectl dsv engine ping`: a message to an engine and back.

use super::connect::Cluster;
use super::error::Intention;
use super::follow::{Ended, follow};
use super::{Error, show};
use crate::api::Engine;
use crate::api::names::PING;
use clap::Subcommand;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::Duration;

/// What is asked of engines.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Send a message to an engine and show how long it took to come back
    Ping {
        /// Name of the Engine
        name: String,
        /// How long to wait for the answer, in seconds
        #[arg(long, default_value_t = 20)]
        timeout: u64,
    },
}

/// Runs the command.
pub async fn run(cluster: &Cluster, asked: &EngineCommand) -> Result<(), Error> {
    let EngineCommand::Ping { name, timeout } = asked;
    let namespace = &cluster.namespace;
    let api: Api<Engine> = Api::namespaced(cluster.client.clone(), namespace);
    let value = uuid::Uuid::new_v4().to_string();
    let patch = json!({"metadata": {"annotations": {PING: value}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .to(|| format!("write the annotation {PING} of Engine {namespace}/{name}"))?;
    let answered = |state: Option<&Engine>| {
        let answer = state?.status.as_ref()?.ping.as_ref()?;
        (answer.asked == value).then(|| answer.clone())
    };
    match follow(api, name, Duration::from_secs(*timeout), answered).await? {
        Ended::Seen(answer) if answer.round_trip_millis.is_some() => show::print(&answer.message),
        Ended::Seen(answer) => Err(Error::Refused(answer.message)),
        Ended::TimedOut => Err(Error::TooSlow(format!(
            "no answer after {timeout} seconds: the operator has not passed the ping on; is it running?"
        ))),
        Ended::Interrupted => Err(Error::Interrupted("stopped waiting for the answer".to_owned())),
    }
}
