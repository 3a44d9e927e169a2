//! Roles: what the operator's account and people may do. Asked for every resource there is, so that a right too many is a
//! failure too.

use std::collections::{BTreeMap, BTreeSet};

use e2e::install::{NAMESPACE as HOME, SERVICE_ACCOUNT};
use e2e::places;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::discovery::{Discovery, Scope};

use crate::rights::{ELSEWHERE, KINDS, ROLES, cluster};

#[derive(Clone)]
pub struct Subject {
    user: String,
    groups: Vec<String>,
}

fn account(name: &str) -> Subject {
    Subject {
        user: format!("system:serviceaccount:{HOME}:{name}"),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{HOME}"),
            "system:authenticated".into(),
        ],
    }
}

pub fn person(name: &str) -> Subject {
    Subject {
        user: name.into(),
        groups: vec!["system:authenticated".into()],
    }
}

/// Verb, group, resource or resource/subresource.
pub type Right = (String, String, String);

pub fn right(verb: &str, group: &str, resource: &str) -> Right {
    (verb.into(), group.into(), resource.into())
}

pub async fn may(client: &Client, who: &Subject, (verb, group, resource): &Right, namespace: &str) -> bool {
    let (resource, subresource) = resource
        .split_once('/')
        .map_or((resource.as_str(), None), |(r, s)| (r, Some(s)));
    let attributes = ResourceAttributes {
        verb: Some(verb.clone()),
        group: Some(group.clone()),
        resource: Some(resource.into()),
        subresource: subresource.map(Into::into),
        namespace: Some(namespace.into()).filter(|namespace: &String| !namespace.is_empty()),
        ..ResourceAttributes::default()
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(who.user.clone()),
            groups: Some(who.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::<SubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await
        .unwrap();
    answer.status.unwrap().allowed
}

/// Everything that can be asked of this API server, and whether it lies in namespaces.
async fn every_right(client: &Client) -> Vec<(Right, bool)> {
    let verbs = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "impersonate",
        "bind",
        "escalate",
    ];
    let mut all = BTreeMap::new();
    for group in Discovery::new(client.clone()).run().await.unwrap().groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let subresources = capabilities.subresources.iter().map(|(sub, _)| sub.plural.clone());
            for plural in std::iter::once(resource.plural.clone()).chain(subresources) {
                let plural = if plural.contains('/') || plural == resource.plural {
                    plural
                } else {
                    format!("{}/{plural}", resource.plural)
                };
                for verb in verbs {
                    all.insert(
                        right(verb, &resource.group, &plural),
                        capabilities.scope == Scope::Namespaced,
                    );
                }
            }
        }
    }
    // Not everything that can be granted is served as a resource.
    for (resource, namespaced) in [
        ("users", false),
        ("groups", false),
        ("pods/exec", true),
        ("serviceaccounts/token", true),
        ("secrets", true),
    ] {
        for verb in verbs {
            all.insert(right(verb, "", resource), namespaced);
        }
    }
    all.into_iter().collect()
}

/// Of all rights, those that the subject has in the namespace; cluster-wide ones are asked for without one.
async fn rights_of(client: &Client, who: &Subject, all: &[(Right, bool)], namespace: &str) -> BTreeSet<Right> {
    stream::iter(all)
        .map(|(right, namespaced)| async move {
            let place = if *namespaced { namespace } else { "" };
            may(client, who, right, place).await.then(|| right.clone())
        })
        .buffer_unordered(16)
        .filter_map(|right| async { right })
        .collect()
        .await
}

fn rights(group: &str, resources: &[&str], verbs: &[&str]) -> BTreeSet<Right> {
    let pairs = resources
        .iter()
        .flat_map(|resource| verbs.iter().map(move |verb| right(verb, group, resource)));
    pairs.collect()
}

fn with_sub(sub: &str) -> Vec<String> {
    KINDS.iter().map(|kind| format!("{kind}/{sub}")).collect()
}

/// What the operator needs, written down a second time so that a change of the roles has to be meant.
fn needed(home: bool) -> BTreeSet<Right> {
    let read = ["get", "list", "watch"];
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let (status, finalizers) = (with_sub("status"), with_sub("finalizers"));
    let names = |all: &'static [&'static str]| all;
    let mut wanted = BTreeSet::new();
    wanted.extend(rights("dsv.dev", &KINDS, &all));
    wanted.extend(rights(
        "dsv.dev",
        &status.iter().map(String::as_str).collect::<Vec<_>>(),
        &["update", "patch"],
    ));
    wanted.extend(rights(
        "dsv.dev",
        &finalizers.iter().map(String::as_str).collect::<Vec<_>>(),
        &["update"],
    ));
    wanted.extend(rights("", names(&["secrets"]), &all));
    wanted.extend(rights("", names(&["namespaces"]), &read));
    wanted.extend(rights("", names(&["pods", "serviceaccounts"]), &["get"]));
    wanted.extend(rights("batch", names(&["jobs"]), &["get"]));
    wanted.extend(rights("events.k8s.io", names(&["events"]), &["create", "patch"]));
    wanted.extend(rights("authentication.k8s.io", names(&["tokenreviews"]), &["create"]));
    wanted.extend(rights(
        "authorization.k8s.io",
        names(&["subjectaccessreviews"]),
        &["create"],
    ));
    if home {
        wanted.extend(rights(
            "coordination.k8s.io",
            names(&["leases"]),
            &["get", "create", "update"],
        ));
        wanted.extend(rights(
            "apps",
            names(&["deployments"]),
            &["get", "list", "watch", "create", "patch", "delete"],
        ));
        wanted.extend(rights("", names(&["pods"]), &["get", "list", "watch", "patch"]));
    }
    wanted
}

