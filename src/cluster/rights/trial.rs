//! The rights of the account of `helm test`: to ask for an account in one namespace, see what becomes of the lease, and
//! take it back. Not even a Secret can be read with them. They are there while the test runs.

use super::{Installation, meta, render, role_ref, rule};
use crate::api::names::GROUP;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAME: &str = "dsv-operator-trial";

/// ServiceAccount beside the operator; role and binding in the namespace of the DynamicSecret.
pub fn manifest(installation: &Installation, namespace: &str) -> Result<String, serde_json::Error> {
    let parts = [
        render(&ServiceAccount {
            metadata: hook(&installation.namespace),
            ..ServiceAccount::default()
        })?,
        render(&Role {
            metadata: hook(namespace),
            rules: Some(vec![rule(GROUP, &["credentialleases"], &["create", "get", "delete"])]),
        })?,
        render(&RoleBinding {
            metadata: hook(namespace),
            role_ref: role_ref("Role", NAME),
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".into(),
                name: NAME.into(),
                namespace: Some(installation.namespace.clone()),
                api_group: None,
            }]),
        })?,
    ];
    Ok(parts.join("---\n"))
}

/// Helm makes them before the pod and removes them with it.
fn hook(namespace: &str) -> ObjectMeta {
    let mut meta = meta(NAME, Some(namespace));
    let annotations = [
        ("helm.sh/hook", "test"),
        ("helm.sh/hook-weight", "-1"),
        ("helm.sh/hook-delete-policy", "before-hook-creation,hook-succeeded"),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    meta.annotations = Some(annotations.into());
    meta
}
