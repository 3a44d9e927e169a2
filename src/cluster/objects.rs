//! Reading and writing whole objects, with preconditions.

use super::{Error, Intention};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

/// `kind namespace/name`, for messages.
pub fn named<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> String {
    format!("{} {namespace}/{name}", K::kind(&()))
}

/// The object as it is now (a quorum read), or none.
pub async fn read<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name)
        .await
        .to(|| format!("read {}", named::<K>(namespace, name)))
}

/// Makes an object; the name is the claim, so an existing one is a conflict.
pub async fn make<K>(client: &Client, namespace: &str, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    api.create(&PostParams::default(), object)
        .await
        .to(|| format!("create {}", named::<K>(namespace, &name)))
}

/// Replaces exactly the version that was read: somebody else's write in between is a conflict, not lost.
pub async fn replace<K>(client: &Client, namespace: &str, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    api.replace(&name, &PostParams::default(), object)
        .await
        .to(|| format!("update {}", named::<K>(namespace, &name)))
}

/// Deletes exactly this object, by UID; an object of the same name that came later stays. Absent is success. Returns the
/// object where it is still there, marked as deleted: a finalizer holds it.
pub async fn delete<K>(client: &Client, object: &K) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let preconditions = Preconditions {
        uid: object.uid(),
        resource_version: None,
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::background()
    };
    let deleted = api
        .delete(&name, &params)
        .await
        .map(|answer| answer.either(Some, |_| None));
    absent_is_success(deleted).to(|| format!("delete {}", named::<K>(&namespace, &name)))
}

/// Deletes exactly the version that was read. One that is gone, or was changed since, is an error: of two who take the same
/// thing only one has it.
pub async fn take<K>(client: &Client, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let preconditions = Preconditions {
        uid: object.uid(),
        resource_version: object.resource_version(),
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::background()
    };
    let taken = api.delete(&name, &params).await.map(|_| ());
    taken.to(|| format!("take {}", named::<K>(&namespace, &name)))
}

/// Takes a 404 for success, and a 409 of the UID precondition too: the object that was meant is gone.
fn absent_is_success<K>(result: Result<Option<K>, kube::Error>) -> Result<Option<K>, kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.code == 409 => Ok(None),
        other => other,
    }
}

/// Puts a finalizer on the version that was read.
pub async fn add_finalizer<K>(client: &Client, object: &K, finalizer: &str) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    patch_finalizers(client, object, &finalizers).await
}

/// Takes a finalizer off the version that was read. Absent is success.
pub async fn remove_finalizer<K>(client: &Client, object: &K, finalizer: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let rest: Vec<String> = object
        .finalizers()
        .iter()
        .filter(|f| *f != finalizer)
        .cloned()
        .collect();
    match patch_finalizers(client, object, &rest).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn patch_finalizers<K>(client: &Client, object: &K, finalizers: &[String]) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    // UID and version in a merge patch are preconditions: a mismatch is a 409.
    let patch = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    }});
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.to(|| format!("write the finalizers of {}", named::<K>(&namespace, &name)))
}
