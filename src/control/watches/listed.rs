//! What the watches list.

use futures::Stream;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Leaves out what no cache needs: who wrote which field, which is most of an object.
pub(super) fn slimmed<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// All objects of a kind, in all namespaces.
pub(super) fn everywhere<K>(
    client: &Client,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watched(client).modify(slimmed)
}

/// As [`everywhere`], whole.
pub(super) fn watched<K>(
    client: &Client,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff()
}
