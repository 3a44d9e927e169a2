//! `kubectl dsv engine`: making engines, and sending a message to one and back.

use super::connect::Cluster;
use super::error::Intention;
use super::follow::{Ended, follow};
use super::{Error, show};
use crate::api::names::PING;
use crate::api::{Engine, EnginePool, EngineSpec};
use crate::keys::{EngineKey, RootHash};
use clap::{Args, Subcommand};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::Duration;

/// What is asked of engines.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Make an Engine whose key the operator makes and puts into a registration Secret
    Create(NewEngine),
    /// Make an Engine with a key that is made here and shown once; the cluster sees its public half only
    Register(NewEngine),
    /// Send a message to an engine and show how long it took to come back
    Ping {
        /// Name of the Engine
        name: String,
        /// How long to wait for the answer, in seconds
        #[arg(long, default_value_t = 20)]
        timeout: u64,
    },
}

/// A new engine.
#[derive(Debug, Args)]
pub struct NewEngine {
    /// Name of the Engine
    name: String,
    /// Name of its EnginePool, in the same namespace
    #[arg(long)]
    pool: String,
    /// How long to wait for the operator, in seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

/// Runs the command.
pub async fn run(cluster: &Cluster, asked: EngineCommand) -> Result<(), Error> {
    match asked {
        EngineCommand::Create(new) => create(cluster, &new).await,
        EngineCommand::Register(new) => register(cluster, &new).await,
        EngineCommand::Ping { name, timeout } => ping(cluster, &name, timeout).await,
    }
}

async fn make(cluster: &Cluster, new: &NewEngine, public_key: Option<String>) -> Result<Api<Engine>, Error> {
    let (namespace, name) = (&cluster.namespace, &new.name);
    let spec = EngineSpec {
        pool: new.pool.clone(),
        public_key,
        previous_public_key: None,
        disabled: None,
    };
    let api: Api<Engine> = Api::namespaced(cluster.client.clone(), namespace);
    let made = api.create(&PostParams::default(), &Engine::new(name, spec)).await;
    made.to(|| format!("create Engine {namespace}/{name}"))?;
    Ok(api)
}

async fn create(cluster: &Cluster, new: &NewEngine) -> Result<(), Error> {
    let (namespace, name) = (&cluster.namespace, &new.name);
    let api = make(cluster, new, None).await?;
    let told = |state: Option<&Engine>| state?.status.as_ref()?.registration_secret.clone();
    match follow(api, name, Duration::from_secs(new.timeout), told).await? {
        Ended::Seen(secret) => {
            show::remark(&format!(
                "Engine {namespace}/{name} is made; its name, endpoint and private key are in this Secret:"
            ));
            show::print(&format!("{namespace}/{secret}"))
        }
        Ended::TimedOut => Err(Error::TooSlow(format!(
            "Engine {namespace}/{name} is made, but has no registration Secret after {} seconds; kubectl describe engine \
             -n {namespace} {name} says why",
            new.timeout
        ))),
        Ended::Interrupted => Err(Error::Interrupted(format!(
            "stopped waiting; Engine {namespace}/{name} is made"
        ))),
    }
}

async fn register(cluster: &Cluster, new: &NewEngine) -> Result<(), Error> {
    let (namespace, pool) = (&cluster.namespace, &new.pool);
    let pools: Api<EnginePool> = Api::namespaced(cluster.client.clone(), namespace);
    let found = pools.get(pool).await;
    let found = found.to(|| format!("read EnginePool {namespace}/{pool}"))?;
    let hash = found.status.unwrap_or_default().root_hash;
    let unknown = || {
        Error::Refused(format!(
            "EnginePool {namespace}/{pool} does not say its installation's root hash yet; is the operator running?"
        ))
    };
    let root: RootHash = hash.and_then(|hash| hash.parse().ok()).ok_or_else(unknown)?;
    let key = EngineKey::generate(root, namespace)
        .map_err(|error| Error::Refused(format!("no engine key can be made: {error}")))?;
    make(cluster, new, Some(key.public().to_string())).await?;
    show::remark(
        "Store the private key now: nobody can show it again. The engine needs besides where the operator listens \
         (DSV_ENDPOINT).",
    );
    show::print(&format!(
        "ENGINE_NAME={}\nDSV_PRIVATE_KEY={}",
        new.name,
        key.text().reveal()
    ))
}

async fn ping(cluster: &Cluster, name: &str, timeout: u64) -> Result<(), Error> {
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
    match follow(api, name, Duration::from_secs(timeout), answered).await? {
        Ended::Seen(answer) if answer.round_trip_millis.is_some() => show::print(&answer.message),
        Ended::Seen(answer) => Err(Error::Refused(answer.message)),
        Ended::TimedOut => Err(Error::TooSlow(format!(
            "no answer after {timeout} seconds: the operator has not passed the ping on; is it running?"
        ))),
        Ended::Interrupted => Err(Error::Interrupted("stopped waiting for the answer".to_owned())),
    }
}
