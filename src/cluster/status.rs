//! Writing statuses: read, change, write that version; again on a conflict. An unchanged status is not written.

use super::objects::named;
use super::{Error, Intention};
use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Attempts before a conflict is reported; each starts from a fresh read.
const ATTEMPTS: usize = 5;

/// Changes the status of exactly the object that was seen, by UID. `change` returns false to leave it as it is; it may
/// run several times. Returns the object as written, or none where it is gone.
pub async fn amend<K>(client: &Client, seen: &K, mut change: impl FnMut(&mut K) -> bool) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
{
    let (namespace, name) = (seen.namespace().unwrap_or_default(), seen.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let mut object = seen.clone();
    for attempt in 1.. {
        if !change(&mut object) {
            return Ok(Some(object));
        }
        match api.replace_status(&name, &PostParams::default(), &object).await {
            Ok(written) => return Ok(Some(written)),
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {}
            Err(source) => return Err(source).to(|| format!("write the status of {}", named::<K>(&namespace, &name))),
        }
        let fresh = api
            .get_opt(&name)
            .await
            .to(|| format!("read {}", named::<K>(&namespace, &name)))?;
        match fresh {
            Some(fresh) if fresh.uid() == seen.uid() => object = fresh,
            _ => return Ok(None),
        }
    }
    Ok(None)
}
