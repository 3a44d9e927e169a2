//! What the scenarios on a node work with: the node, a database that pods reach by name, and questions to both.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::inside::ADDRESS;
use super::machine::Machine;
use crate::image::TAG;
use crate::install::NAMESPACE;
use crate::postgres::{Login, Major, Options, Server, Tls};
use crate::sample::{self, DATABASES};
use crate::say::say;

const POLL: Duration = Duration::from_millis(100);
/// Generous: a busy machine starts pods slowly, and no scenario is about that.
pub const LIMIT: Duration = Duration::from_mins(2);
/// The application's namespace.
pub const SHOP: &str = "shop";
/// By this name pods know the database.
const DATABASE_HOST: &str = "orders-rw.databases.svc";
/// Name of the Helm release.
pub const RELEASE: &str = "dsv";

pub struct World {
    pub machine: Machine,
    pub postgres: Server,
    pub issuer: Login,
    /// What was measured on the way.
    pub figures: std::sync::Mutex<Vec<String>>,
}

impl World {
    pub async fn start(images: &Path) -> Result<Self> {
        let machine = Machine::start(images).await?;
        say("starting PostgreSQL");
        let options = Options {
            tls: Tls::Required,
            ..Options::default()
        };
        let run = std::sync::Arc::clone(&machine.run);
        let postgres = Server::start_at(run, Major::of_this_machine(), options, Some((ADDRESS, DATABASE_HOST))).await?;
        let issuer = sample::fill(&postgres).await?;
        Ok(Self {
            machine,
            postgres,
            issuer,
            figures: std::sync::Mutex::default(),
        })
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.machine.cluster.kubectl(arguments)
    }

    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.machine.cluster.apply(&sample::list(objects)).map(drop)
    }

    /// Keeps how long something took, for the end.
    pub fn figure(&self, what: &str, took: Duration) {
        self.note(format!("{what}: {:.1} s", took.as_secs_f64()));
    }

    /// The same for anything else.
    pub fn note(&self, figure: String) {
        say(format!("  {figure}"));
        let mut figures = self.figures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        figures.push(figure);
    }

    /// Namespaces, the database behind a Service, its base secret, and a pool with engines in the cluster.
    pub fn prepare(&self, replicas: u32) -> Result<()> {
        let secret = self.base_secret(DATABASES, sample::BASE_SECRET);
        let mut pool = sample::pool(DATABASES, Some(replicas));
        if let Some(limit) = pool.pointer_mut("/spec/access/0/maxLeases") {
            *limit = json!(500);
        }
        let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
        let shop: BTreeMap<&str, &str> = restricted.into_iter().chain([("team", "shop")]).collect();
        self.apply(&[
            sample::namespace(DATABASES, &restricted.into()),
            sample::namespace(SHOP, &shop),
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "orders-rw", "namespace": DATABASES},
                "spec": {"clusterIP": "None", "ports": [{"port": self.postgres.port()}]},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "orders-rw",
                    "namespace": DATABASES,
                    "labels": {"kubernetes.io/service-name": "orders-rw"},
                },
                "addressType": "IPv4",
                "ports": [{"port": self.postgres.port()}],
                "endpoints": [{"addresses": [ADDRESS.to_string()]}],
            }),
            secret,
            pool,
        ])
    }

    /// A base secret by which pods reach the database.
    pub fn base_secret(&self, namespace: &str, name: &str) -> Value {
        let mut secret = sample::base_secret(namespace, name, &self.postgres, &self.issuer, sample::ORDERS);
        if let Some(host) = secret.pointer_mut("/stringData/host") {
            *host = json!(DATABASE_HOST);
        }
        secret
    }

    /// Asks again and again until there is an answer; `None` and errors both mean "not yet".
    pub async fn eventually<T, F>(&self, what: &str, mut check: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let start = Instant::now();
        loop {
            let why = match check().await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => "it is not so yet".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if start.elapsed() > LIMIT {
                return Err(anyhow!("{}", self.report()))
                    .with_context(|| format!("waited {LIMIT:?} for this: {what}; at last: {why}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Until kubectl prints exactly this.
    pub async fn until(&self, what: &str, arguments: &[&str], wanted: &str) -> Result<()> {
        self.eventually(what, || async {
            let found = self.kubectl(arguments)?;
            if found.trim() == wanted {
                return Ok(Some(()));
            }
            Err(anyhow!("it is {:?} instead of {wanted:?}", found.trim()))
        })
        .await
    }

    /// What is seen of the cluster when something went wrong.
    pub fn report(&self) -> String {
        let ask = |arguments: &[&str]| {
            let answer = self.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
            format!("\n$ kubectl {}\n{answer}", arguments.join(" "))
        };
        let mut text = String::new();
        for arguments in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &[
                "get",
                "enginepools,engines,dynamicsecrets,credentialleases",
                "-A",
                "-o",
                "wide",
            ],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &[
                "-n",
                NAMESPACE,
                "logs",
                "-l",
                "app.kubernetes.io/name=dsv-operator",
                "--tail=60",
                "--prefix",
            ],
            &[
                "-n",
                NAMESPACE,
                "logs",
                "-l",
                "app.kubernetes.io/name=dsv-engine",
                "--tail=30",
                "--prefix",
            ],
        ] {
            text.push_str(&ask(arguments));
        }
        text
    }

    /// Waits until a DynamicSecret of the shop is ready, and gives the account in its Secret.
    pub fn until_ready(&self, name: &str) -> Result<String> {
        let limit = format!("--timeout={}s", LIMIT.as_secs());
        let ready = [
            "wait",
            "-n",
            SHOP,
            "dynamicsecret",
            name,
            "--for=condition=Ready",
            &limit,
        ];
        self.kubectl(&ready).with_context(|| self.report())?;
        self.account(name)
    }

    /// The account in the Secret of a DynamicSecret.
    pub fn account(&self, name: &str) -> Result<String> {
        self.account_in(SHOP, &secret_of(name))
    }

    /// The account in a Secret.
    pub fn account_in(&self, namespace: &str, secret: &str) -> Result<String> {
        let field = "-o=jsonpath={.data.username}";
        let text = self.kubectl(&["get", "secret", secret, "-n", namespace, field])?;
        Ok(String::from_utf8(
            data_encoding::BASE64.decode(text.trim().as_bytes())?,
        )?)
    }

    /// Until no role of this name is in the database.
    pub async fn until_role_is_gone(&self, role: &str) -> Result<()> {
        self.eventually(&format!("role {role} is gone"), || async {
            Ok((!self.roles().await?.iter().any(|found| found == role)).then_some(()))
        })
        .await
    }

    /// What a pod of the shop printed, one JSON object a line.
    pub fn printed(&self, pod: &str) -> Result<Vec<Value>> {
        let log = self.kubectl(&["logs", "-n", SHOP, pod])?;
        log.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Until all engines of the pool are connected.
    pub async fn until_connected(&self, engines: u32) -> Result<()> {
        let field = "-o=jsonpath={.status.connectedEngines}";
        let connected = ["get", "enginepool", sample::ORDERS, "-n", DATABASES, field];
        let what = format!("{engines} engines of the pool are connected");
        self.until(&what, &connected, &engines.to_string()).await
    }

    /// Roles in the database that look like ours.
    pub async fn roles(&self) -> Result<Vec<String>> {
        let client = self.postgres.connect("postgres").await?;
        let rows = client
            .query(
                "SELECT rolname::text FROM pg_roles WHERE shobj_description(oid, 'pg_authid') LIKE 'dsv/%' ORDER BY 1",
                &[],
            )
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// A DynamicSecret of the shop, with further fields of its spec.
pub fn dynamic_secret(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "pool": {"name": sample::ORDERS, "namespace": DATABASES},
        "linkConfig": {"linkType": "dynamic", "linkedSecret": sample::BASE_SECRET},
        "grantPermissions": {"what": "SELECT", "where": "public.orders"},
        "userPrefix": "shop_",
        "ttl": "20m",
        "target": {"name": secret_of(name)},
    });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": "DynamicSecret",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": spec,
    })
}

/// Name of the Secret that [`dynamic_secret`] asks for.
pub fn secret_of(name: &str) -> String {
    format!("{name}-db")
}

/// How an application comes by its credential.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Mounted in `/credential`.
    Files,
    /// `envFrom`, for pods that end.
    Environment,
}

/// A pod of an application as Pod Security `restricted` wants it.
pub fn application(secret: &str, arguments: &[&str], from: From) -> Value {
    let files = from == From::Files;
    let (mounts, volumes, variables) = if files {
        (
            json!([{"name": "credential", "mountPath": "/credential", "readOnly": true}]),
            json!([{"name": "credential", "secret": {"secretName": secret}}]),
            json!([]),
        )
    } else {
        (json!([]), json!([]), json!([{"secretRef": {"name": secret}}]))
    };
    json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": if files { "Always" } else { "Never" },
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "client",
            "image": format!("dsv-client:{TAG}"),
            "args": arguments,
            "envFrom": variables,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}
