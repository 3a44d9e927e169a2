//! Reading and writing objects of any kind as JSON, through a client instead of a `kubectl` process each time.

use anyhow::{Context, Result, anyhow};
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde_json::Value;

/// Group, version and plural of the kinds that scenarios touch.
const KINDS: [(&str, &str, &str, &str); 16] = [
    ("DynamicSecret", "dsv.dev", "v1alpha1", "dynamicsecrets"),
    ("CredentialLease", "dsv.dev", "v1alpha1", "credentialleases"),
    ("EnginePool", "dsv.dev", "v1alpha1", "enginepools"),
    ("Engine", "dsv.dev", "v1alpha1", "engines"),
    ("DsvTenant", "dsv.dev", "v1alpha1", "dsvtenants"),
    ("SecretSync", "dsv.dev", "v1alpha1", "secretsyncs"),
    ("Secret", "", "v1", "secrets"),
    ("Namespace", "", "v1", "namespaces"),
    ("Event", "events.k8s.io", "v1", "events"),
    ("Pod", "", "v1", "pods"),
    ("ServiceAccount", "", "v1", "serviceaccounts"),
    ("Job", "batch", "v1", "jobs"),
    ("Deployment", "apps", "v1", "deployments"),
    ("Lease", "coordination.k8s.io", "v1", "leases"),
    (
        "CustomResourceDefinition",
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
    ),
    (
        "ValidatingAdmissionPolicyBinding",
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
    ),
];

/// Objects of one cluster. It belongs to the runtime that its client was made in.
#[derive(Clone)]
pub struct Objects(Client);

impl Objects {
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    pub fn client(&self) -> &Client {
        &self.0
    }

    /// Those of one namespace; of all of them, or of none, where `namespace` is empty.
    pub fn api(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
        let (kind, group, version, plural) = KINDS
            .iter()
            .find(|(name, ..)| *name == kind)
            .ok_or_else(|| anyhow!("scenarios know no kind {kind}"))?;
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Ok(if namespace.is_empty() {
            Api::all_with(self.0.clone(), &resource)
        } else {
            Api::namespaced_with(self.0.clone(), namespace, &resource)
        })
    }

    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self.api(kind, namespace)?.get_opt(name).await;
        let found = found.with_context(|| format!("cannot read {kind} {namespace}/{name}"))?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }

    pub async fn list(&self, kind: &str, namespace: &str) -> Result<Vec<Value>> {
        let found = self.api(kind, namespace)?.list(&ListParams::default()).await;
        let found = found.with_context(|| format!("cannot list {kind} in {namespace}"))?;
        Ok(found
            .items
            .into_iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?)
    }

    pub async fn create(&self, manifest: &Value) -> Result<Value> {
        let (kind, namespace) = (text(manifest, "/kind"), text(manifest, "/metadata/namespace"));
        let object: DynamicObject = serde_json::from_value(manifest.clone())?;
        let made = self
            .api(&kind, &namespace)?
            .create(&PostParams::default(), &object)
            .await;
        let made =
            made.with_context(|| format!("cannot create {kind} {namespace}/{}", text(manifest, "/metadata/name")))?;
        Ok(serde_json::to_value(made)?)
    }

    /// A JSON merge patch: `null` removes.
    pub async fn merge(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value> {
        let api = self.api(kind, namespace)?;
        let written = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        Ok(serde_json::to_value(written.with_context(|| {
            format!("cannot change {kind} {namespace}/{name}")
        })?)?)
    }

    /// Asks for the deletion and does not wait for it. Absent is success.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        match self.api(kind, namespace)?.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other
                .map(|_| ())
                .with_context(|| format!("cannot delete {kind} {namespace}/{name}")),
        }
    }
}

/// The text at a JSON pointer; empty where there is none.
pub fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// The number at a JSON pointer; 0 where there is none.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// `status` and `reason` of a condition, as `True/Issued`; empty where there is none.
pub fn condition(object: &Value, type_: &str) -> String {
    let all = object.pointer("/status/conditions").and_then(Value::as_array);
    all.into_iter()
        .flatten()
        .find(|condition| text(condition, "/type") == type_)
        .map(|condition| format!("{}/{}", text(condition, "/status"), text(condition, "/reason")))
        .unwrap_or_default()
}
