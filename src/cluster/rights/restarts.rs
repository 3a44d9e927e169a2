//! Restarting workloads: a right that the installer gives or not, a fence around it, and what is asked of those who write
//! down which workloads are to be restarted.

use super::{Installation, fence, meta, render, resource, role_ref, rule, subject, username, validation};
use crate::api::names::{GROUP, RESTART, RESTART_ALLOWED, RESTARTED_FOR};
use crate::api::target::WorkloadKind;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};

const NAME: &str = "dsv-operator-restarts";
/// Most workloads of one dynamic secret, as its schema says.
const MOST: usize = 8;

fn plurals() -> [&'static str; 3] {
    WorkloadKind::EVERY.map(WorkloadKind::plural)
}

/// Role and binding. RBAC cannot say which field may be changed: that is the fence's part.
pub fn manifest(installation: &Installation) -> Result<String, serde_json::Error> {
    let role = ClusterRole {
        metadata: meta(NAME, None),
        rules: Some(vec![rule("apps", &plurals(), &["get", "patch"])]),
        ..ClusterRole::default()
    };
    let binding = ClusterRoleBinding {
        metadata: meta(NAME, None),
        role_ref: role_ref("ClusterRole", NAME),
        subjects: Some(subject(installation)),
    };
    Ok([render(&role)?, render(&binding)?].join("---\n"))
}

/// Every key of a map has the same value in another one, and the other way round; `but` is left out. Without `dyn` the keys of
/// an object that has a schema could not be listed, and a field of a later Kubernetes would not be fenced.
fn same(now: &str, before: &str, but: &str) -> String {
    format!(
        "dyn({now}).all(k, {but} || (k in dyn({before}) && dyn({now})[k] == dyn({before})[k])) && \
         dyn({before}).all(k, {but} || k in dyn({now}))"
    )
}

/// The operator changes nothing on a workload but its own annotations on the pod template, and that only where the workload
/// allows it. Engines in its own namespace are Deployments that it made, and fenced by its Role.
pub fn workloads_fence(installation: &Installation) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let whom = format!(
        "request.userInfo.username == '{}' && !(request.namespace == '{}' && request.resource.resource == 'deployments')",
        username(installation),
        installation.namespace
    );
    let only =
        "dsv-operator may change nothing on a workload but the annotations restarted-for.dsv.dev/ of its pod template";
    let notes = |object: &str| format!("{object}.spec.template.?metadata.?annotations.orValue({{}})");
    let parts = [
        // These move by themselves with every write.
        same(
            "object.metadata",
            "oldObject.metadata",
            "k in ['generation', 'resourceVersion', 'managedFields', 'annotations']",
        ),
        // The API server counts in this one itself, whatever a request says.
        same(
            "object.metadata.?annotations.orValue({})",
            "oldObject.metadata.?annotations.orValue({})",
            "k == 'deprecated.daemonset.template.generation'",
        ),
        same("object.spec", "oldObject.spec", "k == 'template'"),
        same("object.spec.template", "oldObject.spec.template", "k == 'metadata'"),
        same(
            "object.spec.template.?metadata.orValue({})",
            "oldObject.spec.template.?metadata.orValue({})",
            "k == 'annotations'",
        ),
        same(
            &notes("object"),
            &notes("oldObject"),
            &format!("k.startsWith('{RESTARTED_FOR}')"),
        ),
    ];
    let mut validations = vec![validation(
        &format!("oldObject.metadata.?annotations[?'{RESTART}'].orValue('') == '{RESTART_ALLOWED}'"),
        "dsv-operator may restart only workloads that are annotated dsv.dev/restart=allowed",
    )];
    validations.extend(parts.iter().map(|part| validation(part, only)));
    fence(
        "dsv-operator-workloads",
        &whom,
        resource("apps", &plurals(), &["UPDATE"]),
        validations,
    )
}

/// Having a workload restarted is no way to restart one that is not one's own: who writes it down must be allowed to patch it.
/// One validation for each place of the list, since two questions to the authorizer are all that one may ask.
pub fn restarts_fence(installation: &Installation) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    fence(
        NAME,
        &format!("request.userInfo.username != '{}'", username(installation)),
        resource(GROUP, &["dynamicsecrets"], &["CREATE", "UPDATE"]),
        (0..MOST).map(may_patch).collect(),
    )
}

fn may_patch(place: usize) -> Validation {
    let list = "object.spec.?target.?restart.orValue([])";
    let named = format!("{list}[{place}]");
    let plural = format!(
        "{{'Deployment': 'deployments', 'StatefulSet': 'statefulsets', 'DaemonSet': 'daemonsets'}}[{named}.kind]"
    );
    let allowed = format!(
        "authorizer.group('apps').resource({plural}).namespace(object.metadata.namespace).name({named}.name).check('patch').allowed()"
    );
    validation(
        &format!("{list}.size() <= {place} || (oldObject != null && object.spec == oldObject.spec) || {allowed}"),
        "who writes spec.target.restart must be allowed to patch the workloads that it names",
    )
}
