//! What the watches list, and how much at a time.

use futures::Stream;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Objects that are listed at once. A page is read as a whole and with all that the cache leaves out, which is ten times what
/// it keeps; what a page of 500 took for a moment, a process of two threads held on to for good.
pub(super) const PAGE: u32 = 100;

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
    watcher(
        Api::<K>::all(client.clone()),
        watcher::Config::default().page_size(PAGE),
    )
    .default_backoff()
}
