//! The rights of the account that takes an installation down. It looks at everything of ours and deletes it; it makes and
//! changes nothing but the number of the operator's replicas.

use super::{Installation, KINDS, meta, render, role_ref, rule};
use crate::api::names::GROUP;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, Subject};

const NAME: &str = "dsv-operator-uninstall";

/// ServiceAccount, roles and bindings.
pub fn manifest(installation: &Installation) -> Result<String, serde_json::Error> {
    let namespace = Some(installation.namespace.as_str());
    let subjects = || {
        Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: NAME.into(),
            namespace: namespace.map(str::to_owned),
            api_group: None,
        }])
    };
    let account = ServiceAccount {
        metadata: meta(NAME, namespace),
        ..ServiceAccount::default()
    };
    let everywhere = ClusterRole {
        metadata: meta(NAME, None),
        rules: Some(vec![rule(GROUP, &KINDS, &["list", "delete"])]),
        ..ClusterRole::default()
    };
    let here = Role {
        metadata: meta(NAME, namespace),
        rules: Some(vec![
            rule("", &["secrets"], &["list", "delete"]),
            rule("", &["pods"], &["list"]),
            rule("apps", &["deployments/scale"], &["patch"]),
            rule("coordination.k8s.io", &["leases"], &["delete"]),
        ]),
    };
    let parts = [
        render(&account)?,
        render(&everywhere)?,
        render(&ClusterRoleBinding {
            metadata: meta(NAME, None),
            role_ref: role_ref("ClusterRole", NAME),
            subjects: subjects(),
        })?,
        render(&here)?,
        render(&RoleBinding {
            metadata: meta(NAME, namespace),
            role_ref: role_ref("Role", NAME),
            subjects: subjects(),
        })?,
    ];
    Ok(parts.join("---\n"))
}
