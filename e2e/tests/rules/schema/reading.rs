//! What people see of our kinds with kubectl, and that the API server adds nothing to what they wrote.

use std::collections::BTreeSet;

use e2e::cluster::Cluster;
use serde_json::Value;

use crate::cluster;

const KINDS: [&str; 6] = [
    "enginepools",
    "engines",
    "dynamicsecrets",
    "credentialleases",
    "dsvtenants",
    "secretsyncs",
];
const SAMPLES: &str = include_str!("samples.yaml");

fn get(cluster: &Cluster, args: &[&str]) -> Value {
    let answer = cluster.kubectl(&[&["get"], args, &["-o", "json"]].concat()).unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// Paths below `value` at which `wrong` holds.
fn find(value: &Value, path: &str, wrong: &impl Fn(&str, &Value) -> bool, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, below) in fields {
                let here = format!("{path}.{key}");
                if wrong(key, below) {
                    found.insert(here.clone());
                }
                find(below, &here, wrong, found);
            }
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, below)| find(below, &format!("{path}[{at}]"), wrong, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_samples_of_the_documentation_are_accepted_and_read_back_unchanged() {
    let cluster = cluster().await;
    let namespaces = ["databases", "shop"];
    for namespace in namespaces {
        cluster.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    let first = cluster.apply(SAMPLES).unwrap();
    assert_eq!(
        first.lines().filter(|line| line.ends_with(" created")).count(),
        5,
        "{first}"
    );
    let again = cluster.apply(SAMPLES).unwrap();
    // The Secret is written with stringData, which the API server stores as data.
    let ours = again.lines().filter(|line| line.contains(".dsv.dev/"));
    assert!(
        ours.clone().count() == 4 && ours.clone().all(|line| line.ends_with(" unchanged")),
        "{again}"
    );
    let stored = get(cluster, &["enginepools,engines,dynamicsecrets,credentialleases", "-A"]);
    let ours = |object: &&Value| namespaces.iter().any(|name| object["metadata"]["namespace"] == *name);
    for object in stored["items"].as_array().unwrap().iter().filter(ours) {
        let written: Value = serde_json::from_str(
            object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
                .as_str()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(object["spec"], written["spec"]);
        assert_eq!(object.get("status"), None, "nobody has written a status: {object}");
    }
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_named() {
    let misspelt = SAMPLES.replace("userPrefix:", "userprefix:");
    assert_ne!(misspelt, SAMPLES);
    let refused = cluster()
        .await
        .kubectl_with(&["create", "--dry-run=server", "-f", "-"], &misspelt)
        .unwrap_err();
    assert!(
        format!("{refused:#}").contains("unknown field \"spec.userprefix\""),
        "{refused:#}"
    );
}

#[tokio::test]
async fn the_definitions_add_no_defaults_and_know_no_null() {
    for kind in KINDS {
        let definition = get(cluster().await, &["crd", &format!("{kind}.dsv.dev")]);
        let schema = &definition["spec"]["versions"][0]["schema"];
        let mut found = BTreeSet::new();
        find(
            schema,
            kind,
            &|key, below| (key == "default" && !below.is_object()) || (key == "nullable" && !below.is_object()),
            &mut found,
        );
        assert_eq!(found, BTreeSet::new());
        let conditions = definition["status"]["conditions"].as_array().unwrap();
        let holds = |name: &str| conditions.iter().any(|c| c["type"] == name && c["status"] == "True");
        assert!(
            holds("Established") && holds("NamesAccepted") && !holds("NonStructuralSchema"),
            "{kind}: {conditions:?}"
        );
        assert_eq!(
            definition["spec"]["versions"][0]["subresources"]["status"],
            serde_json::json!({}),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn short_names_and_the_category_lead_to_our_kinds() {
    let resources = cluster()
        .await
        .kubectl(&["api-resources", "--api-group=dsv.dev", "-o", "wide", "--no-headers"])
        .unwrap();
    for (short, plural) in [
        ("epool", "enginepools"),
        ("eng", "engines"),
        ("dynsec", "dynamicsecrets"),
        ("clease", "credentialleases"),
        ("dsvt", "dsvtenants"),
        ("ssync", "secretsyncs"),
    ] {
        let line = resources
            .lines()
            .find(|line| line.starts_with(&format!("{plural} ")))
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            (words[1], words[2], words[3], *words.last().unwrap()),
            (short, "dsv.dev/v1alpha1", "true", "dsv"),
            "{line}"
        );
        cluster().await.kubectl(&["get", short, "-n", "kube-public"]).unwrap();
    }
    cluster().await.kubectl(&["get", "dsv", "-n", "kube-public"]).unwrap();
}

#[tokio::test]
async fn kubectl_get_answers_the_usual_questions_in_its_columns() {
    let columns = [
        ("enginepools", "Ready Reason Connected Engines Leases Age"),
        ("engines", "Ready Reason Pool Version Heartbeat Age"),
        ("dynamicsecrets", "Ready Reason Mode User Engine Expires Age"),
        ("credentialleases", "Phase User Engine Expires Message Age"),
        ("dsvtenants", "Ready Reason Number URL Age"),
        ("secretsyncs", "Ready Reason Number Source Tenant Path Pushed Age"),
    ];
    for (kind, wanted) in columns {
        let definition = get(cluster().await, &["crd", &format!("{kind}.dsv.dev")]);
        let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"]
            .as_array()
            .unwrap();
        let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        let shown: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| wanted.split(' ').any(|w| w == *name))
            .collect();
        assert_eq!(shown.join(" "), wanted, "{kind} shows {names:?}");
    }
}

#[tokio::test]
async fn a_name_that_leaves_no_room_for_what_is_named_after_it_is_refused() {
    let samples = [
        ("EnginePool", "{}"),
        ("Engine", "{pool: orders}"),
        (
            "DynamicSecret",
            "{pool: {name: a}, linkConfig: {linkType: dynamic, linkedSecret: b}, grantPermissions: {what: SELECT, where: a.b}, ttl: 10}",
        ),
    ];
    let syncs = [
        ("DsvTenant", "{credentials: {secretName: a}}"),
        ("SecretSync", "{source: {name: a}, tenant: b, path: [c]}"),
    ];
    for (kind, spec) in samples.into_iter().chain(syncs) {
        for (length, fits) in [(200, true), (201, false)] {
            let name = "n".repeat(length);
            let manifest = format!(
                "{{apiVersion: dsv.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}, namespace: default}}, spec: {spec}}}"
            );
            let answer = cluster()
                .await
                .kubectl_with(&["create", "--dry-run=server", "-f", "-"], &manifest);
            let text = answer
                .as_ref()
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default();
            assert_eq!(answer.is_ok(), fits, "{kind} {length}: {text}");
            assert!(fits || text.contains("at most 200 characters"), "{kind}: {text}");
        }
    }
}
