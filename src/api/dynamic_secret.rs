//! `DynamicSecret`: which accounts on which database, how long, and where they are delivered.

use super::names::{MAX_OBJECT_NAME, MAX_USER_PREFIX, NAMESPACE_NAME, OBJECT_NAME};
use super::permissions::GrantPermissions;
use super::target::{TargetSecret, WorkloadKind, WorkloadReference};
use super::ttl::{MIN_TTL_SECONDS, Span};
use crate::channel::frames::OwnedObjects;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which accounts on which database, how long, and where they are delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "dsv.dev",
    version = "v1alpha1",
    kind = "DynamicSecret",
    namespaced,
    status = "DynamicSecretStatus",
    shortname = "dynsec",
    category = "dsv",
    doc = "A database account on demand: base secret, pool, grants and ttl.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.issuance.mode", priority = 1),
    printcolumn(name = "User", type_ = "string", json_path = ".status.username"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.issuedBy"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.grantPermissions) != has(self.spec.grants)")
        .message("write either grantPermissions (one pair) or grants (several pairs)"),
    validation = Rule::new(format!("self.metadata.name.size() <= {MAX_OBJECT_NAME}"))
        .message("a name of at most 200 characters leaves room for the names of leases"),
    validation = Rule::new("!has(self.spec.target) || !has(self.spec.target.restart) || self.spec.target.restart.size() == 0 || \
        (has(self.spec.issuance) && has(self.spec.issuance.mode) && self.spec.issuance.mode == 'Rotate')")
        .message("target.restart is for mode Rotate: in the others nothing follows that a restart could pick up"),
)]
#[serde(rename_all = "camelCase")]
pub struct DynamicSecretSpec {
    /// The pool whose engines do the work.
    pub pool: PoolReference,
    /// The base secret, always beside the pool.
    pub link_config: LinkConfig,
    /// What the accounts may do; one pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_permissions: Option<GrantPermissions>,
    /// What the accounts may do; several pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub grants: Option<Vec<GrantPermissions>>,
    /// Put in front of every account's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(format!("self.matches('^[a-z0-9][a-z0-9_-]{{0,{}}}$') && !self.startsWith('pg_')", MAX_USER_PREFIX - 1)).message("userPrefix must be lower-case letters, digits, _ or -, begin with a letter or digit, be at most 36 characters and not begin with pg_, to fit a PostgreSQL role name"))]
    pub user_prefix: Option<String>,
    /// How long an account lives: seconds (1000 or "1000") or a duration such as 1h30m; at least 10 seconds.
    #[x_kube(validation = Rule::new(format!("{} >= {MIN_TTL_SECONDS}", Span::cel_seconds("self"))).message("ttl must be at least 10 seconds"))]
    pub ttl: Span,
    /// When credentials are issued. Default: mode Once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuance: Option<Issuance>,
    /// The Secret that receives the credential. Default: the name of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSecret>,
    /// True stops issuing. Revoking never stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What happens to live accounts when this object is deleted. Default: Revoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// How accounts are taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationPolicy>,
    /// Most open leases of this object (mode OnDemand). Absent: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_leases: Option<i64>,
    /// Settings that every account starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountOptions>,
}

/// A pool by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PoolReference {
    /// Name of the EnginePool.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("pool name must be a Kubernetes object name"))]
    pub name: String,
    /// Its namespace. Default: our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(format!("self.matches('{NAMESPACE_NAME}')")).message("pool namespace must be a Kubernetes namespace name"))]
    pub namespace: Option<String>,
}

/// The base secret by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkConfig {
    /// Always `dynamic`.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self == 'dynamic'").message("linkType must be dynamic"))]
    pub link_type: String,
    /// Name of the base secret in the pool's namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("linkedSecret must be a Kubernetes object name"))]
    pub linked_secret: String,
}

/// When credentials are issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issuance {
    /// Once, Rotate or OnDemand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Rotate: how long before the end the next credential is issued. Default: a third of the ttl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<Span>,
    /// How long the replaced account goes on living. Default: a tenth of the ttl, at most one minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Span>,
}

/// When credentials are issued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// One credential, gone when the ttl lapses.
    #[default]
    Once,
    /// The Secret always holds a fresh credential.
    Rotate,
    /// Only leases that somebody asks for.
    OnDemand,
}

/// What happens to live accounts at deletion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They are revoked at once.
    #[default]
    Revoke,
    /// They live to their end; this object waits for it.
    LetExpire,
}

/// How accounts are taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationPolicy {
    /// What becomes of objects that an account made. Default: Reassign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_objects: Option<OwnedObjectsPolicy>,
}

/// What becomes of objects that an account made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OwnedObjectsPolicy {
    /// They go to a keeper role; no table is ever dropped.
    #[default]
    Reassign,
    /// They are dropped with the account.
    Drop,
}

