//! Where a test takes place: the shared stack, and a namespace with a pool and base secrets that no other test sees.

use dsv::api::names::base32_uid;
use e2e::postgres::{Login, Options, Server, Tls};
use e2e::sample;
use e2e::stack::{Namespace, Stack};
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

use crate::refusals::kube_client::{Kube, condition};

/// How long anything may take here. No promise of the product: every wait of the operator that a row is about is minutes
/// long (see `pretend_many_failures`), and a busy machine starts a new engine slowly.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks; it grows, since the looks of many rows keep the API server from working.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(700);

static PLAIN: OnceCell<(Server, Login)> = OnceCell::const_new();

pub struct World {
    pub stack: &'static Stack,
    pub kube: Kube,
    /// A superuser's session in the sample's database.
    pub admin: tokio_postgres::Client,
    /// Where pools and base secrets are.
    pub databases: Namespace<'static>,
}

impl World {
    /// With the pool `orders` and one connected engine.
    pub async fn new(prefix: &str) -> Self {
        let world = Self::without_pool(prefix).await;
        world.pool(json!({"engines": {"replicas": 1}})).await;
        world
    }

    pub async fn without_pool(prefix: &str) -> Self {
        let stack = Stack::shared().await.unwrap();
        Self {
            stack,
            kube: Kube::new(stack).await,
            admin: stack.postgres().connect(sample::ORDERS).await.unwrap(),
            databases: stack.namespace(prefix, &[]).unwrap(),
        }
    }

    /// Makes the pool `orders` and waits until its engine is connected.
    pub async fn pool(&self, spec: Value) {
        self.kube.put(&pool(&self.databases, sample::ORDERS, spec)).await;
        let connected = async || {
            let pool = self.kube.read("EnginePool", &self.databases, sample::ORDERS).await?;
            condition(&pool, "Ready").filter(|ready| ready.status == "True")
        };
        within(PATIENCE, connected)
            .await
            .expect("the pool's engine is connected");
    }

    /// A good base secret of the sample's server.
    pub fn base(&self, name: &str) -> Value {
        self.base_in(&self.databases, name)
    }

    pub fn base_in(&self, namespace: &str, name: &str) -> Value {
        sample::base_secret(
            namespace,
            name,
            self.stack.postgres(),
            self.stack.issuer(),
            sample::ORDERS,
        )
    }

    /// A DynamicSecret that would be served: SELECT on the sample's table, for long enough to be seen.
    pub fn spec(&self, base: &str) -> Value {
        json!({
            "pool": {"name": sample::ORDERS, "namespace": &*self.databases},
            "linkConfig": {"linkType": "dynamic", "linkedSecret": base},
            "grantPermissions": {"what": "SELECT", "where": "public.orders"},
            "userPrefix": "shop_",
            "ttl": 45,
        })
    }

    /// Runs SQL as superuser in the sample's database; again where it met a GRANT of somebody else on one catalog row.
    pub async fn sql(&self, sql: &str) {
        let met = |error: &tokio_postgres::Error| {
            let said = error.as_db_error().map(tokio_postgres::error::DbError::message);
            said.is_some_and(|said| said.starts_with("tuple concurrently"))
        };
        let run = async || match self.admin.batch_execute(sql).await {
            Err(error) if met(&error) => None,
            other => Some(other),
        };
        let ran = within(PATIENCE, run).await;
        ran.expect("nobody else grants all the time").unwrap();
    }

    /// A server that cannot do TLS, with the sample in it. One for all tests.
    pub async fn plain() -> &'static (Server, Login) {
        let start = async || {
            let major = e2e::postgres::Major::of_this_machine();
            let options = Options {
                tls: Tls::Off,
                ..Options::default()
            };
            let server = Server::start(major, options).await.unwrap();
            let issuer = sample::fill(&server).await.unwrap();
            (server, issuer)
        };
        PLAIN.get_or_init(start).await
    }

    /// Roles of a dynamic secret: its accounts by their name, its groups by the signed comment. Other tests' dynamic secrets
    /// may have the same name, so accounts of leases in other namespaces are left out.
    pub async fn roles(&self, namespace: &str, account: &str, uid: &str) -> Vec<String> {
        let found = self.named(account, uid).await;
        let leases = self.kube.list("CredentialLease", "").await;
        let others: Vec<String> = leases
            .iter()
            .filter(|lease| lease["metadata"]["namespace"] != namespace)
            .filter_map(|lease| base32_uid(lease["metadata"]["uid"].as_str()?))
            .collect();
        let theirs = |role: &String| others.iter().any(|lease| role.ends_with(lease.as_str()));
        // An account whose lease went between the two looks is gone too.
        let still = self.named(account, uid).await;
        let ours = found.into_iter().filter(|role| !theirs(role) && still.contains(role));
        ours.collect()
    }

    async fn named(&self, account: &str, uid: &str) -> Vec<String> {
        let sql = "SELECT r.rolname FROM pg_roles r LEFT JOIN pg_shdescription d \
                   ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass \
                   WHERE starts_with(r.rolname, $1) OR d.description LIKE '%subject=' || $2 || ' %'";
        let rows = self.admin.query(sql, &[&account, &uid]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Writes of the operator so far for a dynamic secret: it itself, its leases, Secrets and Events.
    pub fn writes(&self, namespace: &str, name: &str) -> Vec<String> {
        let plane = self
            .stack
            .cluster()
            .control_plane()
            .expect("the audit log of an own cluster is needed");
        let log = plane.audit_log();
        // The log of all scenarios is long, and to look for a text in it is cheaper than to understand it.
        let about = |line: &&str| line.contains(namespace) && line.contains(name) && !line.contains(r#""verb":"get""#);
        let ours = log.lines().filter(about).filter_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let theirs = ["enginepools", "engines"].contains(&text("/objectRef/resource"));
            let concerns =
                text("/objectRef/namespace") == namespace && text("/objectRef/name").starts_with(name) && !theirs;
            let operator = text("/user/username").ends_with(":dsv-operator");
            // The audit log tells reads too; a wait may look, it may not write.
            let wrote = !["get", "list", "watch"].contains(&text("/verb"));
            (concerns && operator && wrote).then(|| {
                let (kind, sub) = (text("/objectRef/resource"), text("/objectRef/subresource"));
                format!("{} {kind}/{} {sub}", text("/verb"), text("/objectRef/name"))
            })
        });
        ours.collect()
    }

    /// What the operator logged about an object: for a failure.
    pub fn log_about(&self, name: &str) -> String {
        let mut about = String::new();
        for operator in self.stack.operators() {
            let text = operator.log_text();
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(name)).collect();
            for line in lines.iter().skip(lines.len().saturating_sub(8)) {
                let (time, _) = line.split_once(' ').unwrap_or_default();
                writeln!(about, "    {time} {}", line.split("}: ").last().unwrap_or_default()).unwrap();
            }
        }
        about
    }
}

/// A pool as a manifest.
pub fn pool(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": "EnginePool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

/// Asks again and again until there is an answer; none after the limit.
pub async fn within<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if start.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(1.4).min(LONGEST_PAUSE);
    }
}

/// What mends a fault.
pub type Mend = Box<dyn for<'a> Fn(&'a World) -> LocalBoxFuture<'a, ()>>;
