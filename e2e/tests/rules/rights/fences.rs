//! Admission policies: what roles alone cannot say, tried for real.

use e2e::install::{NAMESPACE as HOME, SERVICE_ACCOUNT};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error, ResourceExt};
use serde_json::{Value, json};

use crate::rights::{ELSEWHERE, ROLES, cluster};

/// A client that acts as somebody: the operator by its own token, people by impersonation.
pub async fn acting_as(who: &str) -> Client {
    let cluster = cluster().await;
    if who == SERVICE_ACCOUNT {
        // One for each: a file that another test is writing is half a file.
        let file = format!("operator-{:08x}.kubeconfig", rand::random::<u32>());
        let path = cluster.kubeconfig().with_file_name(file);
        cluster
            .service_account_kubeconfig((HOME, SERVICE_ACCOUNT), cluster.endpoint(), &path)
            .await
            .unwrap();
        return e2e::control_plane::client(&path).await.unwrap();
    }
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.proxy_url = None;
    config.auth_info.impersonate = Some(who.to_owned());
    Client::try_from(config).unwrap()
}

pub fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = if kind == "Secret" {
        ("", "v1")
    } else {
        ("dsv.dev", "v1alpha1")
    };
    Api::namespaced_with(
        client.clone(),
        namespace,
        &ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)),
    )
}

pub fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn secret(name: &str, labels: &Value, kind: &str) -> DynamicObject {
    object(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "type": kind, "data": {"a": "eA=="}}),
    )
}

fn marked() -> Value {
    json!({"app.kubernetes.io/managed-by": "dsv-operator"})
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, says: &str) {
    match answer {
        Err(Error::Api(status)) => {
            assert_eq!(status.code, 403, "{}", status.message);
            assert!(status.message.contains(says), "{}", status.message);
        }
        other => panic!("not refused: {other:?}"),
    }
}

const FENCE: &str = "dsv-operator may write and delete only Secrets labelled app.kubernetes.io/managed-by=dsv-operator";

#[tokio::test]
async fn the_operator_cannot_write_delete_or_adopt_a_secret_that_is_not_marked_as_its_own() {
    let admin = api(&cluster().await.client().await.unwrap(), "Secret", ELSEWHERE);
    let operator = api(&acting_as(SERVICE_ACCOUNT).await, "Secret", ELSEWHERE);
    let post = PostParams::default();
    refused(
        operator.create(&post, &secret("new", &json!({}), "Opaque")).await,
        FENCE,
    );
    refused(
        operator
            .create(
                &post,
                &secret("new", &json!({"app.kubernetes.io/managed-by": "Helm"}), "Opaque"),
            )
            .await,
        FENCE,
    );
    let foreign = [
        ("plain", json!({})),
        ("helm", json!({"app.kubernetes.io/managed-by": "Helm"})),
        ("lookalike", json!({"dsv.dev/lease": "x"})),
    ];
    for (name, labels) in foreign {
        let stored = admin.create(&post, &secret(name, &labels, "Opaque")).await.unwrap();
        let merge = |patch: Value| {
            let operator = operator.clone();
            async move {
                operator
                    .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
                    .await
            }
        };
        refused(merge(json!({"data": {"a": "eQ=="}})).await, FENCE);
        refused(merge(json!({"metadata": {"labels": marked()}})).await, FENCE);
        refused(
            merge(json!({"metadata": {"labels": marked()}, "data": {"a": "eQ=="}})).await,
            FENCE,
        );
        let mut adopted = stored.clone();
        adopted.metadata.labels = serde_json::from_value(marked()).unwrap();
        refused(operator.replace(name, &post, &adopted).await, FENCE);
        let applied = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": marked()}});
        refused(
            operator
                .patch(name, &PatchParams::apply("operator").force(), &Patch::Apply(&applied))
                .await,
            FENCE,
        );
        refused(operator.delete(name, &DeleteParams::default()).await, FENCE);
        assert_eq!(admin.get(name).await.unwrap(), stored);
    }
    refused(
        operator
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await,
        "cannot deletecollection resource \"secrets\"",
    );
}

