//! `EnginePool`: which specs are accepted.

use serde_json::{Value, json};

use crate::schema::world::{accepts, changed, covers_every_rule, refuses};

fn spec(patch: &Value) -> Value {
    let usual = json!({
        "engines": {"replicas": 2},
        "access": [entry(&json!({}))],
    });
    changed(usual, patch)
}

fn entry(patch: &Value) -> Value {
    let usual = json!({
        "namespaceSelector": {"matchLabels": {"team": "shop"}},
        "linkedSecrets": ["orders-db"],
        "grants": [{"what": "SELECT, INSERT", "where": "orders.public.*"}],
        "userPrefixes": ["shop_"],
        "maxTtl": "1h",
        "maxLeases": 100,
    });
    changed(usual, patch)
}

fn access(patch: &Value) -> Value {
    spec(&json!({"access": [entry(patch)]}))
}

fn accepted() -> Vec<Value> {
    vec![
        json!({}),
        spec(&json!({"engines": null})),
        spec(&json!({"engines": {"replicas": 0}})),
        access(
            &json!({"namespaceSelector": {}, "linkedSecrets": null, "grants": null, "userPrefixes": null, "maxTtl": null, "maxLeases": null}),
        ),
        access(
            &json!({"namespaceSelector": {"matchLabels": null, "matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}}),
        ),
        access(&json!({"maxTtl": 3600, "maxLeases": 0, "userPrefixes": ["", "shop_"]})),
        spec(&json!({"engines": {
            "replicas": 32,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": 1}},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "databases", "effect": "NoExecute", "tolerationSeconds": 30}],
            "priorityClassName": "high", "imagePullSecrets": ["registry"],
            "podLabels": {"team": "platform"}, "podAnnotations": {"example.com/a": "b"},
            "proxy": {"httpsProxy": "http://proxy.example.com:3128", "noProxy": ".svc"},
        }})),
    ]
}

fn refused() -> Vec<(Value, &'static str)> {
    let span = "a length of time is seconds";
    let labels = "podLabels must not be of kubernetes.io, k8s.io or dsv.dev";
    let engines = |value: Value| spec(&json!({"engines": value}));
    vec![
        (engines(json!({"replicas": -1})), "spec.engines.replicas"),
        (engines(json!({"replicas": 33})), "spec.engines.replicas"),
        (engines(json!({"replicas": "two"})), "spec.engines.replicas"),
        (
            engines(json!({"replicas": null})),
            "spec.engines.replicas: Required value",
        ),
        (engines(json!({"podLabels": {"app.kubernetes.io/name": "x"}})), labels),
        (engines(json!({"podLabels": {"dsv.dev/engine": "x"}})), labels),
        (
            engines(json!({"imagePullSecrets": vec!["a"; 9]})),
            "spec.engines.imagePullSecrets",
        ),
        (
            access(&json!({"namespaceSelector": null})),
            "spec.access[0].namespaceSelector: Required value",
        ),
        (access(&json!({"maxTtl": "soon"})), span),
        (access(&json!({"maxTtl": "99999h"})), span),
        (access(&json!({"maxLeases": -1})), "spec.access[0].maxLeases"),
        (access(&json!({"maxLeases": 1_000_001})), "spec.access[0].maxLeases"),
        (
            access(&json!({"grants": [{"what": "SELECT", "where": "orders"}]})),
            "where must be [database.]schema.object",
        ),
        (
            access(&json!({"grants": [{"what": "EVERYTHING", "where": "*.*"}]})),
            "what must be words of SELECT",
        ),
        (
            access(&json!({"linkedSecrets": vec!["a"; 65]})),
            "spec.access[0].linkedSecrets",
        ),
        (spec(&json!({"access": vec![entry(&json!({})); 33]})), "spec.access"),
    ]
}

#[tokio::test]
async fn a_sound_pool_is_stored_as_it_was_written() {
    accepts("EnginePool", accepted()).await;
}

#[tokio::test]
async fn an_unsound_pool_is_refused_with_what_would_be_right() {
    refuses("EnginePool", &refused()).await;
}

#[tokio::test]
async fn every_rule_for_pools_has_an_example_that_it_refuses() {
    covers_every_rule("enginepools", &refused(), &["at most 200 characters"]).await;
}