impl From<OwnedObjectsPolicy> for OwnedObjects {
    fn from(policy: OwnedObjectsPolicy) -> Self {
        match policy {
            OwnedObjectsPolicy::Reassign => Self::Reassign,
            OwnedObjectsPolicy::Drop => Self::Drop,
        }
    }
}

/// Settings that every account starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountOptions {
    /// Most sessions of one account at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub connection_limit: Option<i32>,
    /// Longest statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout: Option<Span>,
    /// Longest idle time inside a transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction_timeout: Option<Span>,
    /// Schemas to search for unqualified names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub search_path: Vec<String>,
}

impl DynamicSecretSpec {
    /// All pairs, whichever of the two fields holds them.
    pub fn pairs(&self) -> Vec<GrantPermissions> {
        self.grants
            .clone()
            .or_else(|| self.grant_permissions.clone().map(|pair| vec![pair]))
            .unwrap_or_default()
    }

    /// The mode, or its default.
    pub fn mode(&self) -> Mode {
        self.issuance.as_ref().and_then(|i| i.mode).unwrap_or_default()
    }

    /// The workloads that are restarted for each credential; none in other modes than Rotate.
    pub fn restart(&self) -> &[WorkloadReference] {
        match &self.target {
            Some(target) if self.mode() == Mode::Rotate => &target.restart,
            _ => &[],
        }
    }

    /// The prefix, or none.
    pub fn prefix(&self) -> &str {
        self.user_prefix.as_deref().unwrap_or_default()
    }

    /// How long the replaced account goes on living.
    pub fn overlap(&self) -> Duration {
        let ttl = self.ttl.length().unwrap_or_default();
        let asked = self
            .issuance
            .as_ref()
            .and_then(|i| i.overlap.as_ref())
            .and_then(Span::length);
        asked.unwrap_or_else(|| (ttl / 10).min(Duration::from_mins(1)))
    }

    /// How long before the end the next credential is issued.
    pub fn renew_before(&self) -> Duration {
        let ttl = self.ttl.length().unwrap_or_default();
        let asked = self
            .issuance
            .as_ref()
            .and_then(|i| i.renew_before.as_ref())
            .and_then(Span::length);
        asked.unwrap_or(ttl / 3)
    }
}

/// What is known of a dynamic secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicSecretStatus {
    /// The spec's generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: a valid credential is delivered, or has ended as agreed (Once), or can be asked for (OnDemand).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Highest serial that was ever delivered or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_serial: Option<i64>,
    /// Highest serial that was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_serial: Option<i64>,
    /// Fingerprint of what the delivered credential was issued for: a difference asks for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_for: Option<String>,
    /// Ttl of the delivered credential in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_ttl: Option<i64>,
    /// The Secret of the current credential, where Service Binding looks for it (Provisioned Service).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<SecretReference>,
    /// Account of the current credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Engine that issued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<String>,
    /// When it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When the next one is issued (Rotate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<Time>,
    /// The `dsv.dev/rotate-at` value that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_rotate_at: Option<String>,
    /// Attempts that failed since the last success; with the time it makes the backoff, which so survives restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i64>,
    /// When the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Time>,
    /// The generation that the failures belong to: a changed spec starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_generation: Option<i64>,
    /// Group roles that may exist, written before they are made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub groups: Vec<GroupRecord>,
    /// Restarts for the current credential, one for each workload of `target.restart` (Rotate).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub restarts: Vec<RestartRecord>,
    /// The last five leases that ended, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub history: Vec<LeaseRecord>,
}

/// A Secret beside this object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SecretReference {
    /// Its name.
    pub name: String,
}

/// A group role that may exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupRecord {
    /// Role name.
    pub name: String,
    /// Server record in the operator's namespace.
    pub server: String,
    /// UID of the pool whose engines reach the server.
    pub pool: String,
    /// What it carries.
    #[schemars(length(max = 32))]
    pub grants: Vec<GrantPermissions>,
    /// Claim time in its signed comment, so that the comment can be written again byte for byte.
    pub since: Time,
}

/// A workload that was restarted for a credential, or that needed no restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartRecord {
    /// Deployment, StatefulSet or DaemonSet.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
    /// The credential for which it was restarted: the name of its lease.
    pub revision: String,
    /// All of its pods were replaced, or none had to be.
    pub complete: bool,
}

/// A lease that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRecord {
    /// Name of the lease.
    pub lease: String,
    /// Its serial; 0 for leases that somebody asked for.
    pub serial: i64,
    /// Account name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// When it was issued; absent if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// When the account was proven gone.
    pub ended_at: Time,
    /// Expired, Rotated, Deleted, NotDelivered, ...
    pub why: String,
}
