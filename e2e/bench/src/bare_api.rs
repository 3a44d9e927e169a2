//! What the API server can do at most: the writes of one credential's life made by a client that decides nothing.
//!
//! They go to a copy of the definition of leases in a group that nobody watches, so that the server checks the same schema
//! and stores the same bytes, and no controller looks at it. The objects are copies of real ones.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::objects::{Objects, text};
use e2e::scene::merge;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

const GROUP: &str = "bench.dsv.dev";
const FINALIZER: &str = "bench.dsv.dev/revoke";
const IN_FORCE: Duration = Duration::from_secs(30);

/// Writes of one whole life.
pub const WRITES: usize = 8;

/// Copies of a real lease and its Secret.
pub struct BareApi {
    leases: Api<DynamicObject>,
    secrets: Api<DynamicObject>,
    lease: Value,
    secret: Value,
}

/// A lease of this module that is on its way.
pub struct Life {
    name: String,
    lease: DynamicObject,
}

impl BareApi {
    /// Takes an issued lease and its Secret as samples.
    pub async fn like(objects: &Objects, namespace: &str, name: &str) -> Result<Self> {
        define(objects).await?;
        let lease = objects.get("CredentialLease", namespace, name).await?;
        let secret = objects.get("Secret", namespace, name).await?;
        let kind = GroupVersionKind::gvk(GROUP, "v1alpha1", "CredentialLease");
        let resource = ApiResource::from_gvk_with_plural(&kind, "credentialleases");
        let bare = Self {
            leases: Api::namespaced_with(objects.client().clone(), namespace, &resource),
            secrets: objects.api("Secret", namespace)?,
            lease: unwatched(&lease.context("the sample lease is gone")?),
            secret: unwatched(&secret.context("the sample Secret is gone")?),
        };
        bare.wait_in_force().await?;
        Ok(bare)
    }

    async fn wait_in_force(&self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.leases.list(&kube::api::ListParams::default()).await {
            if begun.elapsed() > IN_FORCE {
                return Err(error).context("the copied definition is not in force");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Asks, takes on, claims: three writes.
    pub async fn claim(&self, name: &str) -> Result<Life> {
        let asked = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "CredentialLease",
            "metadata": {"name": name},
            "spec": self.lease.get("spec"),
        });
        let asked = serde_json::from_value(asked)?;
        let mut lease = self.leases.create(&PostParams::default(), &asked).await?;
        lease.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let like: DynamicObject = serde_json::from_value(self.lease.clone())?;
        lease.metadata.labels = like.metadata.labels;
        lease.metadata.owner_references = like.metadata.owner_references;
        let mut lease = self.leases.replace(name, &PostParams::default(), &lease).await?;
        let mut status = self.lease.get("status").cloned().unwrap_or_default();
        let later =
            json!({"issuedAt": null, "issuedBy": null, "roleOid": null, "secretVersion": null, "conditions": null});
        merge(&mut status, &later);
        merge(&mut lease.data, &json!({"status": status}));
        let lease = self.leases.replace_status(name, &PostParams::default(), &lease).await?;
        Ok(Life {
            name: name.to_owned(),
            lease,
        })
    }

    /// Makes the Secret: one write.
    pub async fn deliver(&self, life: &Life) -> Result<()> {
        let mut secret: DynamicObject = serde_json::from_value(self.secret.clone())?;
        secret.metadata.name = Some(life.name.clone());
        self.secrets.create(&PostParams::default(), &secret).await?;
        Ok(())
    }

    /// Reports, deletes the Secret and the lease, takes the finalizer off: four writes.
    pub async fn end(&self, mut life: Life) -> Result<()> {
        let (name, nothing) = (&life.name, DeleteParams::default());
        merge(&mut life.lease.data, &json!({"status": self.lease.get("status")}));
        self.leases
            .replace_status(name, &PostParams::default(), &life.lease)
            .await?;
        self.secrets.delete(name, &nothing).await?;
        let deleted = self.leases.delete(name, &nothing).await?;
        let mut lease = deleted.left().context("the finalizer did not hold the lease")?;
        lease.metadata.finalizers = None;
        self.leases.replace(name, &PostParams::default(), &lease).await?;
        Ok(())
    }
}

/// The definition of leases, in another group.
async fn define(objects: &Objects) -> Result<()> {
    let kind = "CustomResourceDefinition";
    let name = format!("credentialleases.{GROUP}");
    if objects.get(kind, "", &name).await?.is_some() {
        return Ok(());
    }
    let original = objects.get(kind, "", "credentialleases.dsv.dev").await?;
    let mut copy = original.context("leases are not defined here")?;
    let changes = json!({
        "metadata": null,
        "status": null,
        "spec": {"group": GROUP, "names": {"shortNames": null, "categories": null}},
    });
    merge(&mut copy, &changes);
    merge(&mut copy, &json!({"metadata": {"name": name}}));
    objects.create(&copy).await?;
    Ok(())
}

/// A copy that no controller takes for its own: labels and annotations keep their sizes and lose their names.
fn unwatched(object: &Value) -> Value {
    let mut copy = object.clone();
    let renamed = |pointer: &str| -> Value {
        let all = object.pointer(pointer).and_then(Value::as_object);
        let renamed = all.into_iter().flatten().enumerate();
        renamed
            .map(|(number, (_, value))| (format!("{GROUP}/n{number}"), value.clone()))
            .collect()
    };
    let metadata = json!({
        "labels": renamed("/metadata/labels"),
        "annotations": renamed("/metadata/annotations"),
        "ownerReferences": object.pointer("/metadata/ownerReferences"),
        "namespace": text(object, "/metadata/namespace"),
    });
    merge(&mut copy, &json!({"metadata": null}));
    merge(&mut copy, &json!({"metadata": metadata}));
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_carries_nothing_that_a_controller_looks_for() {
        let secret = json!({
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": {"app.kubernetes.io/managed-by": "dsv-operator", "dsv.dev/lease": "u"},
            },
            "data": {"username": "YQ=="},
        });
        let copy = unwatched(&secret);
        assert_eq!(copy["metadata"]["labels"]["bench.dsv.dev/n0"], "dsv-operator");
        assert_eq!(copy["metadata"]["labels"]["bench.dsv.dev/n1"], "u");
        assert_eq!(copy["metadata"]["labels"].as_object().unwrap().len(), 2);
        assert!(copy["metadata"].get("uid").is_none() && copy["metadata"].get("name").is_none());
        assert_eq!(copy["data"], secret["data"]);
    }
}
