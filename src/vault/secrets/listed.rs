//! What lists and searches know of secrets: their metadata, never a value.

use super::item::Item;
use super::kept::SECRET_LABEL;
use crate::api::DynamicSecret;
use crate::cluster::watched::Namespaces;
use crate::vault::Vault;
use crate::vault::ids::Kind;
use crate::vault::index::Index;
use crate::vault::tenants::Tenant;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;

/// A secret as lists know it.
#[derive(Debug)]
pub struct Listed {
    /// Which space.
    pub kind: Kind,
    /// All but the values.
    pub item: Item,
    /// UID of the object.
    pub uid: String,
    /// The whole object, where it is a dynamic secret: it holds nothing secret.
    pub dynamic: Option<Arc<DynamicSecret>>,
}

/// Follows the Secrets of this API in all namespaces that are served, by metadata.
pub async fn follow_kept(index: Index<Listed>, client: Client, served: Namespaces) {
    let ours = watcher::Config::default().labels(SECRET_LABEL);
    let read = |secret: &PartialObjectMeta<Secret>| {
        let kind = Kind::of(secret.labels().get(SECRET_LABEL)?)?;
        let listed = Listed {
            kind,
            item: Item::of(secret),
            uid: secret.uid().unwrap_or_default(),
            dynamic: None,
        };
        Some((secret.namespace()?, listed))
    };
    index.keep_up(served.secrets(&client, &ours), read).await;
}

/// Follows the dynamic secrets of all namespaces.
pub async fn follow_dynamic(index: Index<Listed>, api: Api<DynamicSecret>) {
    let read = |object: &DynamicSecret| {
        let mut object = object.clone();
        object.status = None;
        object.metadata.managed_fields = None;
        let listed = Listed {
            kind: Kind::Secret,
            item: Item::of(&object),
            uid: object.uid().unwrap_or_default(),
            dynamic: Some(Arc::new(object.clone())),
        };
        (object.metadata.deletion_timestamp.is_none()).then_some((object.namespace()?, listed))
    };
    index.follow(api, watcher::Config::default(), read).await;
}

impl Vault {
    /// The object that has this UID.
    pub(super) fn by_uid(&self, tenant: &Tenant, uid: &str) -> Option<String> {
        let all = self.dynamic.all(&tenant.namespace).into_iter();
        let mut all = all.chain(self.secrets.all(&tenant.namespace));
        all.find(|entry| entry.value.uid == uid)
            .map(|entry| entry.object.clone())
    }

    /// The path of a base secret's object: what its own annotations say, or its name.
    pub(in crate::vault) fn path_of(&self, namespace: &str, object: &str) -> String {
        let found = self.secrets.get(namespace, object);
        found.map_or_else(|| object.to_owned(), |entry| entry.value.item.path.clone())
    }

    /// The dynamic secrets that link an object, by path.
    pub(super) fn linking(&self, tenant: &Tenant, object: &str) -> Vec<String> {
        let all = self.dynamic.all(&tenant.namespace);
        let links = |listed: &Listed| {
            let spec = listed.dynamic.as_ref().map(|object| &object.spec);
            spec.is_some_and(|spec| spec.link_config.linked_secret == object)
        };
        all.iter()
            .filter(|entry| links(&entry.value) && !entry.value.item.is_over())
            .map(|entry| entry.value.item.path.clone())
            .collect()
    }
}
