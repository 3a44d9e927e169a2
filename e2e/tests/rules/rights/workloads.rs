//! Admission policies about workloads that are restarted: what the operator may change on them, and who may ask for it.

use std::time::Duration;

use e2e::install::{NAMESPACE as HOME, SERVICE_ACCOUNT};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::rights::cluster;
use crate::rights::fences::{acting_as, api, dynamic_secret, object, refused};

const WORKLOADS: &str = "workloads";

/// A new policy takes a moment to be in force; `attempt` changes nothing.
async fn in_force<T, A: Future<Output = Result<T, Error>>>(says: &str, attempt: impl Fn() -> A) {
    for _ in 0..300 {
        if let Err(Error::Api(status)) = attempt().await
            && status.message.contains(says)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("nothing is refused with: {says}");
}

/// A namespace in which the operator's account may patch and update workloads as far as roles go, and a user may write dynamic
/// secrets, but patch only the Deployment `own`.
async fn workloads() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_init(make_workloads).await;
}

async fn make_workloads() {
    let cluster = cluster().await;
    let role = |name: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": WORKLOADS}, "rules": rules,
        })
    };
    let binding = |name: &str, subject: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": WORKLOADS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}, "subjects": [subject],
        })
    };
    let operator = json!({"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": HOME});
    let writer = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "writer"});
    let apps = ["deployments", "statefulsets", "daemonsets"];
    let manifests = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORKLOADS}}),
        role(
            "restarts",
            json!([{"apiGroups": ["apps"], "resources": apps, "verbs": ["get", "patch", "update", "delete"]}]),
        ),
        binding("restarts", operator),
        role(
            "writer",
            json!([
                {"apiGroups": ["dsv.dev"], "resources": ["dynamicsecrets"], "verbs": ["create", "patch", "get"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["own"], "verbs": ["patch"]},
            ]),
        ),
        binding("writer", writer),
    ];
    let manifests: Vec<String> = manifests.iter().map(Value::to_string).collect();
    cluster.apply(&manifests.join("\n---\n")).unwrap();
}

fn workload(client: &Client, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("apps", "v1", kind);
    Api::namespaced_with(client.clone(), WORKLOADS, &ApiResource::from_gvk(&kind))
}

fn workload_object(kind: &str, name: &str, annotations: &Value) -> DynamicObject {
    let mut whole = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"example.com/note": "theirs"}},
                "spec": {"containers": [{"name": "app", "image": "app.invalid/app"}]},
            },
        },
    });
    if kind == "StatefulSet" {
        whole["spec"]["serviceName"] = json!(name);
    }
    object(whole)
}

