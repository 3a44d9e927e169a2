//! The rights that the operator's account has, and the admission policies that fence them in. The committed
//! `config/rbac` is printed from here, so code, manifests and chart cannot drift apart.

mod chart;
mod restarts;
mod syncs;
mod trial;
mod uninstall;

pub use chart::chart;

use crate::api::names::{GROUP, LEASE_FINALIZER, MANAGED_BY, OPERATOR};
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// For whom the rights are.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The operator's namespace.
    pub namespace: String,
    /// Its ServiceAccount.
    pub service_account: String,
    /// Namespaces in which it may use Secrets, besides its own; all of them where none is named.
    pub watch_namespaces: Vec<String>,
}

/// One manifest file: name and YAML.
pub struct Manifest {
    /// File name.
    pub file: String,
    /// Its text.
    pub yaml: String,
}

/// In a folder of its own: who applies all files of the folder above does not get these rights with them.
const RESTARTS: &str = "optional/restarts.yaml";

const KINDS: [&str; 6] = [
    "enginepools",
    "engines",
    "dynamicsecrets",
    "credentialleases",
    "dsvtenants",
    "secretsyncs",
];
/// Role and bindings with the right to Secrets.
const SECRETS: &str = "dsv-operator-secrets";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 4] = ["create", "update", "patch", "delete"];

/// All manifests, in the order in which they are applied.
pub fn manifests(installation: &Installation) -> Result<Vec<Manifest>, serde_json::Error> {
    let mut account = vec![render(&service_account(installation))?];
    account.push(render(&cluster_role())?);
    account.push(render(&cluster_role_binding(installation))?);
    account.push(render(&own_role(installation))?);
    account.push(render(&own_role_binding(installation))?);
    let people = people_roles().iter().map(render).collect::<Result<Vec<_>, _>>()?;
    let mut fences = Vec::new();
    let all = [
        secrets_fence(installation),
        leases_fence(installation),
        syncs::tenants_fence(installation),
        syncs::syncs_fence(installation),
        restarts::workloads_fence(installation),
        restarts::restarts_fence(installation),
    ];
    for (policy, binding) in all {
        fences.push(render(&policy)?);
        fences.push(render(&binding)?);
    }
    Ok(vec![
        Manifest {
            file: "operator.yaml".into(),
            yaml: account.join("---\n"),
        },
        Manifest {
            file: "secrets.yaml".into(),
            yaml: secrets(installation)?.join("---\n"),
        },
        Manifest {
            file: "people.yaml".into(),
            yaml: people.join("---\n"),
        },
        Manifest {
            file: "admission.yaml".into(),
            yaml: fences.join("---\n"),
        },
        Manifest {
            file: RESTARTS.into(),
            yaml: restarts::manifest(installation)?,
        },
    ])
}

fn render<T: Serialize>(object: &T) -> Result<String, serde_json::Error> {
    serde_saphyr::to_string(object).map_err(serde::ser::Error::custom)
}

