//! `EnginePool`: engines that can do each other's work, and who may use them.

use super::names::MAX_OBJECT_NAME;
use super::permissions::GrantPermissions;
use super::ttl::Span;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Engines that can do each other's work, and who may use them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "dsv.dev",
    version = "v1alpha1",
    kind = "EnginePool",
    namespaced,
    status = "EnginePoolStatus",
    shortname = "epool",
    category = "dsv",
    doc = "Engines that can do each other's work, the base secrets beside them, and who may use both.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Connected", type_ = "integer", json_path = ".status.connectedEngines"),
    printcolumn(name = "Engines", type_ = "integer", json_path = ".status.engines"),
    printcolumn(name = "Leases", type_ = "integer", json_path = ".status.openLeases"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    scale(
        spec_replicas_path = ".spec.engines.replicas",
        status_replicas_path = ".status.connectedEngines",
    ),
    validation = Rule::new(format!("self.metadata.name.size() <= {MAX_OBJECT_NAME}"))
        .message("a name of at most 200 characters leaves room for the names of engines"),
)]
#[serde(rename_all = "camelCase")]
pub struct EnginePoolSpec {
    /// Engines that the operator runs in its own namespace. Leave out for remote engines only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engines: Option<ManagedEngines>,
    /// Who else may use this pool and the base secrets beside it, and how far. The pool's own namespace needs no entry;
    /// without entries nobody else is admitted. One entry must admit a whole request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub access: Vec<AccessRule>,
}

/// Engines that the operator runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedEngines {
    /// How many. Each has its own key and Deployment.
    #[schemars(range(min = 0, max = 32))]
    pub replicas: i32,
    /// CPU and memory of each engine's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Names of pull secrets in the operator's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<String>,
    /// Labels that the pods carry besides ours; not from kubernetes.io or dsv.dev.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('^([a-z0-9.-]*[.])?(kubernetes[.]io|k8s[.]io|dsv[.]dev)/'))").message("podLabels must not be of kubernetes.io, k8s.io or dsv.dev"))]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations that the pods carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub pod_annotations: BTreeMap<String, String>,
    /// A proxy through which the engines reach the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Age at which an engine's key is changed: at least 1h, or 0 for never. Absent: 30 days. Each engine is started anew
    /// for it, one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(format!("{0} == 0 || {0} >= 3600", Span::cel_seconds("self"))).message("keyRotation must be 0 or at least 1h"))]
    pub key_rotation: Option<Span>,
}

/// A proxy, as the variables of the same names have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// HTTPS_PROXY: the proxy, such as http://proxy.example.com:3128.
    #[schemars(length(min = 1, max = 1024))]
    pub https_proxy: String,
    /// NO_PROXY: hosts that are reached without it, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub no_proxy: Option<String>,
}

/// CPU and memory, as Kubernetes quantities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Resources {
    /// What a container is given at least.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, IntOrString>,
    /// What a container gets at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, IntOrString>,
}

/// A toleration, as in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Taint key; empty with operator Exists means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,
    /// Exists or Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub operator: Option<String>,
    /// Taint value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Taint effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub effect: Option<String>,
    /// How long a NoExecute taint is tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// What requests from some namespaces may ask for. Absent lists admit nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessRule {
    /// Which namespaces, by their labels. Empty means all.
    pub namespace_selector: LabelSelector,
    /// Base secrets that may be linked, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub linked_secrets: Vec<String>,
    /// Grants within which every requested grant must lie. `*` lies only in `*`, ALL only in ALL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub grants: Vec<GrantPermissions>,
    /// User prefixes that may be used, each exactly. "" admits a request without a prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub user_prefixes: Vec<String>,
    /// Longest ttl. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Span>,
    /// Most open leases that one namespace may have in this pool. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_leases: Option<i64>,
}

/// What is known of a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnginePoolStatus {
    /// The spec's generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: at least one engine is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Engines of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engines: Option<i64>,
    /// Engines that are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_engines: Option<i64>,
    /// Leases of the pool whose account is not proven gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_leases: Option<i64>,
    /// Hash of the installation's root key: `dsv-engine keygen --root-hash` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_hash: Option<String>,
    /// The database servers that the base secrets beside the pool stand for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["linkedSecret".into()]))]
    pub servers: Vec<ServerStatus>,
}

/// What an engine found on a database server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Name of the base secret.
    pub linked_secret: String,
    /// Whether accounts can be issued there.
    pub ready: bool,
    /// Why not, as the same word that dynamic secrets show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same as a sentence, with the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The role that makes the accounts: the username of the base secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The database in which it does so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// PostgreSQL's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// TLS version and cipher; absent: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// What the login lacks, as SQL to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What would be better.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// Database clock minus operator clock, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// When an engine looked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Time>,
}
