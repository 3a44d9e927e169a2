//! `CredentialLease`: one account, from its record to the proof that it is gone.

use super::dynamic_secret::{AccountOptions, OwnedObjectsPolicy};
use super::names::OBJECT_NAME;
use super::permissions::GrantPermissions;
use super::ttl::{MIN_TTL_SECONDS, Span};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// One account. The object exists before the account does, and goes only after the account is proven gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "dsv.dev",
    version = "v1alpha1",
    kind = "CredentialLease",
    namespaced,
    status = "CredentialLeaseStatus",
    shortname = "clease",
    category = "dsv",
    doc = "One issued account. Made by the operator, or by somebody who asks for a credential of a DynamicSecret in mode OnDemand.",
    selectable = ".spec.dynamicSecret",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "User", type_ = "string", json_path = ".status.username"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.issuedBy"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("the spec of a lease cannot change; make another lease").optional_old_self(false),
    validation = Rule::new("has(self.spec.claim) || (has(self.spec.verifier) != has(self.spec.target))")
        .message("write either verifier (you keep the password) or target (a Secret is made)"),
    // Not on the field: the derive loses a rule on an optional field whose type has rules of its own.
    validation = Rule::new(format!("!has(self.spec.ttl) || {} >= {MIN_TTL_SECONDS}", Span::cel_seconds("self.spec.ttl")))
        .message("ttl must be at least 10 seconds"),
)]
#[serde(rename_all = "camelCase")]
pub struct CredentialLeaseSpec {
    /// Name of the DynamicSecret in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("dynamicSecret must be a Kubernetes object name"))]
    pub dynamic_secret: String,
    /// SCRAM-SHA-256 verifier of a password that the asker keeps; fixed for the lease's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 160))]
    #[x_kube(validation = Rule::new("self.matches('^SCRAM-SHA-256[$]4096:[A-Za-z0-9+/]{21}[AQgw]==[$][A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$')").message("verifier must be SCRAM-SHA-256$4096:<salt of 16 bytes>$<stored key>:<server key>, in base64"))]
    pub verifier: Option<String>,
    /// A Secret to be made with the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<LeaseTarget>,
    /// A shorter life than the DynamicSecret's ttl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// The Pod, Job or ServiceAccount of this namespace that the account is for: when it ends, so does the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<BoundTo>,
    /// Written by the operator only: what was decided when the lease was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Box<Claim>>,
}

/// The Secret that receives a lease's credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct LeaseTarget {
    /// Its name; in the lease's namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("target name must be a Kubernetes object name"))]
    pub name: String,
}

/// Whom a lease is for. It ends when that object is gone, when a Pod has run to its end, and when a Job is complete or has
/// failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct BoundTo {
    /// Pod, Job or ServiceAccount.
    pub kind: BoundKind,
    /// Its name; in the lease's namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("boundTo name must be a Kubernetes object name"))]
    pub name: String,
    /// Its UID: another object of the same name is somebody else.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
}

/// A kind that leases can be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BoundKind {
    /// Of v1.
    Pod,
    /// Of batch/v1.
    Job,
    /// Of v1.
    ServiceAccount,
}

impl BoundKind {
    /// As manifests name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Job => "Job",
            Self::ServiceAccount => "ServiceAccount",
        }
    }
}

impl std::fmt::Display for BoundTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// What was decided when a lease was made or taken on. Nothing in it ever changes. What is the same in all leases of one
/// dynamic secret can be shared by them: thousands of them lie in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Which leadership made it: only that one ever held the password.
    pub maker: Arc<Maker>,
    /// UID of the DynamicSecret.
    pub dynamic_secret_uid: Arc<str>,
    /// Counts the credentials of one DynamicSecret; 0 for leases that somebody asked for.
    pub serial: i64,
    /// Server record in the operator's namespace.
    pub server: Arc<str>,
    /// The pool whose engines reach the server.
    pub pool: Arc<ClaimedPool>,
    /// Group role.
    pub group: Arc<ClaimedGroup>,
    /// Put in front of the account's name.
    pub user_prefix: Arc<str>,
    /// Fingerprint of what the credential is for.
    pub fingerprint: Arc<str>,
    /// Seconds from claim to end.
    pub ttl_seconds: i64,
    /// When it was claimed, in the database's clock.
    pub claimed_at: Time,
    /// Until when the account may be created, in the database's clock. Enforced inside the statement.
    pub issue_deadline: Time,
    /// VALID UNTIL: the end in the database's clock.
    pub valid_until: Time,
    /// The end in the operator's clock.
    pub expires_at: Time,
    /// Secret that receives the credential; absent: the asker holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What becomes of objects that the account makes.
    pub owned_objects: OwnedObjectsPolicy,
    /// Settings that the account starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Arc<AccountOptions>>,
}

/// A leadership.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct Maker {
    /// Identity of the process.
    pub holder: String,
    /// Number of the leadership.
    pub term: i64,
}

/// The pool of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct ClaimedPool {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// The group role of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ClaimedGroup {
    /// Role name.
    pub name: String,
    /// What it carries, completed.
    #[schemars(length(max = 32))]
    pub grants: Vec<GrantPermissions>,
    /// Claim time in its signed comment.
    pub since: Time,
}

/// By its name, which is made of what it carries.
impl Hash for ClaimedGroup {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing is in the database yet. It goes on by itself.
    Pending,
    /// The account exists and, with a target, the Secret names this lease.
    Issued,
    /// It is being taken back.
    Revoking,
    /// It resists; login is cut.
    Blocked,
    /// Nothing was made, and somebody has to change something first. It is looked at again now and then.
    Refused,
}

/// What is known of a lease.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialLeaseStatus {
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Account name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// When the account was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Engine that issued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<String>,
    /// OID of the account: sessions that outlive it are found by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_oid: Option<i64>,
    /// Resource version of the Secret as delivered: a difference means that somebody wrote to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,
    /// For a lease that somebody asked for: what the spec's claim is for the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Box<Claim>>,
    /// For a lease that somebody asked for with a target: the verifier, fixed with the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<String>,
    /// Ready: issued and valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl CredentialLease {
    /// What was decided when the lease was made or taken on.
    pub fn claim(&self) -> Option<&Claim> {
        self.spec
            .claim
            .as_deref()
            .or_else(|| self.status.as_ref()?.claim.as_deref())
    }

    /// The verifier, fixed for life.
    pub fn verifier(&self) -> Option<&str> {
        self.spec
            .verifier
            .as_deref()
            .or_else(|| self.status.as_ref()?.verifier.as_deref())
    }
}
