//! Pushing secrets away is no way to read them: who writes a tenant or a sync must be allowed to read what it names.

use super::{Installation, fence, resource, username, validation};
use crate::api::names::GROUP;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};

/// What was so before needs no right again: finalizers come off, and annotations are set, by others.
fn unless_same(allowed: &str) -> String {
    format!("(oldObject != null && object.spec == oldObject.spec) || {allowed}")
}

/// Whether the caller may read a Secret of the object's namespace; an empty name stands for all of them.
fn may_read(name: &str) -> String {
    format!(
        "authorizer.group('').resource('secrets').namespace(object.metadata.namespace){name}.check('get').allowed()"
    )
}

/// Of a tenant the credentials. A URL is part of it: with another one they are sent elsewhere.
pub fn tenants_fence(installation: &Installation) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let read = may_read(".name(object.spec.credentials.secretName)");
    fence(
        "dsv-operator-tenants",
        &format!("request.userInfo.username != '{}'", username(installation)),
        resource(GROUP, &["dsvtenants"], &["CREATE", "UPDATE"]),
        vec![validation(
            &unless_same(&read),
            "who writes a DsvTenant must be allowed to get the Secret with its credentials",
        )],
    )
}

/// Of a sync the source. The Secret of a dynamic secret may have any name, so there the right to all of them is asked for.
pub fn syncs_fence(installation: &Installation) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let read = format!(
        "(!has(object.spec.source.kind) || object.spec.source.kind == 'Secret' ? {} : {})",
        may_read(".name(object.spec.source.name)"),
        may_read("")
    );
    fence(
        "dsv-operator-syncs",
        &format!("request.userInfo.username != '{}'", username(installation)),
        resource(GROUP, &["secretsyncs"], &["CREATE", "UPDATE"]),
        vec![validation(
            &unless_same(&read),
            "who writes a SecretSync must be allowed to get its source, for a DynamicSecret all Secrets of the namespace",
        )],
    )
}
