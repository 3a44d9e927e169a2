//! `--bound-to`: the Pod, Job or ServiceAccount that an account is asked for, and with which it ends.

use super::Error;
use super::connect::Cluster;
use super::error::Intention;
use crate::api::lease::{BoundKind, BoundTo};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};

/// An object as it was written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    kind: BoundKind,
    name: String,
}

/// Reads `pod/NAME`, with the kinds as kubectl abbreviates them.
pub(super) fn named(text: &str) -> Result<Named, String> {
    let (kind, name) = text.split_once('/').unwrap_or_default();
    let kind = match kind.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => BoundKind::Pod,
        "job" | "jobs" => BoundKind::Job,
        "serviceaccount" | "serviceaccounts" | "sa" => BoundKind::ServiceAccount,
        _ => return Err("write pod/NAME, job/NAME or serviceaccount/NAME".to_owned()),
    };
    if name.is_empty() {
        return Err("the name is missing behind the slash".to_owned());
    }
    let name = name.to_owned();
    Ok(Named { kind, name })
}

/// Finds out which object that is.
pub(super) async fn find(cluster: &Cluster, named: &Named) -> Result<BoundTo, Error> {
    let namespace = &cluster.namespace;
    let group = if named.kind == BoundKind::Job { "batch" } else { "" };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", named.kind.as_str()));
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
    let what = format!("{} {namespace}/{}", named.kind.as_str(), named.name);
    let found = api.get_metadata_opt(&named.name).await;
    let found = found.to(|| format!("read {what}"))?;
    let uid = found.and_then(|found| found.uid());
    let absent = || Error::Refused(format!("{what} does not exist, so nothing can be bound to it"));
    Ok(BoundTo {
        kind: named.kind,
        name: named.name.clone(),
        uid: uid.ok_or_else(absent)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_named_as_kubectl_names_them() {
        for (text, kind) in [
            ("pod/a", BoundKind::Pod),
            ("jobs/a", BoundKind::Job),
            ("sa/a", BoundKind::ServiceAccount),
        ] {
            let name = "a".to_owned();
            assert_eq!(named(text), Ok(Named { kind, name }), "{text}");
        }
        for text in ["a", "pod/", "deployment/a", "/a", ""] {
            assert!(named(text).is_err(), "{text}");
        }
    }
}
