//! The label that points the channel's Service to the pod that leads.

use super::{Error, Intention};
use crate::api::names::LEADER_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// Labels our pod and takes the label off all others: a former leader that was cut off may still carry it.
pub async fn point_here(client: &Client, home: &str, pod: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), home);
    label(&api, pod, Some("true")).await?;
    let labelled = ListParams::default().labels(LEADER_LABEL);
    let others = api
        .list_metadata(&labelled)
        .await
        .to(|| "list the pods with the leader label".to_owned())?;
    for other in others.items.iter().filter(|other| other.name_any() != pod) {
        label(&api, &other.name_any(), None).await?;
    }
    Ok(())
}

async fn label(api: &Api<Pod>, pod: &str, value: Option<&str>) -> Result<(), Error> {
    let patch = json!({"metadata": {"labels": {LEADER_LABEL: value}}});
    match api
        .patch_metadata(pod, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() && value.is_none() => Ok(()),
        other => other.map(|_| ()).to(|| format!("write the leader label of pod {pod}")),
    }
}
