//! Pods, Jobs and ServiceAccounts that leases are bound to, looked at live and one by one: a cache of all pods of a cluster
//! would be far larger than everything else that the operator knows.

use super::{Error, Intention};
use crate::api::lease::{BoundKind, BoundTo};
use crate::plan::bound::Look;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// How what a lease is bound to is now.
pub async fn look(client: &Client, namespace: &str, bound: &BoundTo) -> Look {
    let looked = match bound.kind {
        BoundKind::Pod => read(client, namespace, bound, pod_finished).await,
        BoundKind::Job => read(client, namespace, bound, job_finished).await,
        BoundKind::ServiceAccount => exists(client, namespace, bound).await,
    };
    looked.unwrap_or_else(|error| {
        let why = error.status().map(|status| status.message.clone());
        Look::Unknown(why.unwrap_or_else(|| "the API server did not answer".to_owned()))
    })
}

async fn read<K>(client: &Client, namespace: &str, bound: &BoundTo, finished: fn(&K) -> bool) -> Result<Look, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let found: Option<K> = super::objects::read(client, namespace, &bound.name).await?;
    Ok(found.map_or(Look::Absent, |found| Look::There {
        uid: found.uid().unwrap_or_default(),
        finished: finished(&found),
    }))
}

/// Its metadata say all that there is to know.
async fn exists(client: &Client, namespace: &str, bound: &BoundTo) -> Result<Look, Error> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let found = api.get_metadata_opt(&bound.name).await;
    let found: Option<PartialObjectMeta<ServiceAccount>> = found.to(|| format!("read {bound} in {namespace}"))?;
    Ok(found.map_or(Look::Absent, |found| Look::There {
        uid: found.uid().unwrap_or_default(),
        finished: false,
    }))
}

fn pod_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn job_finished(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"));
    ended.next().is_some()
}