#[tokio::test]
async fn the_operator_writes_its_own_secrets_and_cannot_give_them_away_or_make_other_types() {
    let admin = api(&cluster().await.client().await.unwrap(), "Secret", ELSEWHERE);
    let operator = api(&acting_as(SERVICE_ACCOUNT).await, "Secret", ELSEWHERE);
    let post = PostParams::default();
    for (name, kind) in [
        ("own-a", "Opaque"),
        ("own-b", "servicebinding.io/postgresql"),
        ("own-c", "dsv.dev/internal"),
    ] {
        operator.create(&post, &secret(name, &marked(), kind)).await.unwrap();
        let change = json!({"data": {"a": "eQ=="}});
        operator
            .patch(name, &PatchParams::default(), &Patch::Merge(&change))
            .await
            .unwrap();
        let unmarked = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
        refused(
            operator
                .patch(name, &PatchParams::default(), &Patch::Merge(&unmarked))
                .await,
            FENCE,
        );
        // Whoever takes the mark off by hand has released it.
        admin
            .patch(name, &PatchParams::default(), &Patch::Merge(&unmarked))
            .await
            .unwrap();
        refused(operator.delete(name, &DeleteParams::default()).await, FENCE);
        admin
            .patch(
                name,
                &PatchParams::default(),
                &Patch::Merge(&json!({"metadata": {"labels": marked()}})),
            )
            .await
            .unwrap();
        operator.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for kind in [
        "kubernetes.io/service-account-token",
        "kubernetes.io/tls",
        "bootstrap.kubernetes.io/token",
    ] {
        let mut other = secret("other", &marked(), kind);
        // A token of this account is what such a Secret would be filled with.
        other
            .annotations_mut()
            .insert("kubernetes.io/service-account.name".into(), "default".into());
        other.data["data"] = json!({"tls.crt": "eA==", "tls.key": "eA=="});
        refused(
            operator.create(&post, &other).await,
            "dsv-operator may write only Secrets of type",
        );
    }
}

pub fn dynamic_secret(name: &str) -> DynamicObject {
    object(json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": name},
        "spec": {
            "pool": {"name": "orders"}, "linkConfig": {"linkType": "dynamic", "linkedSecret": "orders-db"},
            "grantPermissions": {"what": "SELECT", "where": "public.orders"}, "ttl": 60,
        },
    }))
}

fn lease(name: &str, metadata: &Value, spec: &Value) -> DynamicObject {
    let mut lease = json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "CredentialLease", "metadata": {"name": name},
        "spec": {"dynamicSecret": "orders-app", "target": {"name": "login"}},
        "status": {"phase": "Issued", "username": "forged"},
    });
    for (part, patch) in [("metadata", metadata), ("spec", spec)] {
        for (key, value) in patch.as_object().unwrap() {
            lease[part][key] = value.clone();
        }
    }
    object(lease)
}

fn claim() -> Value {
    let at = "2030-01-01T00:00:00Z";
    json!({
        "maker": {"holder": "op-1", "term": 1}, "dynamicSecretUid": "u", "serial": 1, "server": "server-x",
        "pool": {"namespace": "databases", "name": "orders", "uid": "p"},
        "group": {"name": "dsvg_x", "grants": [], "since": at}, "userPrefix": "", "fingerprint": "f", "ttlSeconds": 60,
        "claimedAt": at, "issueDeadline": at, "validUntil": at, "expiresAt": at, "ownedObjects": "Reassign",
    })
}

