//! `SecretSync`: one secret that is kept in step at one path of one DSV tenant.

use super::names::{MAX_OBJECT_NAME, OBJECT_NAME};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One secret that is kept in step at one path of one DSV tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "dsv.dev",
    version = "v1alpha1",
    kind = "SecretSync",
    namespaced,
    status = "SecretSyncStatus",
    shortname = "ssync",
    category = "dsv",
    doc = "One secret that is kept in step at one path of one DSV tenant.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Number", type_ = "integer", json_path = ".status.number"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source.name"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "Path", type_ = "string", json_path = ".status.path"),
    printcolumn(name = "Pushed", type_ = "string", json_path = ".status.lastPush"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(format!("self.metadata.name.size() <= {MAX_OBJECT_NAME}"))
        .message("a name has at most 200 characters"),
    validation = Rule::new("self.spec.source == oldSelf.spec.source && self.spec.tenant == oldSelf.spec.tenant").message("source and tenant of a sync cannot change; make another sync").optional_old_self(false),
)]
#[serde(rename_all = "camelCase")]
pub struct SecretSyncSpec {
    /// What is pushed; in the same namespace.
    pub source: SyncSource,
    /// Name of the DsvTenant in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("tenant must be a Kubernetes object name"))]
    pub tenant: String,
    /// Path of the secret at the tenant, part by part. A part such as $user-name stands for the value of the source's field
    /// with that slug.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new(r"self.all(p, p.matches('^([\\\\]?[$][A-Za-z0-9-]+|[A-Za-z0-9@+._-]*[A-Za-z0-9][A-Za-z0-9@+._-]*)$'))").message("each part of path has letters, digits, @, +, dots, underscores and dashes, or is $ and a slug"))]
    pub path: Vec<String>,
    /// What the secret at the tenant holds: names, and for each a slug of the source such as $password, or a text. Default:
    /// every field under its own name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    pub fields: BTreeMap<String, String>,
    /// True also pushes fields that the source's annotation dsv.dev/hidden-fields names. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_hidden: Option<bool>,
    /// Attributes of the secret at the tenant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    pub attributes: BTreeMap<String, String>,
    /// Description of the secret at the tenant. Default: the source's field with the slug notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub description: Option<String>,
    /// False: nothing is pushed. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// What is done where the secret at the tenant is not what was pushed. Default: Report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftPolicy>,
    /// What becomes of the secret at the tenant when its source or this object is deleted. Default: Leave. What was pushed
    /// from a DynamicSecret is always deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<RemovalPolicy>,
}

/// What is pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SyncSource {
    /// Secret, or DynamicSecret for the credential that one delivers. Default: Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<SourceKind>,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("the source's name must be a Kubernetes object name"))]
    pub name: String,
}

impl SyncSource {
    /// The kind, or its default.
    pub fn kind(&self) -> SourceKind {
        self.kind.unwrap_or_default()
    }
}

/// Kind of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceKind {
    /// A Secret.
    #[default]
    Secret,
    /// The credential that a DynamicSecret delivers.
    DynamicSecret,
}

/// What is done where the secret at the tenant is not what was pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// It is told.
    #[default]
    Report,
    /// It is overwritten.
    Overwrite,
}

/// What becomes of the secret at the tenant when its source is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RemovalPolicy {
    /// It stays.
    #[default]
    Leave,
    /// It is deleted for good.
    Delete,
    /// It is deleted so that the tenant can restore it for a while.
    SoftDelete,
}

/// What is known of a sync.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSyncStatus {
    /// The spec's generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the tenant has what the source held when it was looked at last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Its number in the REST API, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Its source's number in the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_number: Option<i64>,
    /// Where at the tenant it lies, with colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Keyed hash of what the tenant was given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Version of the secret at the tenant after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_version: Option<String>,
    /// When something was pushed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_push: Option<Time>,
    /// When source and tenant were compared last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check: Option<Time>,
    /// When they are compared next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_push: Option<Time>,
    /// Version of the source's Secret that was looked at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// What is about to be pushed: written before, and taken off after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<PushIntent>,
    /// The value of the annotation dsv.dev/push-at that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_push_at: Option<String>,
    /// Why the last attempt failed; none after a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Attempts that failed since the last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i64>,
    /// When the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Time>,
}

/// A push that may have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushIntent {
    /// Where to.
    pub path: String,
    /// Keyed hash of what.
    pub hash: String,
    /// Version that the tenant had before; none where it had nothing there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Since when.
    pub since: Time,
}

impl SecretSyncSpec {
    /// Whether anything is pushed.
    pub fn is_active(&self) -> bool {
        self.active != Some(false)
    }

    /// What becomes of the secret at the tenant: a credential never outlives its account there.
    pub fn removal(&self) -> RemovalPolicy {
        match self.source.kind() {
            SourceKind::DynamicSecret => RemovalPolicy::Delete,
            SourceKind::Secret => self.deletion_policy.unwrap_or_default(),
        }
    }
}
