//! A hub and links on loopback, with real sockets and real TLS.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

pub mod raw;

use dsv::channel::Timing;
use dsv::channel::frames::{
    Account, AccountSettings, Done, Group, Outcome, OwnedObjects, Revocation, ServerLogin, SslMode, Task,
};
use dsv::channel::hub::{EngineDirectory, Hub, HubIdentity, HubMetrics, Registration};
use dsv::channel::link::{Endpoint, Link, LinkOptions, LinkStatus, OuterTrust, Proxies, Tasks};
use dsv::channel::listener::{Peer, ServeLimits, TlsListener, self_signed, serve};
use dsv::keys::{CERTIFICATE_LIFE, ChannelKey, EngineKey, EnginePublicKey, RootKey, SecretText, SigningKey};
use futures::FutureExt;
use jiff::Timestamp;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const POOL: &str = "pool-1";
pub const NAMESPACE: &str = "databases";
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Short enough for a test, long enough for a busy machine.
pub fn quick() -> Timing {
    Timing {
        handshake: Duration::from_secs(3),
        ping: Duration::from_millis(200),
        silence: Duration::from_millis(1500),
        drain: Duration::from_secs(3),
        leave: Duration::from_secs(3),
        grace: Duration::from_millis(300),
    }
}

#[derive(Default)]
pub struct Directory(Mutex<HashMap<(String, String), Registration>>);

impl Directory {
    pub fn put(&self, registration: Registration) {
        let key = (registration.namespace.clone(), registration.name.clone());
        self.0.lock().unwrap().insert(key, registration);
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Registration)) {
        let mut engines = self.0.lock().unwrap();
        change(engines.get_mut(&(NAMESPACE.to_owned(), name.to_owned())).unwrap());
    }

    pub fn remove(&self, name: &str) {
        self.0.lock().unwrap().remove(&(NAMESPACE.to_owned(), name.to_owned()));
    }
}

impl EngineDirectory for Directory {
    fn find(&self, namespace: &str, name: &str) -> Option<Registration> {
        self.0
            .lock()
            .unwrap()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }
}

/// An operator's hub that listens on loopback.
pub struct Operator {
    pub root: RootKey,
    pub hub: Hub,
    pub directory: Arc<Directory>,
    pub leading: watch::Sender<bool>,
    pub address: SocketAddr,
    /// The same without the outer TLS, for engines that these tests write by hand.
    pub plain: SocketAddr,
    servers: [JoinHandle<()>; 2],
}

impl Operator {
    pub async fn start() -> Self {
        Self::with(RootKey::generate().unwrap(), quick()).await
    }

