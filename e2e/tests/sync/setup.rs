//! A namespace with a tenant and a source, and ways to look at both ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::objects::{Objects, text};
use e2e::stack::Namespace;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::world::{World, fresh, world};

const PATIENCE: Duration = Duration::from_mins(2);

/// Held for reading by who needs the operator alive, and for writing by who kills it.
static PEACE: RwLock<()> = RwLock::const_new(());

pub async fn peace() -> RwLockReadGuard<'static, ()> {
    PEACE.read().await
}

pub async fn war() -> RwLockWriteGuard<'static, ()> {
    PEACE.write().await
}

pub struct Setup {
    pub world: &'static World,
    pub namespace: String,
    /// Goes with this.
    own: Option<Namespace<'static>>,
    /// First part of every path: the tenant's login may write below it.
    pub root: String,
    pub objects: Objects,
    /// Of the tenant's login.
    pub client_secret: String,
}

impl Setup {
    /// With a tenant `tenant` at `url`, or at our own API, and a source `source`.
    pub async fn new(url: Option<&str>) -> Self {
        let own = world().await.stack.namespace("sync", &[]).unwrap();
        let mut setup = Self::within(&own, url).await;
        setup.own = Some(own);
        setup
    }

    /// The same in a namespace that is there.
    pub async fn within(namespace: &str, url: Option<&str>) -> Self {
        let world = world().await;
        let root = fresh("demo");
        let resources = [format!("secrets:{root}:<.*>")];
        let statement = json!({"actions": ["<create|read|update|delete>"], "resources": resources});
        let (id, secret) = world.client(&statement).await;
        let url = url.map_or_else(|| world.url(), str::to_owned);
        let setup = Self {
            objects: world.objects().await,
            namespace: namespace.to_owned(),
            own: None,
            root,
            world,
            client_secret: secret.clone(),
        };
        setup.secret(
            "login",
            &json!({"client-id": id, "client-secret": secret, "tenant-url": url}),
        );
        setup.secret(
            "source",
            &json!({"domain": "corp.example", "password": "first", "notes": "of the shop"}),
        );
        setup.tenant("tenant", "login", &json!({}));
        setup
    }

    pub fn apply(&self, kind: &str, name: &str, spec: &Value) {
        let manifest = json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        });
        self.world.stack.apply(&manifest).unwrap();
    }

    pub fn secret(&self, name: &str, data: &Value) {
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.namespace},
            "stringData": data,
        });
        self.world.stack.apply(&manifest).unwrap();
    }

    pub fn tenant(&self, name: &str, login: &str, more: &Value) {
        let mut spec = json!({
            "credentials": {"secretName": login},
            "caBundle": self.world.authority,
            "syncInterval": 1,
        });
        merge(&mut spec, more);
        self.apply("DsvTenant", name, &spec);
    }

    /// A sync of the source to `<root>/<name>`.
    pub fn sync(&self, name: &str, more: &Value) {
        let mut spec = json!({
            "source": {"name": "source"},
            "tenant": "tenant",
            "path": [self.root, name],
        });
        merge(&mut spec, more);
        self.apply("SecretSync", name, &spec);
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) {
        self.objects.merge(kind, &self.namespace, name, patch).await.unwrap();
    }

    /// The object as soon as `check` likes it.
    pub async fn until(&self, kind: &str, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let look = || async {
            let found = self.objects.get(kind, &self.namespace, name).await?;
            let found = found.context("there is none")?;
            ensure!(check(&found), "{}", found["status"]);
            Ok(Some(found))
        };
        self.world.stack.eventually(what, PATIENCE, look).await.unwrap()
    }

    /// The sync as soon as it says this, about its newest spec.
    pub async fn says(&self, name: &str, reason: &str) -> Value {
        self.until("SecretSync", name, &format!("{name} says {reason}"), |sync| {
            says(sync) == reason && sync["status"]["observedGeneration"] == sync["metadata"]["generation"]
        })
        .await
    }

    /// The sync after it has looked at both ends once more, from beginning to end.
    pub async fn looked_again(&self, name: &str) -> Value {
        let mut seen = self
            .objects
            .get("SecretSync", &self.namespace, name)
            .await
            .unwrap()
            .unwrap();
        for _ in 0..2 {
            let before = text(&seen, "/status/lastCheck");
            seen = self
                .until("SecretSync", name, "it looks again", |sync| {
                    text(sync, "/status/lastCheck") > before
                })
                .await;
        }
        seen
    }

    /// What the tenant has for a sync.
    pub async fn there(&self, name: &str) -> Option<Value> {
        let path = format!("secrets/{}/{name}", self.root);
        let mut answer = self.world.get(&path).await;
        // After a start its caches are filled first, and it says so.
        for _ in 0..300 {
            if answer.code != 503 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            answer = self.world.get(&path).await;
        }
        match answer.code {
            404 => None,
            _ => Some(answer.is(200)),
        }
    }

    /// What the tenant has, as soon as it has this version.
    pub async fn version(&self, name: &str, version: &str) -> Value {
        let look = || async {
            let there = self.there(name).await.context("nothing is there")?;
            ensure!(
                text(&there, "/version") == version,
                "it has version {}",
                there["version"]
            );
            Ok(Some(there))
        };
        let what = format!("the tenant has version {version} of {name}");
        let found: Result<Value> = self.world.stack.eventually(&what, PATIENCE, look).await;
        found.unwrap()
    }
}

pub fn says(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    ready.map(|ready| text(ready, "/reason")).unwrap_or_default()
}

pub fn message(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    ready.map(|ready| text(ready, "/message")).unwrap_or_default()
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}
