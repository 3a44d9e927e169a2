//! Whether the definitions of our kinds are installed.

use crate::telemetry::metrics::{Metrics, ObjectKind};
use kube::Resource;
use kube::runtime::watcher;

/// Follows whether a kind's definition is installed, by what becomes of its watch. Nothing else tells: a watch that finds no
/// such resource only tries again.
pub fn definition<K>(
    metrics: &Metrics,
    kind: ObjectKind,
) -> impl FnMut(&Result<watcher::Event<K>, watcher::Error>) + Send + use<K>
where
    K: Resource<DynamicType = ()>,
{
    let metrics = metrics.clone();
    let mut was_missing = false;
    move |event| {
        let missing = match event {
            Ok(watcher::Event::InitDone) => false,
            Err(error) if is_not_served(error) => true,
            _ => return,
        };
        metrics.definition_missing(kind, missing);
        let resource = K::plural(&());
        if missing && !was_missing {
            tracing::error!(
                definition = %format!("{resource}.{}", K::group(&())),
                "the definition is not installed; apply crds/. Accounts of leases are taken back meanwhile, if engines and pools are there"
            );
        } else if was_missing && !missing {
            tracing::info!(definition = %resource, "the definition is installed again");
        }
        was_missing = missing;
    }
}

/// Whether the API server does not know the resource.
fn is_not_served(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