fn meta(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some([("app.kubernetes.io/name".to_owned(), OPERATOR.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn read_and_write() -> Vec<&'static str> {
    READ.iter().chain(&WRITE).copied().collect()
}

fn service_account(installation: &Installation) -> ServiceAccount {
    ServiceAccount {
        metadata: meta(&installation.service_account, Some(&installation.namespace)),
        ..ServiceAccount::default()
    }
}

/// Everywhere: our own kinds are followed in all namespaces, so that no account is forgotten whatever is served.
fn cluster_role() -> ClusterRole {
    let status = KINDS.map(|kind| format!("{kind}/status"));
    let finalizers = KINDS.map(|kind| format!("{kind}/finalizers"));
    ClusterRole {
        metadata: meta("dsv-operator", None),
        rules: Some(vec![
            rule(GROUP, &KINDS, &read_and_write()),
            rule(GROUP, &status.each_ref().map(String::as_str), &["update", "patch"]),
            rule(GROUP, &finalizers.each_ref().map(String::as_str), &["update"]),
            rule("", &["namespaces"], &READ),
            // What leases can be bound to, looked at one by one.
            rule("", &["pods", "serviceaccounts"], &["get"]),
            rule("batch", &["jobs"], &["get"]),
            rule("events.k8s.io", &["events"], &["create", "patch"]),
            // Callers of the REST API that Kubernetes knows: who they are, and what it lets them do.
            rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
            rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
        ]),
        ..ClusterRole::default()
    }
}

/// All verbs, since Kubernetes cannot grant by label; the admission policy narrows writing to what is ours.
fn secrets_role() -> ClusterRole {
    ClusterRole {
        metadata: meta(SECRETS, None),
        rules: Some(vec![rule("", &["secrets"], &read_and_write())]),
        ..ClusterRole::default()
    }
}

/// The right to Secrets: everywhere, or in the namespaces that are served and in our own.
fn secrets(installation: &Installation) -> Result<Vec<String>, serde_json::Error> {
    let mut parts = vec![render(&secrets_role())?];
    let named = installation.watch_namespaces.iter().map(String::as_str);
    let named: BTreeSet<&str> = named.map(str::trim).filter(|name| !name.is_empty()).collect();
    if named.is_empty() {
        parts.push(render(&secrets_everywhere(installation))?);
        return Ok(parts);
    }
    for namespace in named
        .into_iter()
        .chain([installation.namespace.as_str()])
        .collect::<BTreeSet<_>>()
    {
        parts.push(render(&secrets_in(installation, namespace))?);
    }
    Ok(parts)
}

fn secrets_everywhere(installation: &Installation) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: meta(SECRETS, None),
        role_ref: role_ref("ClusterRole", SECRETS),
        subjects: Some(subject(installation)),
    }
}

fn secrets_in(installation: &Installation, namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: meta(SECRETS, Some(namespace)),
        role_ref: role_ref("ClusterRole", SECRETS),
        subjects: Some(subject(installation)),
    }
}

fn own_role(installation: &Installation) -> Role {
    Role {
        metadata: meta("dsv-operator", Some(&installation.namespace)),
        rules: Some(vec![
            rule("coordination.k8s.io", &["leases"], &["get", "create", "update"]),
            rule(
                "apps",
                &["deployments"],
                &["get", "list", "watch", "create", "patch", "delete"],
            ),
            rule("", &["pods"], &["get", "list", "watch", "patch"]),
        ]),
    }
}

fn subject(installation: &Installation) -> Vec<Subject> {
    vec![Subject {
        kind: "ServiceAccount".into(),
        name: installation.service_account.clone(),
        namespace: Some(installation.namespace.clone()),
        api_group: None,
    }]
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: "rbac.authorization.k8s.io".into(),
        kind: kind.into(),
        name: name.into(),
    }
}

fn cluster_role_binding(installation: &Installation) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: meta("dsv-operator", None),
        role_ref: role_ref("ClusterRole", "dsv-operator"),
        subjects: Some(subject(installation)),
    }
}

fn own_role_binding(installation: &Installation) -> RoleBinding {
    RoleBinding {
        metadata: meta("dsv-operator", Some(&installation.namespace)),
        role_ref: role_ref("Role", "dsv-operator"),
        subjects: Some(subject(installation)),
    }
}

/// Roles that Kubernetes adds to its own view, edit and admin. Leases are not in view, since a verifier is sensitive;
/// making one gives a credential, so it comes with edit, which reads Secrets as well. Pools and engines cause pods in
/// the operator's namespace and are for admins. Nobody gets a status.
fn people_roles() -> Vec<ClusterRole> {
    let aggregated = |name: &str, to: &[&str], rules: Vec<PolicyRule>| {
        let mut metadata = meta(name, None);
        let labels: BTreeMap<String, String> = to
            .iter()
            .map(|role| {
                (
                    format!("rbac.authorization.k8s.io/aggregate-to-{role}"),
                    "true".to_owned(),
                )
            })
            .collect();
        metadata.labels.get_or_insert_default().extend(labels);
        ClusterRole {
            metadata,
            rules: Some(rules),
            ..ClusterRole::default()
        }
    };
    vec![
        aggregated(
            "dsv-view",
            &["view", "edit", "admin"],
            vec![rule(
                GROUP,
                &["enginepools", "engines", "dynamicsecrets", "dsvtenants", "secretsyncs"],
                &READ,
            )],
        ),
        aggregated(
            "dsv-edit",
            &["edit", "admin"],
            vec![
                rule(GROUP, &["dynamicsecrets", "secretsyncs"], &WRITE),
                rule(
                    GROUP,
                    &["credentialleases"],
                    &["get", "list", "watch", "create", "delete"],
                ),
            ],
        ),
        aggregated(
            "dsv-admin",
            &["admin"],
            vec![
                rule(GROUP, &["enginepools", "engines", "dsvtenants"], &WRITE),
                rule(GROUP, &["enginepools/scale"], &["get", "update", "patch"]),
            ],
        ),
    ]
}