#[tokio::test]
async fn the_operator_has_the_rights_it_needs_and_no_other() {
    let client = cluster().await.client().await.unwrap();
    let mut all = every_right(&client).await;
    for right in needed(true) {
        // Finalizers are no resource of their own, so nothing lists them.
        if !all.iter().any(|(known, _)| *known == right) {
            all.push((right, true));
        }
    }
    for (namespace, home) in [(HOME, true), (ELSEWHERE, false)] {
        let usual = rights_of(&client, &account("somebody-else"), &all, namespace).await;
        let has: BTreeSet<Right> = rights_of(&client, &account(SERVICE_ACCOUNT), &all, namespace)
            .await
            .difference(&usual)
            .cloned()
            .collect();
        let needs = needed(home);
        let (more, less): (Vec<_>, Vec<_>) = (has.difference(&needs).collect(), needs.difference(&has).collect());
        assert!(more.is_empty(), "in {namespace} it may also: {more:?}");
        assert!(less.is_empty(), "in {namespace} it may not: {less:?}");
    }
}

/// The chart's manifest as Helm fills it in.
fn trial_rights() -> String {
    let file = places::workspace().join("charts/dsv-operator/templates/rights-trial.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("{{-"));
    let text = lines.collect::<Vec<_>>().join("\n");
    text.replace("{{.Release.Namespace}}", HOME)
        .replace("{{.Values.trial.namespace}}", ELSEWHERE)
}

#[tokio::test]
async fn the_account_of_helm_test_may_ask_for_accounts_in_one_namespace_and_nothing_else() {
    let cluster = cluster().await;
    cluster.kubectl_with(&["apply", "-f", "-"], &trial_rights()).unwrap();
    let client = cluster.client().await.unwrap();
    let all = every_right(&client).await;
    for (namespace, verbs) in [(ELSEWHERE, &["create", "get", "delete"][..]), (HOME, &[])] {
        let usual = rights_of(&client, &account("somebody-else"), &all, namespace).await;
        let has = rights_of(&client, &account("dsv-operator-trial"), &all, namespace).await;
        let has: BTreeSet<Right> = has.difference(&usual).cloned().collect();
        assert_eq!(has, rights("dsv.dev", &["credentialleases"], verbs), "in {namespace}");
    }
}

#[tokio::test]
async fn people_have_of_our_kinds_what_their_role_says_and_only_in_their_namespace() {
    let client = cluster().await.client().await.unwrap();
    let verbs = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
    ];
    let subs = [with_sub("status"), with_sub("finalizers")].concat();
    let subs = subs.iter().map(String::as_str).chain(["enginepools/scale"]);
    let resources: Vec<&str> = KINDS.into_iter().chain(subs).collect();
    let all: Vec<(Right, bool)> = rights("dsv.dev", &resources, &verbs)
        .into_iter()
        .map(|right| (right, true))
        .collect();
    let (read, write) = (["get", "list", "watch"], ["create", "update", "patch", "delete"]);
    let seen = ["dsvtenants", "dynamicsecrets", "enginepools", "engines", "secretsyncs"];
    let mut wanted = rights("dsv.dev", &seen, &read);
    for role in ROLES {
        match role {
            "edit" => {
                wanted.extend(rights("dsv.dev", &["dynamicsecrets", "secretsyncs"], &write));
                wanted.extend(rights(
                    "dsv.dev",
                    &["credentialleases"],
                    &["get", "list", "watch", "create", "delete"],
                ));
            }
            "admin" => {
                wanted.extend(rights("dsv.dev", &["dsvtenants", "enginepools", "engines"], &write));
                wanted.extend(rights("dsv.dev", &["enginepools/scale"], &["get", "update", "patch"]));
            }
            _ => {}
        }
        assert_eq!(
            rights_of(&client, &person(role), &all, ELSEWHERE).await,
            wanted,
            "{role}"
        );
        assert_eq!(
            rights_of(&client, &person(role), &all, "default").await,
            BTreeSet::new(),
            "{role} elsewhere"
        );
    }
}
