//! `DsvTenant`: a DSV tenant that secrets are pushed to, and the login for it.

use super::names::{MAX_OBJECT_NAME, OBJECT_NAME};
use super::ttl::Span;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A DSV tenant that secrets are pushed to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "dsv.dev",
    version = "v1alpha1",
    kind = "DsvTenant",
    namespaced,
    status = "DsvTenantStatus",
    shortname = "dsvt",
    category = "dsv",
    doc = "A DSV tenant that secrets are pushed to, with the login for it.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Number", type_ = "integer", json_path = ".status.number"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(format!("self.metadata.name.size() <= {MAX_OBJECT_NAME}"))
        .message("a name has at most 200 characters"),
)]
#[serde(rename_all = "camelCase")]
pub struct DsvTenantSpec {
    /// Where the tenant answers, such as https://acme.secretsvaultcloud.com. Default: the field tenant-url of the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https://[^/?#@]+/?$')").message("url must be https://host or https://host:port, without a login, path or query"))]
    pub url: Option<String>,
    /// The login.
    pub credentials: TenantCredentials,
    /// How often its syncs look for changes: seconds or a duration such as 30m. Default: the period of the timer, which is
    /// also the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_interval: Option<Span>,
    /// False: nothing is pushed there. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// PEM authorities that are trusted besides the web's. Default: the field ca-bundle of the credentials, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// An HTTP proxy on the way there, such as http://proxy.example.com:3128. It is held to the same rule as a destination.
    /// Its login, if it wants one, is in the fields proxy-username and proxy-password of the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^http://[^/?#@]+/?$')").message("proxy must be http://host:port; its login belongs into the credentials Secret, as proxy-username and proxy-password"))]
    pub proxy: Option<String>,
    /// Most requests to the tenant in a minute. Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 60_000))]
    pub requests_per_minute: Option<i32>,
    /// Most pushes to the tenant at once. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub max_in_flight: Option<i32>,
}

/// Where the login lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantCredentials {
    /// Secret in the same namespace with the fields client-id, client-secret and tenant-url.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("secretName must be a Kubernetes object name"))]
    pub secret_name: String,
}

/// What is known of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DsvTenantStatus {
    /// The spec's generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the login works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Its number in the REST API, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Where it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How often its syncs look for changes, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<i64>,
    /// When the login was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Time>,
}

impl DsvTenantSpec {
    /// Whether anything is pushed there.
    pub fn is_active(&self) -> bool {
        self.active != Some(false)
    }
}
