//! Which requests to the API server are writes, and of what: read off method and path, so that none is forgotten.

use super::metrics::{ObjectKind, Verb};
use http::Method;

/// Kind and verb of a write; none for reads and for what is not counted (leadership).
pub fn classify(method: &Method, path: &str) -> Option<(ObjectKind, Verb)> {
    let mut segments = path.split('/').skip_while(|segment| *segment != "namespaces").skip(2);
    let kind = match segments.next()? {
        "dynamicsecrets" => ObjectKind::DynamicSecret,
        "credentialleases" => ObjectKind::CredentialLease,
        "enginepools" => ObjectKind::EnginePool,
        "engines" => ObjectKind::Engine,
        "dsvtenants" => ObjectKind::DsvTenant,
        "secretsyncs" => ObjectKind::SecretSync,
        "secrets" => ObjectKind::Secret,
        "deployments" => ObjectKind::Deployment,
        "statefulsets" => ObjectKind::StatefulSet,
        "daemonsets" => ObjectKind::DaemonSet,
        "pods" => ObjectKind::Pod,
        "events" => ObjectKind::Event,
        _ => return None,
    };
    let subresource = segments.nth(1);
    let verb = match *method {
        Method::POST => Verb::Create,
        Method::PUT | Method::PATCH if subresource == Some("status") => Verb::Status,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ => return None,
    };
    Some((kind, verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_told_from_reads_and_named() {
        let lease = "/apis/dsv.dev/v1alpha1/namespaces/shop/credentialleases";
        let of = |method: Method, path: &str| classify(&method, path);
        assert_eq!(
            of(Method::POST, lease),
            Some((ObjectKind::CredentialLease, Verb::Create))
        );
        assert_eq!(
            of(Method::PUT, &format!("{lease}/a/status")),
            Some((ObjectKind::CredentialLease, Verb::Status))
        );
        assert_eq!(
            of(Method::PATCH, &format!("{lease}/a")),
            Some((ObjectKind::CredentialLease, Verb::Patch))
        );
        assert_eq!(
            of(Method::DELETE, "/api/v1/namespaces/shop/secrets/a"),
            Some((ObjectKind::Secret, Verb::Delete))
        );
        assert_eq!(of(Method::GET, lease), None);
        assert_eq!(
            of(
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/dsv-system/leases/dsv-operator"
            ),
            None
        );
    }
}
