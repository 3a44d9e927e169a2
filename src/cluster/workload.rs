//! Deployments, StatefulSets and `DaemonSets` that are restarted for a credential: looked at live, and changed in one
//! annotation of their pod template. An admission policy holds the operator to that annotation.

use super::{Error, Intention};
use crate::api::names::{RESTART, RESTART_ALLOWED};
use crate::api::target::{WorkloadKind, WorkloadReference};
use crate::plan::restart::{Look, Workload};
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// In whose name the annotation is written.
const MANAGER: &str = "dsv.dev/restart";

/// How a workload is; `annotation` is the one that tells for which credential it was restarted.
pub async fn look(client: &Client, namespace: &str, workload: &WorkloadReference, annotation: &str) -> Look {
    let found = api(client, namespace, workload.kind).get_opt(&workload.name).await;
    match found.to(|| format!("read {}", named(namespace, workload))) {
        Ok(Some(found)) => Look::Seen(read(workload.kind, &found, annotation)),
        Ok(None) => Look::Missing,
        Err(error) => failed(&error),
    }
}

/// Restarts a workload: its pods are replaced unless the template has this value already.
pub async fn restart(
    client: &Client,
    namespace: &str,
    workload: &WorkloadReference,
    annotation: &str,
    revision: &str,
) -> Result<(), Error> {
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {annotation: revision}}}}});
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = api(client, namespace, workload.kind)
        .patch(&workload.name, &params, &Patch::Merge(&patch))
        .await;
    written
        .map(|_| ())
        .to(|| format!("restart {}", named(namespace, workload)))
}

/// What a request that failed says of the workload.
pub fn failed(error: &Error) -> Look {
    match error.status() {
        Some(status) if status.code == 403 => Look::Forbidden(status.message.clone()),
        _ if error.is_not_found() => Look::Missing,
        _ => {
            tracing::info!(
                error = error as &dyn std::error::Error,
                "a workload could not be restarted or looked at"
            );
            Look::Unknown
        }
    }
}

fn named(namespace: &str, workload: &WorkloadReference) -> String {
    format!("{} {namespace}/{}", workload.kind.as_str(), workload.name)
}

fn api(client: &Client, namespace: &str, kind: WorkloadKind) -> Api<DynamicObject> {
    let kind_of = GroupVersionKind::gvk("apps", "v1", kind.as_str());
    let resource = ApiResource::from_gvk_with_plural(&kind_of, kind.plural());
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn read(kind: WorkloadKind, found: &DynamicObject, annotation: &str) -> Workload {
    let at = |pointer: &str| found.data.pointer(pointer);
    let status = |name: &str| at(&format!("/status/{name}")).and_then(Value::as_i64).unwrap_or(0);
    let notes = at("/spec/template/metadata/annotations");
    let daemon = kind == WorkloadKind::DaemonSet;
    let replicas = at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let partition = at("/spec/updateStrategy/rollingUpdate/partition").and_then(Value::as_i64);
    let generation = found.metadata.generation.unwrap_or(0);
    let of = |daemons: &str, others: &str| status(if daemon { daemons } else { others });
    Workload {
        allowed: found.annotations().get(RESTART).map(String::as_str) == Some(RESTART_ALLOWED),
        paused: at("/spec/paused").and_then(Value::as_bool) == Some(true),
        by_hand: at("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete")
            || partition.is_some_and(|from| from > 0),
        created_at: found.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |at| at.0),
        restarted_for: notes
            .and_then(|notes| notes.get(annotation))
            .and_then(Value::as_str)
            .map(str::to_owned),
        observed: status("observedGeneration") >= generation,
        wanted: if daemon {
            status("desiredNumberScheduled")
        } else {
            replicas
        },
        present: of("currentNumberScheduled", "replicas"),
        updated: of("updatedNumberScheduled", "updatedReplicas"),
        ready: of("numberReady", "readyReplicas"),
        available: of("numberAvailable", "availableReplicas"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(kind: WorkloadKind, object: Value) -> Workload {
        let found: DynamicObject = serde_json::from_value(object).unwrap();
        read(kind, &found, "restarted-for.dsv.dev/app")
    }

    #[test]
    fn a_deployment_is_read_as_its_controller_wrote_it() {
        let object = json!({
            "metadata": {
                "name": "web", "generation": 4, "creationTimestamp": "1970-01-01T00:01:00Z",
                "annotations": {"dsv.dev/restart": "allowed"},
            },
            "spec": {
                "replicas": 3,
                "template": {"metadata": {"annotations": {"restarted-for.dsv.dev/app": "app-x-1"}}},
            },
            "status": {"observedGeneration": 4, "replicas": 4, "updatedReplicas": 2, "readyReplicas": 3, "availableReplicas": 3},
        });
        let expected = Workload {
            allowed: true,
            paused: false,
            by_hand: false,
            created_at: Timestamp::from_second(60).unwrap(),
            restarted_for: Some("app-x-1".into()),
            observed: true,
            wanted: 3,
            present: 4,
            updated: 2,
            ready: 3,
            available: 3,
        };
        assert_eq!(seen(WorkloadKind::Deployment, object), expected);
        let bare = seen(
            WorkloadKind::Deployment,
            json!({"metadata": {"generation": 1}, "spec": {"paused": true}}),
        );
        assert!(!bare.allowed && bare.paused && !bare.observed && bare.wanted == 1);
    }

    #[test]
    fn sets_that_wait_for_a_hand_are_known_and_daemons_are_counted_by_nodes() {
        for strategy in [
            json!({"type": "OnDelete"}),
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}),
        ] {
            let object = json!({"metadata": {}, "spec": {"updateStrategy": strategy}});
            assert!(seen(WorkloadKind::StatefulSet, object).by_hand);
        }
        let daemons = json!({
            "metadata": {"generation": 1},
            "spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}},
            "status": {
                "observedGeneration": 1, "desiredNumberScheduled": 5, "currentNumberScheduled": 5,
                "updatedNumberScheduled": 4, "numberReady": 3, "numberAvailable": 2,
            },
        });
        let seen = seen(WorkloadKind::DaemonSet, daemons);
        assert!(!seen.by_hand);
        assert_eq!(
            (seen.wanted, seen.present, seen.updated, seen.ready, seen.available),
            (5, 5, 4, 3, 2)
        );
    }
}
