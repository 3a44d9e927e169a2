//! Engines: `Engine` objects of the tenant's namespace. The key of one is made here, shown once, and only its public half kept.

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::page::{Page, Sorting};
use super::pools::{common, given_name, name_of, note, sort};
use super::reply::{Refusal, Reply};
use super::time;
use crate::api::names::{ROOT_SECRET, object_name};
use crate::api::{Engine, EnginePool, EngineSpec};
use crate::cluster::{installation, objects};
use crate::keys::{EngineKey, RootHash};
use crate::telemetry::logs::chain;
use http::Method;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long an engine's maker waits for the installation's root key.
const ROOT_PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks for it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Vault {
    /// Everything below `/v1/engines`.
    pub(super) async fn engines(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        match (&call.method, call.segments().as_slice()) {
            (&Method::POST, []) => self.create_engine(call, caller).await,
            (&Method::GET, []) => self.list_engines(call, caller).await,
            (&Method::GET, [name]) => {
                self.require(call, caller, "read", &format!("engines:{name}"))?;
                let engine = self.engine(call, name).await?;
                // Asking changes the object, which who reads with the rights of Kubernetes may not.
                let engine = if caller.is_kubernetes() {
                    engine
                } else {
                    self.heard_of(call, engine).await
                };
                let pool = self.pool(call, &engine.spec.pool).await?;
                Ok(Reply::ok(self.shown_engine(&engine, pool.as_ref()).into()))
            }
            (&Method::POST, [name, "ping"]) => {
                // What asks the leader is a change of the object.
                let action = if caller.is_kubernetes() { "update" } else { "read" };
                self.require(call, caller, action, &format!("engines:{name}"))?;
                let engine = self.engine(call, name).await?;
                self.ping(call, &engine).await
            }
            (&Method::DELETE, [name]) => {
                self.require(call, caller, "delete", &format!("engines:{name}"))?;
                let engine = self.engine(call, name).await?;
                objects::delete(&self.client, &engine).await?;
                Ok(Reply::nothing())
            }
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    async fn engine(&self, call: &Call, name: &str) -> Result<Engine, Refusal> {
        let found = objects::read::<Engine>(&self.client, &call.tenant.namespace, &object_name(name)).await?;
        let found = found.filter(|engine| engine.metadata.deletion_timestamp.is_none());
        found.ok_or_else(Refusal::not_found)
    }

    async fn create_engine(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let fields = call.fields()?;
        let name = given_name(fields.required("name")?)?;
        let pool_name = fields.required("poolname")?;
        self.require(call, caller, "create", &format!("engines:{name}"))?;
        let pool = self.pool(call, pool_name).await?;
        if pool.is_none() {
            return Err(Refusal::bad("specified pool doesn't exist"));
        }
        let root = self.root_hash().await?;
        let namespace = &call.tenant.namespace;
        let key = EngineKey::generate(root, namespace).map_err(|error| Refusal::new(500, error.to_string()))?;
        let spec = EngineSpec {
            pool: object_name(pool_name),
            public_key: Some(key.public().to_string()),
            previous_public_key: None,
            disabled: None,
        };
        let mut engine = Engine::new(&object_name(name), spec);
        note(&mut engine, name, namespace, &caller.subject);
        let made = match objects::make(&self.client, namespace, &engine).await {
            Ok(made) => made,
            Err(error) if error.is_conflict() => {
                return Err(Refusal::bad("an engine with this name already exists"));
            }
            Err(error) => return Err(error.into()),
        };
        let mut shown = self.shown_engine(&made, pool.as_ref());
        shown.insert("privateKey".to_owned(), json!(key.text().reveal()));
        Ok(Reply::created(shown.into()))
    }

    /// The very first leader makes the root key some seconds after the first replica serves.
    async fn root_hash(&self) -> Result<RootHash, Refusal> {
        let until = tokio::time::Instant::now() + ROOT_PATIENCE;
        loop {
            match installation::root_hash(&self.client, &self.settings.home).await {
                Ok(root) => return Ok(root),
                Err(error) if tokio::time::Instant::now() >= until => {
                    tracing::warn!(error = %chain(&error), "no engine can be made without {ROOT_SECRET}");
                    let message = "the installation has no root key yet; try again in some seconds";
                    return Err(Refusal::new(503, message));
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn list_engines(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let mut found = self.engines_of(call).await?;
        let term = call.asked("searchTerm").unwrap_or_default().to_lowercase();
        let pool = call.asked("poolName").map(object_name);
        found.retain(|engine| {
            let name = name_of(engine);
            name.to_lowercase().contains(&term)
                && pool.as_ref().is_none_or(|pool| engine.spec.pool == *pool)
                && self.may(call, caller, "list", &format!("engines:{name}"))
        });
        let (page, sorting) = (Page::read(call)?, Sorting::read(call)?);
        sort(sorting, &mut found);
        let (items, mut envelope) = page.cut(found, sorting);
        let pools = self.pools_of(call).await?;
        let pool_of = |engine: &Engine| pools.iter().find(|pool| pool.name_any() == engine.spec.pool);
        let engines = items
            .iter()
            .map(|engine| Value::Object(self.shown_engine(engine, pool_of(engine))));
        envelope.insert("engines".to_owned(), engines.collect());
        Ok(Reply::ok(envelope.into()))
    }

    /// Everything but the private key, which nobody has but the engine.
    fn shown_engine(&self, engine: &Engine, pool: Option<&EnginePool>) -> Map<String, Value> {
        let mut all = common(engine);
        let status = engine.status.clone().unwrap_or_default();
        all.insert(
            "poolName".into(),
            json!(pool.map_or_else(|| engine.spec.pool.clone(), name_of)),
        );
        all.insert("endpoint".into(), json!(self.settings.endpoints.join(",")));
        all.insert(
            "publicKey".into(),
            json!(engine.spec.public_key.clone().unwrap_or_default()),
        );
        let heard = status.last_heartbeat.map(|at| time::text(at.0)).unwrap_or_default();
        all.insert("lastHeartbeat".into(), json!(heard));
        all
    }
}
