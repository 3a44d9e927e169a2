//! The operator's end of the channel without an operator: the product's own hub, its TLS and its handshake, in this process.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dsv::channel::Timing;
use dsv::channel::frames::{Done, Outcome, Task};
use dsv::channel::hub::{CallResult, EngineDirectory, Hub, HubIdentity, HubMetrics, Registration};
use dsv::channel::listener::{ServeLimits, TlsListener, self_signed, serve};
use dsv::keys::{CERTIFICATE_LIFE, ChannelKey, EngineKey, RootKey, SigningKey};
use e2e::engine::Engine;
use e2e::run_dir::RunDir;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const POOL: &str = "bench-pool";
const NAMESPACE: &str = "databases";
pub const INSTALLATION: &str = "bench/installation";
/// How long an engine may take for one task. None takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Directory(Mutex<HashMap<String, Registration>>);

impl Directory {
    fn put(&self, registration: Registration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(registration.name.clone(), registration);
    }
}

impl EngineDirectory for Directory {
    fn find(&self, namespace: &str, name: &str) -> Option<Registration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).filter(|found| found.namespace == namespace).cloned()
    }
}

/// A hub that listens on loopback. Dropping it ends it.
pub struct Operator {
    root: RootKey,
    /// Signs the comments of what is issued here.
    pub signing: SigningKey,
    hub: Hub,
    directory: Arc<Directory>,
    address: SocketAddr,
    serving: JoinHandle<()>,
    _leading: watch::Sender<bool>,
}

impl Operator {
    pub async fn start() -> Result<Self> {
        let (root, key, signing) = (RootKey::generate()?, ChannelKey::generate()?, SigningKey::generate()?);
        let end = Timestamp::now() + CERTIFICATE_LIFE;
        let certificate = root.certify_channel(&key.public(), &signing.public(), INSTALLATION, end, Vec::new())?;
        let directory = Arc::new(Directory::default());
        let (leading, leads) = watch::channel(true);
        let identity = Arc::new(HubIdentity::new(key, certificate));
        let hub = Hub::new(
            identity,
            directory.clone(),
            leads,
            Timing::default(),
            HubMetrics::default(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let config = self_signed(&["dsv.test".to_owned()])?;
        let listener = TlsListener::new(listener, move || config.clone())?;
        let serving = serve(listener, hub.router(), ServeLimits::default(), CancellationToken::new());
        Ok(Self {
            root,
            signing,
            directory,
            address,
            serving: tokio::spawn(serving),
            hub,
            _leading: leading,
        })
    }

    /// The program `dsv-engine`, connected; and how long that took from its start.
    pub async fn engine(&self, run: &Arc<RunDir>, name: &str) -> Result<(Engine, Duration)> {
        let key = EngineKey::generate(self.root.hash(), NAMESPACE)?;
        let uid = format!("uid-{name}");
        let registration = Registration {
            engine_uid: uid.clone(),
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            pool_uid: POOL.to_owned(),
            public_keys: vec![key.public()],
            disabled: false,
            revocations_only: false,
        };
        self.directory.put(registration);
        let environment = BTreeMap::from([
            ("ENGINE_NAME".to_owned(), name.to_owned()),
            ("DSV_ENDPOINT".to_owned(), self.address.to_string()),
            ("DSV_PRIVATE_KEY".to_owned(), key.text().reveal().to_owned()),
        ]);
        let begun = Instant::now();
        let engine = Engine::start(run, name, &environment, None)?;
        while self.hub.session(&uid).is_none() {
            if begun.elapsed() > CONNECT_LIMIT {
                bail!(
                    "{name} did not connect within {CONNECT_LIMIT:?}:\n{}",
                    engine.log_tail(20)
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok((engine, begun.elapsed()))
    }

    /// Has an engine do a task, and fails unless it is done.
    pub async fn ask(&self, task: Task) -> Result<Done> {
        let kind = task.kind();
        match self.hub.call(POOL, task, PATIENCE).await {
            CallResult::Answered {
                outcome: Outcome::Done { done, .. },
                ..
            } => Ok(done),
            other => Err(anyhow::anyhow!("{other:?}")).with_context(|| format!("the task {kind} was not done")),
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