#[tokio::test]
async fn only_the_operator_makes_leases_that_look_like_its_own() {
    let post = PostParams::default();
    let cluster_admin = cluster().await.client().await.unwrap();
    let none = json!({});
    for (who, client) in [
        ("edit", acting_as("edit").await),
        ("admin", acting_as("admin").await),
        ("cluster-admin", cluster_admin),
    ] {
        let leases = api(&client, "CredentialLease", ELSEWHERE);
        let claimed = lease("claimed", &none, &json!({"claim": claim()}));
        refused(
            leases.create(&post, &claimed).await,
            "spec.claim is written by the operator only; leave it out",
        );
        let held = lease("held", &json!({"finalizers": ["dsv.dev/revoke"]}), &none);
        refused(
            leases.create(&post, &held).await,
            "the finalizer dsv.dev/revoke is set by the operator only; leave it out",
        );
        let labelled = lease("labelled", &json!({"labels": {"dsv.dev/pool": "x"}}), &none);
        refused(
            leases.create(&post, &labelled).await,
            "labels of dsv.dev on a lease are set by the operator only; leave them out",
        );
        let name = format!("asked-by-{who}");
        let asked = leases
            .create(&post, &lease(&name, &json!({"labels": {"team": "shop"}}), &none))
            .await
            .unwrap();
        assert_eq!(asked.data.get("status"), None, "a status came in with the request");
        leases.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    let leases = api(&acting_as(SERVICE_ACCOUNT).await, "CredentialLease", ELSEWHERE);
    let metadata = json!({"finalizers": ["dsv.dev/revoke"], "labels": {"dsv.dev/pool": "x"}});
    let own = lease("own", &metadata, &json!({"claim": claim()}));
    let made = leases.create(&post, &own).await.unwrap();
    assert_eq!(made.metadata.finalizers, Some(vec!["dsv.dev/revoke".to_owned()]));
    leases
        .patch(
            "own",
            &PatchParams::default(),
            &Patch::Merge(&json!({"metadata": {"finalizers": null}})),
        )
        .await
        .unwrap();
    leases.delete("own", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn nobody_but_the_operator_writes_a_status_or_changes_a_lease() {
    let post = PostParams::default();
    let editor = acting_as("edit").await;
    let operator = acting_as(SERVICE_ACCOUNT).await;
    api(&editor, "DynamicSecret", ELSEWHERE)
        .create(&post, &dynamic_secret("reported"))
        .await
        .unwrap();
    api(&editor, "CredentialLease", ELSEWHERE)
        .create(&post, &lease("reported", &json!({}), &json!({})))
        .await
        .unwrap();
    let forged = json!({"status": {"username": "forged"}});
    for role in ROLES {
        let client = acting_as(role).await;
        for kind in ["DynamicSecret", "CredentialLease"] {
            let forge = api(&client, kind, ELSEWHERE)
                .patch_status("reported", &PatchParams::default(), &Patch::Merge(&forged))
                .await;
            refused(forge, "cannot patch resource");
        }
        let leases = api(&client, "CredentialLease", ELSEWHERE);
        let held = json!({"metadata": {"finalizers": ["dsv.dev/revoke"], "labels": {"dsv.dev/pool": "x"}}});
        refused(
            leases
                .patch("reported", &PatchParams::default(), &Patch::Merge(&held))
                .await,
            "cannot patch resource",
        );
    }
    refused(
        api(&acting_as("view").await, "CredentialLease", ELSEWHERE)
            .get("reported")
            .await,
        "cannot get resource",
    );
    // By the front door a status is not heard.
    let written = api(&editor, "DynamicSecret", ELSEWHERE)
        .patch("reported", &PatchParams::default(), &Patch::Merge(&forged))
        .await
        .unwrap();
    assert_eq!(written.data.get("status"), None);
    for kind in ["DynamicSecret", "CredentialLease"] {
        let reported = api(&operator, kind, ELSEWHERE)
            .patch_status(
                "reported",
                &PatchParams::default(),
                &Patch::Merge(&json!({"status": {"username": "shop_x"}})),
            )
            .await;
        assert_eq!(reported.unwrap().data["status"]["username"], "shop_x");
    }
}