fn noted(note: &Value) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {"restarted-for.dsv.dev/orders-app": note}}}}})
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one table")]
async fn on_a_workload_the_operator_changes_one_annotation_and_only_where_it_is_allowed() {
    workloads().await;
    let admin = cluster().await.client().await.unwrap();
    let operator = acting_as(SERVICE_ACCOUNT).await;
    let (post, params) = (PostParams::default(), PatchParams::default());
    let only = "dsv-operator may change nothing on a workload but the annotations restarted-for.dsv.dev/";
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        let (theirs, ours) = (workload(&admin, kind), workload(&operator, kind));
        for (name, annotations) in [
            ("allowed", json!({"dsv.dev/restart": "allowed"})),
            ("otherwise", json!({"dsv.dev/restart": "true"})),
            ("silent", json!({})),
        ] {
            theirs
                .create(&post, &workload_object(kind, name, &annotations))
                .await
                .unwrap();
        }
        let dry = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let note = Patch::Merge(noted(&json!("app-1")));
        in_force("dsv-operator may restart only", || ours.patch("silent", &dry, &note)).await;
        for name in ["otherwise", "silent"] {
            refused(
                ours.patch(name, &params, &Patch::Merge(&noted(&json!("app-1")))).await,
                "dsv-operator may restart only workloads that are annotated dsv.dev/restart=allowed",
            );
            let mut allow = noted(&json!("app-1"));
            allow["metadata"] = json!({"annotations": {"dsv.dev/restart": "allowed"}});
            refused(
                ours.patch(name, &params, &Patch::Merge(&allow)).await,
                "dsv-operator may restart only",
            );
        }
        // Again with the same value, with another one, and taken off.
        for note in [
            json!("app-1"),
            json!("app-1"),
            json!("app-2"),
            json!(null),
            json!("app-3"),
        ] {
            ours.patch("allowed", &params, &Patch::Merge(&noted(&note)))
                .await
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        let before = theirs.get("allowed").await.unwrap();
        for patch in [
            json!({"metadata": {"labels": {"a": "b"}}}),
            json!({"metadata": {"annotations": {"a": "b"}}}),
            json!({"metadata": {"annotations": {"dsv.dev/restart": null}}}),
            json!({"metadata": {"finalizers": ["example.com/stay"]}}),
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]}}),
            json!({"spec": {"minReadySeconds": 7}}),
            json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
            json!({"spec": {"template": {"metadata": {"annotations": {"example.com/note": null}}}}}),
            json!({"spec": {"template": {"metadata": {"annotations": {"example.com/note": "ours"}}}}}),
            json!({"spec": {"template": {"metadata": {"annotations": {"example.com/other": "ours"}}}}}),
            json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "other.invalid/app"}]}}}}),
        ] {
            let mut patch = patch;
            patch["spec"]["template"]["metadata"]["annotations"]["restarted-for.dsv.dev/orders-app"] = json!("app-4");
            refused(ours.patch("allowed", &params, &Patch::Merge(&patch)).await, only);
        }
        if kind != "DaemonSet" {
            refused(
                ours.patch("allowed", &params, &Patch::Merge(&json!({"spec": {"replicas": 5}})))
                    .await,
                only,
            );
        }
        let after = theirs.get("allowed").await.unwrap();
        assert_eq!(before.data["spec"], after.data["spec"]);
    }
}

#[tokio::test]
async fn who_has_workloads_restarted_must_be_allowed_to_patch_each_of_them() {
    workloads().await;
    let writer = api(&acting_as("writer").await, "DynamicSecret", WORKLOADS);
    let (post, params) = (PostParams::default(), PatchParams::default());
    let with = |name: &str, restart: Value| {
        let mut one = dynamic_secret(name);
        one.data["spec"]["issuance"] = json!({"mode": "Rotate"});
        one.data["spec"]["target"] = json!({"restart": restart});
        one
    };
    let own = json!({"kind": "Deployment", "name": "own"});
    let says = "who writes spec.target.restart must be allowed to patch the workloads that it names";
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let one = with("restarts", json!([{"kind": "Deployment", "name": "foreign"}]));
    in_force(says, || writer.create(&dry, &one)).await;
    for foreign in [
        json!([{"kind": "Deployment", "name": "foreign"}]),
        json!([own, {"kind": "StatefulSet", "name": "own"}]),
        json!([own, {"kind": "DaemonSet", "name": "own"}]),
    ] {
        refused(writer.create(&post, &with("restarts", foreign)).await, says);
    }
    writer.create(&post, &dynamic_secret("plain")).await.unwrap();
    writer.create(&post, &with("restarts", json!([own]))).await.unwrap();
    let add = json!({"spec": {"target": {"restart": [own, {"kind": "Deployment", "name": "foreign"}]}}});
    refused(writer.patch("restarts", &params, &Patch::Merge(&add)).await, says);
    let many: Vec<Value> = (0..8)
        .map(|n| json!({"kind": "Deployment", "name": format!("foreign-{n}")}))
        .collect();
    refused(writer.create(&post, &with("many", json!(many))).await, says);
    // An administrator may have as many as there can be; and what he wrote stands in nobody's way who changes something else.
    let admin = api(&cluster().await.client().await.unwrap(), "DynamicSecret", WORKLOADS);
    admin.create(&post, &with("many", json!(many))).await.unwrap();
    let note = json!({"metadata": {"annotations": {"example.com/note": "x"}}});
    writer.patch("many", &params, &Patch::Merge(&note)).await.unwrap();
    refused(
        writer
            .patch("many", &params, &Patch::Merge(&json!({"spec": {"ttl": 600}})))
            .await,
        says,
    );
}
