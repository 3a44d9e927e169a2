//! Tenants: namespaces that the cluster's administrator opened, told apart by the left-most label of the host.

use super::index::Index;
use crate::api::ttl::MIN_TTL_SECONDS;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};

/// Label that opens a namespace as a tenant; the default tenant needs none.
pub const OPEN_LABEL: &str = "dsv.dev/tenant";
/// Annotation on a tenant's namespace: the shortest ttl of its dynamic secrets, in seconds.
pub const MIN_TTL: &str = "dsv.dev/min-ttl";
/// All namespaces are in one scope.
const ALL: &str = "";

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Name of the namespace.
    pub namespace: String,
    /// Its UID: what is kept for a tenant is none of a namespace that has the name later.
    pub uid: String,
}

/// What is known of a namespace.
#[derive(Debug)]
pub struct Space {
    uid: String,
    is_open: bool,
    min_ttl: Option<u64>,
}

/// Follows the namespaces.
pub async fn follow(index: Index<Space>, api: Api<PartialObjectMeta<Namespace>>) {
    let read = |namespace: &PartialObjectMeta<Namespace>| {
        let space = Space {
            uid: namespace.uid()?,
            is_open: namespace.labels().get(OPEN_LABEL).map(String::as_str) == Some("true"),
            min_ttl: namespace.annotations().get(MIN_TTL).and_then(|text| text.parse().ok()),
        };
        namespace
            .metadata
            .deletion_timestamp
            .is_none()
            .then_some((ALL.to_owned(), space))
    };
    index.follow(api, watcher::Config::default(), read).await;
}

/// The shortest ttl of a tenant's dynamic secrets, in seconds.
pub fn min_ttl(index: &Index<Space>, namespace: &str) -> u64 {
    let own = index.get(ALL, namespace).and_then(|space| space.value.min_ttl);
    own.unwrap_or(MIN_TTL_SECONDS.unsigned_abs())
}

/// The tenant that a `Host` header names; the default one where it names none.
pub fn resolve(index: &Index<Space>, default: Option<&str>, host: Option<&str>) -> Option<Tenant> {
    let label = host.and_then(left_most);
    let named = label.as_deref().and_then(|label| find(index, default, label));
    named.or_else(|| find(index, default, default?))
}

fn find(index: &Index<Space>, default: Option<&str>, name: &str) -> Option<Tenant> {
    let found = index.get(ALL, name)?;
    let is_tenant = found.value.is_open || default == Some(name);
    is_tenant.then(|| Tenant {
        namespace: name.to_owned(),
        uid: found.value.uid.clone(),
    })
}

/// The first label of a host name, in lower case. An address has none, and neither has a name of one label.
fn left_most(host: &str) -> Option<String> {
    let (label, rest) = host.split_once('.')?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if rest.is_empty() || name.parse::<std::net::IpAddr>().is_ok() || label.is_empty() {
        return None;
    }
    let fits = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    fits.then(|| label.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_most_label_names_the_tenant_and_an_address_names_none() {
        for (host, label) in [
            ("acme.example.com", Some("acme")),
            ("ACME.example.com:8443", Some("acme")),
            ("127.0.0.1:18443", None),
            ("[::1]:443", None),
            ("localhost:443", None),
            ("a_b.example.com", None),
            (".example.com", None),
            ("../x.example.com", None),
        ] {
            assert_eq!(left_most(host).as_deref(), label, "{host}");
        }
    }
}