    pub async fn with(root: RootKey, timing: Timing) -> Self {
        let key = ChannelKey::generate().unwrap();
        let signing = SigningKey::generate().unwrap().public();
        let end = Timestamp::now() + CERTIFICATE_LIFE;
        let certificate = root
            .certify_channel(&key.public(), &signing, "inst-1", end, vec![])
            .unwrap();
        let directory = Arc::new(Directory::default());
        let (leading, leads) = watch::channel(true);
        let identity = Arc::new(HubIdentity::new(key, certificate));
        let hub = Hub::new(identity, directory.clone(), leads, timing, HubMetrics::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = self_signed(&["dsv.test".to_owned()]).unwrap();
        let listener = TlsListener::new(listener, move || config.clone()).unwrap();
        let plain_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = plain_listener.local_addr().unwrap();
        let service = hub.router().into_make_service_with_connect_info::<Peer>();
        let servers = [
            tokio::spawn(serve(
                listener,
                hub.router(),
                ServeLimits::default(),
                CancellationToken::new(),
            )),
            tokio::spawn(axum::serve(plain_listener, service).into_future().map(drop)),
        ];
        Self {
            root,
            hub,
            directory,
            leading,
            address,
            plain,
            servers,
        }
    }

    /// Registers an engine and gives its key.
    pub fn register(&self, name: &str) -> EngineKey {
        let key = EngineKey::generate(self.root.hash(), NAMESPACE).unwrap();
        self.register_key(name, key.public());
        key
    }

    pub fn register_key(&self, name: &str, key: EnginePublicKey) {
        self.directory.put(Registration {
            engine_uid: uid(name),
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            pool_uid: POOL.to_owned(),
            public_keys: vec![key],
            disabled: false,
            revocations_only: false,
        });
    }

    /// Registers an engine and connects it.
    pub async fn engine(&self, name: &str, work: Work) -> Engine {
        let engine = Engine::start(self.options(name, self.register(name)), work);
        engine.connected().await;
        engine
    }

    pub fn options(&self, name: &str, key: EngineKey) -> LinkOptions {
        options(&[&self.address.to_string()], name, key)
    }

    /// Waits until the hub's view of the pool is as wished.
    pub async fn until(&self, what: &str, wished: impl Fn(&Hub) -> bool) {
        for _ in 0..500 {
            if wished(&self.hub) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 5 s: {what}; sessions: {:?}", self.hub.connected(POOL));
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

pub fn uid(name: &str) -> String {
    format!("uid-{name}")
}

pub fn options(endpoints: &[&str], name: &str, key: EngineKey) -> LinkOptions {
    LinkOptions {
        endpoints: endpoints.iter().map(|text| text.parse::<Endpoint>().unwrap()).collect(),
        name: name.to_owned(),
        key,
        trust: OuterTrust::new(None, false).unwrap(),
        proxies: Proxies::none(),
        version: "test".to_owned(),
        timing: quick(),
    }
}

/// What an engine of these tests does with tasks, and what it saw.
#[derive(Clone, Default)]
pub struct Work {
    pub seen: Arc<Mutex<Vec<Task>>>,
    /// Tasks other than echo wait until this is told.
    pub gate: Option<Arc<Notify>>,
    pub panics: bool,
}

impl Work {
    pub fn gated() -> (Self, Arc<Notify>) {
        let gate = Arc::new(Notify::new());
        (
            Self {
                gate: Some(gate.clone()),
                ..Self::default()
            },
            gate,
        )
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Waits until that many tasks were begun.
    pub async fn until(&self, count: usize) {
        for _ in 0..500 {
            if self.count() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} tasks were begun within 5 s", self.count());
    }
}

impl Tasks for Work {
    async fn run(&self, task: Task, _patience: Duration) -> Outcome {
        let echo = task == Task::Echo;
        self.seen.lock().unwrap().push(task);
        assert!(!self.panics, "a defect");
        if let Some(gate) = self.gate.as_ref().filter(|_| !echo) {
            gate.notified().await;
        }
        done()
    }
}

pub fn done() -> Outcome {
    Outcome::Done {
        done: Done::Echo,
        clock: None,
    }
}

pub const PASSWORD: &str = "correct-horse-battery-staple";

pub fn server() -> ServerLogin {
    ServerLogin {
        record: "server-1".to_owned(),
        host: "db.test".to_owned(),
        port: 5432,
        ports: vec![],
        username: "dsv_issuer".to_owned(),
        password: SecretText::new(PASSWORD),
        database: "orders".to_owned(),
        sslmode: SslMode::VerifyFull,
        ca: None,
        client_certificate: None,
        client_key: None,
    }
}

pub fn probe() -> Task {
    Task::Probe { server: server() }
}

pub fn issue() -> Task {
    let at = Timestamp::from_second(2_000_000_000).unwrap();
    Task::Issue {
        server: server(),
        group: Group {
            name: "dsvg_1".to_owned(),
            comment: String::new(),
            signers: vec![],
            grants: vec![],
        },
        account: Account {
            lease_uid: "uid-lease".to_owned(),
            role: "shop_1".to_owned(),
            verifier: "SCRAM-SHA-256$4096:x".to_owned(),
            comment: String::new(),
            valid_until: at,
            issue_deadline: at,
            settings: AccountSettings::default(),
        },
    }
}

pub fn revocation(role: &str) -> Task {
    let account = Revocation {
        lease_uid: "uid-lease".to_owned(),
        role: role.to_owned(),
        issue_deadline: Timestamp::from_second(2_000_000_000).unwrap(),
        role_oid: None,
        owned_objects: OwnedObjects::Reassign,
    };
    Task::Revoke {
        server: server(),
        installation: String::new(),
        signers: vec![],
        accounts: vec![account],
        keepers: vec![],
    }
}

/// A link that runs.
pub struct Engine {
    pub status: watch::Receiver<LinkStatus>,
    pub stop: CancellationToken,
    pub running: JoinHandle<()>,
}

impl Engine {
    pub fn start(options: LinkOptions, work: Work) -> Self {
        let link = Link::new(options, work);
        let (status, stop) = (link.status(), CancellationToken::new());
        let running = tokio::spawn(link.run(stop.clone()));
        Self { status, stop, running }
    }

    pub async fn connected(&self) {
        self.until("connected", |status| status.connected.is_some()).await;
    }

    /// Waits for a failure with these words.
    pub async fn fails_with(&self, words: &str) -> String {
        let says = |status: &LinkStatus| status.last_failure.as_ref().is_some_and(|text| text.contains(words));
        self.until(words, says).await.last_failure.unwrap()
    }

    pub async fn until(&self, what: &str, wished: impl FnMut(&LinkStatus) -> bool) -> LinkStatus {
        let mut status = self.status.clone();
        let waited = tokio::time::timeout(Duration::from_secs(8), status.wait_for(wished)).await;
        let Ok(status) = waited else {
            panic!("not within 8 s: {what}; {:?}", self.status.borrow())
        };
        status.unwrap().clone()
    }

    /// As if the machine lost power: no goodbye.
    pub fn kill(&self) {
        self.running.abort();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.running.abort();
    }
}
