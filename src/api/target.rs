//! The Secret that receives a credential: its name, its type, and which keys it has.

use super::names::OBJECT_NAME;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All keys that we write ourselves, whichever formats are asked for.
const KEYS: [&str; 19] = [
    "type",
    "username",
    "password",
    "host",
    "port",
    "database",
    "sslmode",
    "uri",
    "ca.crt",
    "jdbc-uri",
    "pgpass",
    "dotnet",
    "PGHOST",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGSSLMODE",
    "PGTARGETSESSIONATTRS",
];

fn quoted(keys: &[&str]) -> String {
    let quoted: Vec<String> = keys.iter().map(|key| format!("'{key}'")).collect();
    quoted.join(", ")
}

/// The Secret that receives the credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetSecret {
    /// Its name. Default: the DynamicSecret's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("target name must be a Kubernetes object name"))]
    pub name: Option<String>,
    /// Its type: Opaque (default), one of dsv.dev, or servicebinding.io/postgresql.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self == 'Opaque' || self == 'servicebinding.io/postgresql' || (self.startsWith('dsv.dev/') && !(self in ['dsv.dev/internal', 'dsv.dev/registration']))").message("target type must be Opaque, servicebinding.io/postgresql or a type of dsv.dev"))]
    pub type_: Option<String>,
    /// Labels that the Secret carries besides ours; not from kubernetes.io or dsv.dev.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('^([a-z0-9.-]*[.])?(kubernetes[.]io|k8s[.]io|dsv[.]dev)/'))").message("labels must not be of kubernetes.io, k8s.io or dsv.dev"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations that the Secret carries besides ours; not from kubernetes.io or dsv.dev.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('^([a-z0-9.-]*[.])?(kubernetes[.]io|k8s[.]io|dsv[.]dev)/'))").message("annotations must not be of kubernetes.io, k8s.io or dsv.dev"))]
    pub annotations: BTreeMap<String, String>,
    /// Further keys, in the forms that clients read as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub formats: Vec<TargetFormat>,
    /// Further keys of your own: text with placeholders such as `{{ username }}` or `{{ password | urlencode }}`. Names are
    /// the other keys of the Secret; the filters are urlencode, json and base64. There is no logic in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 16384}))]
    #[x_kube(validation = Rule::new(format!("self.all(k, k.matches('^[-._a-zA-Z0-9]{{1,253}}$') && !(k in [{}]))", quoted(&KEYS))).message("template: a key has letters, digits, -, _ and ., and is none that the Secret has already"))]
    pub template: BTreeMap<String, String>,
    /// Workloads of this namespace that are restarted once for each credential (mode Rotate): their pods read the Secret only
    /// when they start. Each of them allows it by the annotation `dsv.dev/restart: allowed`. The replaced account lives until
    /// all of them have been rolled out and it has no session any more, its end at the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub restart: Vec<WorkloadReference>,
}

/// A workload beside this object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
pub struct WorkloadReference {
    /// Deployment, StatefulSet or DaemonSet.
    pub kind: WorkloadKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{OBJECT_NAME}')")).message("workload name must be a Kubernetes object name"))]
    pub name: String,
}

/// A kind of workload whose pods are replaced when its template changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// Of apps/v1.
    Deployment,
    /// Of apps/v1.
    StatefulSet,
    /// Of apps/v1.
    DaemonSet,
}

impl WorkloadKind {
    /// Every kind.
    pub const EVERY: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// As manifests name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }

    /// As the API server's paths and rights name it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
        }
    }
}

/// A form of the credential that clients read as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetFormat {
    /// Key `jdbc-uri`.
    Jdbc,
    /// Keys `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER`, `PGPASSWORD`, `PGSSLMODE`: for envFrom.
    Libpq,
    /// Key `pgpass`: a password file.
    Pgpass,
    /// Key `dotnet`: a connection string of Npgsql.
    Dotnet,
}
