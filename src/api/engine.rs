//! `Engine`: one agent identity in one pool.

use super::names::{MAX_OBJECT_NAME, OBJECT_NAME};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One agent identity in one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "dsv.dev",
    version = "v1alpha1",
    kind = "Engine",
    namespaced,
    status = "EngineStatus",
    shortname = "eng",
    category = "dsv",
    doc = "One engine: an agent that dials in with its own key and does the work of its pool.",
    selectable = ".spec.pool",
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
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Heartbeat", type_ = "date", json_path = ".status.lastHeartbeat"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(format!("self.metadata.name.size() <= {MAX_OBJECT_NAME}"))
        .message("a name of at most 200 characters leaves room for the name of the registration Secret"),
)]
#[serde(rename_all = "camelCase")]
pub struct EngineSpec {
    /// Name of the EnginePool in the same namespace. Cannot change: an engine is in exactly one pool.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("pool must be a Kubernetes object name"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("pool cannot change; make another Engine"))]
    pub pool: String,
    /// Public half of the engine's key (`dsv-engine keygen`). Left out: the operator makes a key and a registration Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]{43}$')").message("publicKey must be the 43 characters that dsv-engine keygen prints"))]
    #[schemars(length(max = 64))]
    pub public_key: Option<String>,
    /// The key before it, still accepted until its end, so that a key can be changed without a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_public_key: Option<PreviousKey>,
    /// True cuts the engine off at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A key that is on its way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousKey {
    /// The public half.
    #[schemars(length(max = 64))]
    pub key: String,
    /// Until when it is accepted.
    pub until: Time,
}

/// What is known of an engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// The spec's generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the engine is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Secret that holds the registration, where the operator made the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_secret: Option<String>,
    /// Since when the key in use exists, where the operator made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_since: Option<Time>,
    /// The value of the annotation `dsv.dev/rotate-key` that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_rotate_key: Option<String>,
    /// Program version that the engine reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Last sign of life, written on connect, on disconnect and at most every 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Time>,
    /// The answer to the last ping that somebody asked for by annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping: Option<PingAnswer>,
}

/// What became of a ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PingAnswer {
    /// The value of `dsv.dev/ping` that was answered.
    pub asked: String,
    /// When.
    pub at: Time,
    /// Milliseconds to the engine and back; absent: it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_millis: Option<i64>,
    /// What came of it, as a sentence.
    pub message: String,
}
