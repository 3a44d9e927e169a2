//! Reading and writing any object as JSON, without a process for each request.

use dsv::api::conditions;
use e2e::stack::Stack;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::{Value, json};

/// The administrator's requests, for one test.
#[derive(Clone)]
pub struct Kube(Client);

impl Kube {
    pub async fn new(stack: &Stack) -> Self {
        Self(stack.client().await.unwrap())
    }

    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = match kind {
            "Secret" | "Namespace" | "ResourceQuota" => ("", "v1"),
            _ => ("dsv.dev", "v1alpha1"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if kind == "Namespace" {
            return Api::all_with(self.0.clone(), &resource);
        }
        Api::namespaced_with(self.0.clone(), namespace, &resource)
    }

    /// Makes an object, or brings it to what is written.
    pub async fn put(&self, object: &Value) {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let api = self.api(text("/kind"), text("/metadata/namespace"));
        let params = PatchParams::apply("e2e").force();
        api.patch(text("/metadata/name"), &params, &Patch::Apply(object))
            .await
            .unwrap();
    }

    pub async fn read(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let found = self.api(kind, namespace).get_opt(name).await.unwrap();
        found.map(|object| serde_json::to_value(object).unwrap())
    }

    pub async fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let list = self.api(kind, namespace).list(&ListParams::default()).await.unwrap();
        list.items
            .into_iter()
            .map(|object| serde_json::to_value(object).unwrap())
            .collect()
    }

    pub async fn merge(&self, kind: &str, namespace: &str, name: &str, patch: &Value) {
        let api = self.api(kind, namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub async fn merge_status(&self, kind: &str, namespace: &str, name: &str, status: &Value) {
        let patch = json!({"status": status});
        let api = self.api(kind, namespace);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Replaces one part of an object; others may write to the rest meanwhile.
    pub async fn replace_at(&self, kind: &str, namespace: &str, name: &str, path: &str, value: Value) {
        let patch = json!([{"op": "replace", "path": path, "value": value}]);
        let patch = Patch::<Value>::Json(serde_json::from_value(patch).unwrap());
        self.api(kind, namespace)
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        match self.api(kind, namespace).delete(name, &DeleteParams::default()).await {
            Err(Error::Api(status)) if status.is_not_found() => {}
            other => drop(other.unwrap()),
        }
    }
}

/// A condition of an object that was read.
pub fn condition(object: &Value, kind: &str) -> Option<Condition> {
    let all = object.pointer("/status/conditions").cloned()?;
    let all: Vec<Condition> = serde_json::from_value(all).unwrap();
    conditions::find(&all, kind).cloned()
}