fn username(installation: &Installation) -> String {
    format!(
        "system:serviceaccount:{}:{}",
        installation.namespace, installation.service_account
    )
}

/// The operator writes and deletes only Secrets that are marked ours on every version present, of types that only an
/// operator of this kind uses. So its wide RBAC cannot be turned against anybody's Secret, not even by a fault of ours.
fn secrets_fence(installation: &Installation) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let marked = |object: &str| {
        format!(
            "{object} == null || (has({object}.metadata.labels) && '{MANAGED_BY}' in {object}.metadata.labels && \
             {object}.metadata.labels['{MANAGED_BY}'] == '{OPERATOR}')"
        )
    };
    let validations = vec![
        validation(
            &format!("({}) && ({})", marked("object"), marked("oldObject")),
            "dsv-operator may write and delete only Secrets labelled app.kubernetes.io/managed-by=dsv-operator",
        ),
        validation(
            "object == null || !has(object.type) || object.type in ['Opaque', 'servicebinding.io/postgresql'] || object.type.startsWith('dsv.dev/')",
            "dsv-operator may write only Secrets of type Opaque, servicebinding.io/postgresql or dsv.dev",
        ),
    ];
    fence(
        "dsv-operator-secrets",
        &format!("request.userInfo.username == '{}'", username(installation)),
        resource("", &["secrets"], &["CREATE", "UPDATE", "DELETE"]),
        validations,
    )
}

/// Only the operator makes leases that look like its own; people ask with dynamicSecret, verifier or target, and ttl.
fn leases_fence(installation: &Installation) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let validations = vec![
        validation(
            "!has(object.spec.claim)",
            "spec.claim is written by the operator only; leave it out",
        ),
        validation(
            &format!("!has(object.metadata.finalizers) || !('{LEASE_FINALIZER}' in object.metadata.finalizers)"),
            "the finalizer dsv.dev/revoke is set by the operator only; leave it out",
        ),
        validation(
            "!has(object.metadata.labels) || object.metadata.labels.all(k, !k.startsWith('dsv.dev/'))",
            "labels of dsv.dev on a lease are set by the operator only; leave them out",
        ),
    ];
    fence(
        "dsv-operator-leases",
        &format!("request.userInfo.username != '{}'", username(installation)),
        resource(GROUP, &["credentialleases"], &["CREATE"]),
        validations,
    )
}

fn validation(expression: &str, message: &str) -> Validation {
    Validation {
        expression: expression.to_owned(),
        message: Some(message.to_owned()),
        reason: Some("Forbidden".into()),
        ..Validation::default()
    }
}

fn resource(group: &str, resources: &[&str], operations: &[&str]) -> NamedRuleWithOperations {
    let owned = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    NamedRuleWithOperations {
        api_groups: owned(&[group]),
        api_versions: owned(&["*"]),
        operations: owned(operations),
        resources: owned(resources),
        ..NamedRuleWithOperations::default()
    }
}

fn fence(
    name: &str,
    whom: &str,
    what: NamedRuleWithOperations,
    validations: Vec<Validation>,
) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let policy = ValidatingAdmissionPolicy {
        metadata: meta(name, None),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".into()),
            match_conditions: Some(vec![MatchCondition {
                name: "whom".into(),
                expression: whom.to_owned(),
            }]),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![what]),
                ..MatchResources::default()
            }),
            validations: Some(validations),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        status: None,
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata: meta(name, None),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(name.to_owned()),
            validation_actions: Some(vec!["Deny".into()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    };
    (policy, binding)
}
