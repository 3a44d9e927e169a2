//! Engine pools: `EnginePool` objects of the tenant's namespace.

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::page::{Page, Sorting};
use super::reply::{Refusal, Reply};
use super::secrets::item::Stamp;
use super::time;
use crate::api::names::{GIVEN_NAME, MANAGED_BY, OPERATOR, object_name};
use crate::api::{Engine, EnginePool, EnginePoolSpec};
use crate::cluster::{Intention, objects};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Map, Value, json};

/// Annotation: version, times and people, as JSON; the same as on secrets.
const RECORD: &str = super::secrets::item::RECORD;

impl Vault {
    /// Everything below `/v1/pools`.
    pub(super) async fn pools(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        match (&call.method, call.segments().as_slice()) {
            (&Method::POST, []) => self.create_pool(call, caller).await,
            (&Method::GET, []) => self.list_pools(call, caller).await,
            (&Method::GET, [name]) => {
                self.require(call, caller, "read", &format!("pools:{name}"))?;
                let pool = self.pool(call, name).await?.ok_or_else(Refusal::not_found)?;
                Ok(Reply::ok(shown(&pool).into()))
            }
            (&Method::DELETE, [name]) => self.delete_pool(call, caller, name).await,
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    /// A pool by the name that a DSV client knows it by.
    pub(super) async fn pool(&self, call: &Call, name: &str) -> Result<Option<EnginePool>, Refusal> {
        let found = objects::read(&self.client, &call.tenant.namespace, &object_name(name)).await?;
        Ok(found.filter(|pool: &EnginePool| pool.metadata.deletion_timestamp.is_none()))
    }

    async fn create_pool(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let fields = call.fields()?;
        let name = given_name(fields.required("name")?)?;
        self.require(call, caller, "create", &format!("pools:{name}"))?;
        let pool = self.make_pool(call, name, &caller.subject).await?;
        let pool = pool.ok_or_else(|| Refusal::bad("a pool with this name already exists"))?;
        Ok(Reply::created(shown(&pool).into()))
    }

    async fn make_pool(&self, call: &Call, name: &str, by: &str) -> Result<Option<EnginePool>, Refusal> {
        let spec = EnginePoolSpec {
            engines: None,
            access: Vec::new(),
        };
        let mut pool = EnginePool::new(&object_name(name), spec);
        note(&mut pool, name, &call.tenant.namespace, by);
        match objects::make(&self.client, &call.tenant.namespace, &pool).await {
            Ok(made) => Ok(Some(made)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn list_pools(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let term = call.asked("searchTerm").unwrap_or_default().to_lowercase();
        let mut found = self.pools_of(call).await?;
        found.retain(|pool| {
            let name = name_of(pool);
            name.to_lowercase().contains(&term) && self.may(call, caller, "list", &format!("pools:{name}"))
        });
        let (page, sorting) = (Page::read(call)?, Sorting::read(call)?);
        sort(sorting, &mut found);
        let (pools, mut envelope) = page.cut(found, sorting);
        let pools: Vec<Value> = pools.iter().map(|pool| shown(pool).into()).collect();
        envelope.insert("pools".to_owned(), json!(pools));
        Ok(Reply::ok(envelope.into()))
    }

    async fn delete_pool(&self, call: &Call, caller: &Caller, name: &str) -> Result<Reply, Refusal> {
        self.require(call, caller, "delete", &format!("pools:{name}"))?;
        let pool = self.pool(call, name).await?.ok_or_else(Refusal::not_found)?;
        let engines = self.engines_of(call).await?;
        let inside: Vec<String> = engines
            .iter()
            .filter(|engine| engine.spec.pool == pool.name_any() && engine.metadata.deletion_timestamp.is_none())
            .map(name_of)
            .collect();
        if !inside.is_empty() {
            let message = format!(
                "pool {name} still has engines: {}; delete them first",
                inside.join(", ")
            );
            return Err(Refusal::bad(message));
        }
        objects::delete(&self.client, &pool).await?;
        Ok(Reply::nothing())
    }

    pub(super) async fn pools_of(&self, call: &Call) -> Result<Vec<EnginePool>, Refusal> {
        let api: Api<EnginePool> = Api::namespaced(self.client.clone(), &call.tenant.namespace);
        let all = api
            .list(&ListParams::default())
            .await
            .to(|| "list the pools".to_owned())?;
        Ok(all.items)
    }

    pub(super) async fn engines_of(&self, call: &Call) -> Result<Vec<Engine>, Refusal> {
        let api: Api<Engine> = Api::namespaced(self.client.clone(), &call.tenant.namespace);
        let all = api
            .list(&ListParams::default())
            .await
            .to(|| "list the engines".to_owned())?;
        Ok(all.items)
    }
}

/// The rule that the stock CLI has for names of pools and engines.
pub fn given_name(name: &str) -> Result<&str, Refusal> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=100).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(name);
    }
    let fault = "must be 1 to 100 letters, numbers, underscores and dashes";
    Err(Refusal::fields(vec![("name".to_owned(), fault.to_owned())]))
}

/// What DSV clients know a pool or engine by.
pub fn name_of(object: &impl ResourceExt) -> String {
    object
        .annotations()
        .get(GIVEN_NAME)
        .cloned()
        .unwrap_or_else(|| object.name_any())
}

/// Puts in what only DSV clients ask for.
pub fn note<K: Resource<DynamicType = ()>>(object: &mut K, name: &str, namespace: &str, by: &str) {
    let record = serde_json::to_string(&Stamp::first(by)).unwrap_or_default();
    let meta: &mut ObjectMeta = object.meta_mut();
    meta.namespace = Some(namespace.to_owned());
    let labels = meta.labels.get_or_insert_default();
    labels.insert(MANAGED_BY.to_owned(), OPERATOR.to_owned());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(GIVEN_NAME.to_owned(), name.to_owned());
    annotations.insert(RECORD.to_owned(), record);
}

/// Newest first, or by name.
pub fn sort<K: ResourceExt>(sorting: Sorting, all: &mut [K]) {
    let by_name = sorting.by_name;
    sorting.sort(all, |object| {
        let made = object.creation_timestamp().map(|at| at.0);
        (made.filter(|_| !by_name), name_of(object))
    });
}

/// What every stored object shows.
pub fn common(object: &impl ResourceExt) -> Map<String, Value> {
    let stamp = object.annotations().get(RECORD);
    let stamp = stamp.and_then(|text| serde_json::from_str::<Stamp>(text).ok());
    let made = object.creation_timestamp().map(|at| at.0).unwrap_or_default();
    let stamp = stamp.unwrap_or_else(|| Stamp {
        created: made,
        last_modified: made,
        ..Stamp::first("kubernetes")
    });
    let all = json!({
        "name": name_of(object),
        "id": object.uid(),
        "version": stamp.version.to_string(),
        "created": time::text(stamp.created),
        "createdBy": stamp.created_by,
        "lastModified": time::text(stamp.last_modified),
        "lastModifiedBy": stamp.last_modified_by,
    });
    match all {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn shown(pool: &EnginePool) -> Map<String, Value> {
    common(pool)
}
