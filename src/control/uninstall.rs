//! Taking an installation down while its operator still runs: that one takes the accounts back, this only asks for it and
//! waits. In the order in which things need each other, and nothing is deleted whose account is not proven gone.

use crate::api::names::{BASE_SECRET_LABEL, ENGINE_LABEL, MANAGED_BY, OPERATOR};
use crate::api::{CredentialLease, DsvTenant, DynamicSecret, Engine, EnginePool, SecretSync};
use crate::cluster::{Error, Intention, Parts, objects};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);
/// Objects named in the error; the rest is counted.
const NAMED: usize = 20;

/// Why the installation is not down.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// The API server.
    #[error("could not ask the API server")]
    Cluster(#[from] Error),
    /// Something does not go.
    #[error("after {} s this is left: {}; see why with `kubectl get` and `kubectl describe`, free it, and uninstall again", .0.as_secs(), .1.join("; "))]
    Left(Duration, Vec<String>),
}

/// One installation that goes.
pub struct Uninstall {
    client: Client,
    home: String,
    limit: Duration,
    start: Instant,
}

impl Uninstall {
    /// Of the operator in namespace `home`; gives up after `limit`.
    pub fn new(client: Client, home: String, limit: Duration) -> Self {
        Self {
            client,
            home,
            limit,
            start: Instant::now(),
        }
    }

    /// Returns when nothing of ours is left, in the databases and in the cluster, but the operator's own manifests.
    pub async fn run(&self) -> Result<(), UninstallError> {
        tracing::info!("ending all leases; their accounts are dropped by the engines");
        // Dynamic secrets first: they would issue the next lease. Asked for anew at each look, since one may just be made.
        self.until_gone(async || {
            let mut left = self.delete_all::<DynamicSecret>().await?;
            left.extend(self.delete_all::<CredentialLease>().await?);
            Ok(left)
        })
        .await?;
        tracing::info!("taking back what was pushed to DSV tenants");
        self.until_gone(|| self.delete_all::<SecretSync>()).await?;
        self.until_gone(|| self.delete_all::<DsvTenant>()).await?;
        tracing::info!("waiting until no database server has a role of ours");
        let records = ListParams::default().labels(BASE_SECRET_LABEL);
        self.until_gone(|| self.list::<Secret>(&records)).await?;
        tracing::info!("removing engines and pools");
        self.until_gone(async || {
            let mut left = self.delete_all::<EnginePool>().await?;
            left.extend(self.delete_all::<Engine>().await?);
            Ok(left)
        })
        .await?;
        tracing::info!("ending the operator");
        self.scale_to_zero().await?;
        let replicas = format!("app.kubernetes.io/name={OPERATOR},app.kubernetes.io/component=operator");
        for pods in [ENGINE_LABEL, &replicas] {
            let pods = ListParams::default().labels(pods);
            self.until_gone(|| self.list::<Pod>(&pods)).await?;
        }
        tracing::info!("removing keys and leadership, which nothing refers to any more");
        self.remove_own().await?;
        tracing::info!("nothing is left");
        Ok(())
    }

    async fn until_gone<F>(&self, look: impl Fn() -> F) -> Result<(), UninstallError>
    where
        F: Future<Output = Result<Vec<String>, Error>>,
    {
        loop {
            match look().await {
                Ok(left) if left.is_empty() => return Ok(()),
                Ok(left) if self.start.elapsed() >= self.limit => {
                    return Err(UninstallError::Left(self.start.elapsed(), shortened(left)));
                }
                Err(error) if self.start.elapsed() >= self.limit => return Err(error.into()),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "trying again"),
                Ok(_) => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Deletes all of one kind that are not being deleted, and says what is there.
    async fn delete_all<K>(&self) -> Result<Vec<String>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + serde::Serialize,
    {
        let mut all = Parts::<K>::of(Api::all(self.client.clone()), ListParams::default());
        let mut left = Vec::new();
        loop {
            let part = match all.next().await.to(|| format!("list all {}", K::plural(&()))) {
                // Without its definition there is nothing of a kind.
                Err(error) if error.is_not_found() => return Ok(left),
                part => part?,
            };
            let Some(part) = part else { return Ok(left) };
            for object in part.iter().filter(|one| one.meta().deletion_timestamp.is_none()) {
                objects::delete(&self.client, object).await?;
            }
            left.extend(part.iter().map(told));
        }
    }

    async fn list<K>(&self, which: &ListParams) -> Result<Vec<String>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.home);
        let found = api.list_metadata(which).await;
        let found = found.to(|| format!("list {} in {}", K::plural(&()), self.home))?;
        let name = |name: String| format!("{} {}/{name}", K::kind(&()), self.home);
        Ok(found.items.iter().map(|object| name(object.name_any())).collect())
    }

    async fn scale_to_zero(&self) -> Result<(), Error> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.home);
        let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
        match api.patch_scale(OPERATOR, &PatchParams::default(), &none).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other
                .map(|_| ())
                .to(|| format!("scale Deployment {}/{OPERATOR} to 0", self.home)),
        }
    }

    async fn remove_own(&self) -> Result<(), Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.home);
        let ours = ListParams::default().labels(&format!("{MANAGED_BY}={OPERATOR}"));
        let found = secrets
            .list(&ours)
            .await
            .to(|| format!("list Secrets in {}", self.home))?;
        for secret in &found.items {
            objects::delete(&self.client, secret).await?;
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.home);
        match leases.delete(OPERATOR, &kube::api::DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other
                .map(|_| ())
                .to(|| format!("delete Lease {}/{OPERATOR}", self.home)),
        }
    }
}

/// Kind and name, and what the status says of it.
fn told<K>(object: &K) -> String
where
    K: Resource<DynamicType = ()> + serde::Serialize,
{
    let name = format!(
        "{} {}/{}",
        K::kind(&()),
        object.namespace().unwrap_or_default(),
        object.name_any()
    );
    let whole = serde_json::to_value(object).unwrap_or_default();
    let conditions = whole.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| {
        all.iter()
            .find(|one| one.get("type").is_some_and(|kind| kind == "Ready"))
    });
    let message = ready.and_then(|one| one.get("message")).and_then(Value::as_str);
    message.map_or_else(|| name.clone(), |message| format!("{name} ({message})"))
}

fn shortened(mut left: Vec<String>) -> Vec<String> {
    let more = left.len().saturating_sub(NAMED);
    left.truncate(NAMED);
    if more > 0 {
        left.push(format!("and {more} more"));
    }
    left
}
