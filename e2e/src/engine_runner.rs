//! Stands in for the node: runs each engine Deployment of the operator as a process on this machine.
//!
//! The local cluster has no kubelet, so nothing would ever start the pods. This watches the Deployments that carry the
//! operator's labels, starts `dsv-engine` with the environment of the Secret their pod template names, starts it again when
//! it dies or when either changes, and ends it when the Deployment goes or is scaled to zero.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Secret};
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::engine::Engine;
use crate::faults::wiring::Wiring;
use crate::install::NAMESPACE;
use crate::run_dir::RunDir;
use crate::say::say;

const SELECTOR: &str = "app.kubernetes.io/managed-by=dsv-operator,app.kubernetes.io/component=engine";
/// How soon a dead engine, or a Secret that came after its Deployment, is noticed.
const TICK: Duration = Duration::from_millis(500);

type Engines = Arc<Mutex<BTreeMap<String, Running>>>;

/// The running stand-in. Dropping it ends its engines.
pub struct EngineRunner {
    engines: Engines,
    task: JoinHandle<()>,
}

struct Running {
    engine: Engine,
    /// What it was started with; anything else means: start anew.
    environment: BTreeMap<String, String>,
}

/// One engine process as a table shows it.
pub struct Row {
    pub name: String,
    pub pid: Option<i32>,
    pub health: SocketAddr,
    pub log: String,
}

impl EngineRunner {
    /// Watches on the calling runtime until it is dropped.
    pub fn start(run: Arc<RunDir>, client: Client, wiring: Option<Arc<Wiring>>) -> Self {
        let engines = Engines::default();
        let node = Node {
            run,
            wiring,
            engines: Arc::clone(&engines),
        };
        let task = tokio::spawn(watch(node, client));
        Self { engines, task }
    }

    pub fn rows(&self) -> Vec<Row> {
        let row = |(name, running): (&String, &Running)| Row {
            name: name.clone(),
            pid: running.engine.pid(),
            health: running.engine.health(),
            log: running.engine.log_path().display().to_string(),
        };
        lock(&self.engines).iter().map(row).collect()
    }

    /// Sends every engine process a signal. One that ends is started again within a moment, as a kubelet does.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        lock(&self.engines)
            .values()
            .filter(|running| running.engine.is_running())
            .try_for_each(|running| running.engine.signal(signal))
    }

    /// Sends one engine process a signal, the first by name.
    pub fn signal_one(&self, signal: Signal) -> Result<()> {
        match lock(&self.engines).values().find(|running| running.engine.is_running()) {
            Some(running) => running.engine.signal(signal),
            None => Ok(()),
        }
    }

    /// The end of each engine's log.
    pub fn log_tails(&self, lines: usize) -> Vec<(String, String)> {
        lock(&self.engines)
            .iter()
            .map(|(name, running)| (name.clone(), running.engine.log_tail(lines)))
            .collect()
    }
}

impl Drop for EngineRunner {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.engines).clear();
    }
}

fn lock(engines: &Engines) -> MutexGuard<'_, BTreeMap<String, Running>> {
    engines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What engines are started with.
struct Node {
    run: Arc<RunDir>,
    wiring: Option<Arc<Wiring>>,
    engines: Engines,
}

async fn watch(node: Node, client: Client) {
    let (store, writer) = reflector::store::<Deployment>();
    let api = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    let changes = watcher(api, watcher::Config::default().labels(SELECTOR)).default_backoff();
    let mut changes = std::pin::pin!(reflector::reflector(writer, changes));
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let secrets = Api::<Secret>::namespaced(client, NAMESPACE);
    loop {
        tokio::select! {
            change = changes.next() => if change.is_none() { return },
            _ = tick.tick() => {}
        }
        follow(&node, &secrets, &store).await;
    }
}

/// Brings the processes in line with the Deployments seen last.
async fn follow(node: &Node, secrets: &Api<Secret>, store: &Store<Deployment>) {
    let wanted: BTreeMap<String, Arc<Deployment>> = store
        .state()
        .into_iter()
        .filter(|deployment| deployment.spec.as_ref().is_some_and(|spec| spec.replicas != Some(0)))
        .map(|deployment| (deployment.name_any(), deployment))
        .collect();
    lock(&node.engines).retain(|name, _| {
        let stays = wanted.contains_key(name);
        if !stays {
            say(format!("the Deployment of {name} is gone; its process ends"));
        }
        stays
    });
    for (name, deployment) in wanted {
        // A Secret that is not there yet is asked for again at the next tick, as a kubelet does.
        let Ok(environment) = environment_of(secrets, &deployment).await else {
            continue;
        };
        if let Err(error) = ensure(node, &name, environment) {
            say(format!("cannot run {name}: {error:#}"));
        }
    }
}

fn ensure(node: &Node, name: &str, environment: BTreeMap<String, String>) -> Result<()> {
    let mut engines = lock(&node.engines);
    if let Some(running) = engines.get(name)
        && running.environment == environment
    {
        if !running.engine.is_running() {
            say(format!("{name} has died; started again"));
            running.engine.launch()?;
        }
        return Ok(());
    }
    // Recreate: the old process is gone before the new one starts.
    engines.remove(name);
    let engine = Engine::start(&node.run, name, &environment, node.wiring.as_deref())?;
    engines.insert(name.to_owned(), Running { engine, environment });
    Ok(())
}

/// What the first container would find in its environment: whole Secrets first, single literals over them.
async fn environment_of(secrets: &Api<Secret>, deployment: &Deployment) -> Result<BTreeMap<String, String>> {
    let container = first_container(deployment).context("the Deployment has no container")?;
    let mut environment = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let Some(reference) = &source.secret_ref else { continue };
        let secret = secrets.get(&reference.name).await?;
        for (key, value) in secret.data.unwrap_or_default() {
            environment.insert(key, String::from_utf8(value.0)?);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = &variable.value {
            environment.insert(variable.name.clone(), value.clone());
        }
    }
    Ok(environment)
}

fn first_container(deployment: &Deployment) -> Option<&Container> {
    deployment.spec.as_ref()?.template.spec.as_ref()?.containers.first()
}
