//! `DynamicSecret`: which specs are accepted.

use dsv::api::DynamicSecretSpec;
use serde_json::{Value, json};

use crate::schema::world::{accepts, changed, client, covers_every_rule, create, refuses};

const WHAT: &str = "what must be words of SELECT";
const WHERE: &str = "where must be [database.]schema.object";
const SPAN: &str = "a length of time is seconds (1000 or \"1000\") or a duration such as 1h30m, at most 10 years";
const SHORT: &str = "ttl must be at least 10 seconds";
const PREFIX: &str = "userPrefix must be lower-case letters, digits, _ or -";
const NAME: &str = "must be a Kubernetes object name";
const LABELS: &str = "labels must not be of kubernetes.io, k8s.io or dsv.dev";
const ANNOTATIONS: &str = "annotations must not be of kubernetes.io, k8s.io or dsv.dev";
const TEMPLATE: &str = "template: a key has letters, digits, -, _ and ., and is none that the Secret has already";
const RESTART: &str = "target.restart is for mode Rotate";
const WORKLOAD: &str = "workload name must be a Kubernetes object name";
const TYPE: &str = "target type must be Opaque, servicebinding.io/postgresql or a type of dsv.dev";

fn spec(patch: &Value) -> Value {
    let usual = json!({
        "pool": {"name": "orders"},
        "linkConfig": {"linkType": "dynamic", "linkedSecret": "orders-db"},
        "grantPermissions": {"what": "SELECT", "where": "public.orders"},
        "ttl": 1000,
    });
    changed(usual, patch)
}

fn ttl(value: impl Into<Value>) -> Value {
    spec(&json!({"ttl": value.into()}))
}

fn pair(what: &str, place: &str) -> Value {
    spec(&json!({"grantPermissions": {"what": what, "where": place}}))
}

fn many(count: usize) -> Value {
    (0..count)
        .map(|n| (format!("key-{n}"), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn accepted() -> Vec<Value> {
    let mut rows = vec![spec(&json!({}))];
    for what in [
        "select",
        "Select , INSERT",
        "ALL",
        "all privileges",
        "TEMP",
        " USAGE",
        "SELECT,SELECT",
        "maintain, truncate, references, trigger",
    ] {
        rows.push(pair(what, "public.orders"));
    }
    for place in [
        "*.*",
        "*.*.*",
        "public.*",
        "orders.public.*",
        "Public.Orders",
        "_a.b$1",
        r#""Odd ""x"" name"."tä;b'--""#,
        r#""database with blanks".public."back\slash""#,
    ] {
        rows.push(pair("SELECT", place));
    }
    for length in ["10", "10s", "1h30m", "1.5h", "10000ms", "0h10s", "315360000", "87600h"] {
        rows.push(ttl(length));
    }
    rows.extend([10, 1000, 315_360_000].map(ttl));
    for prefix in ["shop_", "9x", "pg", "pg-", "a-b", &"a".repeat(36)] {
        rows.push(spec(&json!({"userPrefix": prefix})));
    }
    for kind in ["Opaque", "servicebinding.io/postgresql", "dsv.dev/postgresql"] {
        rows.push(spec(&json!({"target": {"name": "orders-app.db", "type": kind}})));
    }
    rows.push(spec(&json!({"target": {"labels": {"team": "shop", "example.com/kubernetes.io": "x"}, "annotations": {"mydsv.dev/a": "b"}}})));
    rows.push(spec(&json!({"target": {"labels": many(32), "annotations": many(32)}})));
    rows.push(spec(&json!({"target": {"formats": ["jdbc", "libpq", "pgpass", "dotnet"], "template": {"app.properties": "{{ uri }}"}}})));
    rows.push(spec(&json!({
        "issuance": {"mode": "Rotate"},
        "target": {"restart": [{"kind": "Deployment", "name": "web"}, {"kind": "DaemonSet", "name": "web"}, {"kind": "StatefulSet", "name": "a.b"}]},
    })));
    rows.push(spec(&json!({"grantPermissions": null, "grants": [{"what": "SELECT", "where": "public.a"}, {"what": "ALL", "where": "b.*"}]})));
    rows.push(spec(&json!({
        "pool": {"namespace": "databases"},
        "issuance": {"mode": "Rotate", "renewBefore": "5m", "overlap": 120},
        "suspend": true, "deletionPolicy": "LetExpire", "revocation": {"ownedObjects": "Drop"}, "maxLeases": 1_000_000,
        "account": {"connectionLimit": 5, "statementTimeout": "30s", "idleInTransactionTimeout": "60", "searchPath": ["public", "Odd \"one\""]},
    })));
    rows
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn refused() -> Vec<(Value, &'static str)> {
    let mut rows = Vec::new();
    for what in [
        "DROP",
        "SELECT, DROP",
        "SELECT;",
        "SELECT,,INSERT",
        "SELECT INSERT",
        "SELECT,",
        "GRANT OPTION",
        "SELECT ON x TO y --",
        "sélect",
    ] {
        rows.push((pair(what, "public.orders"), WHAT));
    }
    for place in [
        "orders",
        "a.b.c.d",
        "public.",
        ".orders",
        "public..orders",
        "public.orders;",
        "public.orders; DROP TABLE x",
        "public.or ders",
        "public.\"orders",
        "public.\"\"",
        "1a.b",
        "public.*x",
        "häuser.t",
        "public.x--",
        "public.'x'",
        "public.\"a\u{0}b\"",
        " public.x",
    ] {
        rows.push((pair("SELECT", place), WHERE));
    }
    for length in ["9", "9s", "9.9s", "0", "9999ms", "0h", "0.0h9s"] {
        rows.push((ttl(length), SHORT));
    }
    rows.extend([9, 0].map(|seconds| (ttl(seconds), SHORT)));
    for length in [
        "soon",
        "1d",
        "",
        "-10s",
        "+10s",
        "1e3",
        "10 s",
        "1h-30m",
        "99999999999",
        "315360001",
        "87601h",
        "999999999h",
    ] {
        rows.push((ttl(length), SPAN));
    }
    rows.extend([-1, 315_360_001].map(|seconds| (ttl(seconds), SPAN)));
    rows.push((ttl(true), "spec.ttl"));
    rows.push((ttl(10.5), "spec.ttl"));
    for prefix in [
        "Shop_",
        "pg_",
        "pg_app",
        "sh op",
        "shop;",
        "shop'",
        "_a",
        "-a",
        "ä",
        "",
        "a.b",
        "a\"b",
        &"a".repeat(37),
    ] {
        rows.push((spec(&json!({"userPrefix": prefix})), PREFIX));
    }
    rows.extend(targets());
    rows.extend(references());
    rows.extend(missing());
    rows.extend(bounds());
    rows
}

fn targets() -> Vec<(Value, &'static str)> {
    let target = |value: Value| spec(&json!({"target": value}));
    let mut rows = Vec::new();
    for name in ["Orders", "a_b", "-a", "a/b", "a-", "../b"] {
        rows.push((target(json!({"name": name})), NAME));
    }
    for kind in [
        "kubernetes.io/tls",
        "kubernetes.io/service-account-token",
        "dsv.dev/internal",
        "dsv.dev/registration",
        "opaque",
        "",
    ] {
        rows.push((target(json!({"type": kind})), TYPE));
    }
    for key in [
        "kubernetes.io/x",
        "app.kubernetes.io/managed-by",
        "a.k8s.io/x",
        "dsv.dev/lease",
        "x.dsv.dev/y",
    ] {
        rows.push((target(json!({"labels": {key: "x"}})), LABELS));
        rows.push((target(json!({"annotations": {key: "x"}})), ANNOTATIONS));
    }
    for key in ["password", "jdbc-uri", "with space", "a/b", ""] {
        rows.push((target(json!({"template": {key: "x"}})), TEMPLATE));
    }
    rows.push((target(json!({"formats": ["odbc"]})), "Unsupported value: \"odbc\""));
    rows.push((target(json!({"formats": ["jdbc", "jdbc"]})), "Duplicate value"));
    let restart = |mode: &str, list: Value| spec(&json!({"issuance": {"mode": mode}, "target": {"restart": list}}));
    let web = json!({"kind": "Deployment", "name": "web"});
    for mode in ["Once", "OnDemand"] {
        rows.push((restart(mode, json!([web])), RESTART));
    }
    rows.push((target(json!({"restart": [web]})), RESTART));
    rows.push((
        restart("Rotate", json!([{"kind": "Deployment", "name": "../x"}])),
        WORKLOAD,
    ));
    rows.push((restart("Rotate", json!([web, web])), "Duplicate value"));
    rows.push((
        restart("Rotate", json!([{"kind": "Pod", "name": "web"}])),
        "Unsupported value: \"Pod\"",
    ));
    let nine: Vec<Value> = (0..9)
        .map(|n| json!({"kind": "DaemonSet", "name": format!("d-{n}")}))
        .collect();
    rows.push((restart("Rotate", json!(nine)), "spec.target.restart"));
    rows.push((target(json!({"labels": many(33)})), "spec.target.labels"));
    rows.push((target(json!({"annotations": many(33)})), "spec.target.annotations"));
    rows
}

/// A name that is not one could lead the operator's own requests elsewhere.
fn references() -> Vec<(Value, &'static str)> {
    let mut rows = Vec::new();
    for name in [
        "../../kube-system/secrets/x",
        "a/b",
        "a?watch=true",
        "a%2fb",
        "A",
        "a b",
        ".",
        "..",
        "a#b",
    ] {
        rows.push((
            spec(&json!({"linkConfig": {"linkedSecret": name}})),
            "linkedSecret must be a Kubernetes object name",
        ));
        rows.push((
            spec(&json!({"pool": {"name": name}})),
            "pool name must be a Kubernetes object name",
        ));
        rows.push((
            spec(&json!({"pool": {"namespace": name}})),
            "pool namespace must be a Kubernetes namespace name",
        ));
    }
    rows
}

fn missing() -> Vec<(Value, &'static str)> {
    let either = "write either grantPermissions (one pair) or grants (several pairs)";
    let several = json!([{"what": "SELECT", "where": "public.a"}]);
    vec![
        (spec(&json!({"pool": null})), "spec.pool: Required value"),
        (spec(&json!({"pool": {"name": null}})), "spec.pool.name: Required value"),
        (spec(&json!({"linkConfig": null})), "spec.linkConfig: Required value"),
        (
            spec(&json!({"linkConfig": {"linkType": null}})),
            "spec.linkConfig.linkType: Required value",
        ),
        (
            spec(&json!({"linkConfig": {"linkedSecret": null}})),
            "spec.linkConfig.linkedSecret: Required value",
        ),
        (spec(&json!({"ttl": null})), "spec.ttl: Required value"),
        (
            spec(&json!({"grantPermissions": {"what": null}})),
            "spec.grantPermissions.what: Required value",
        ),
        (
            spec(&json!({"grantPermissions": {"where": null}})),
            "spec.grantPermissions.where: Required value",
        ),
        (spec(&json!({"grantPermissions": null})), either),
        (spec(&json!({"grants": several})), either),
        (
            spec(&json!({"linkConfig": {"linkType": "static"}})),
            "linkType must be dynamic",
        ),
        (
            spec(&json!({"linkConfig": {"linkType": "Dynamic"}})),
            "linkType must be dynamic",
        ),
        (
            spec(&json!({"linkConfig": {"linkType": ""}})),
            "linkType must be dynamic",
        ),
    ]
}

fn bounds() -> Vec<(Value, &'static str)> {
    let pairs = |count: usize| vec![json!({"what": "SELECT", "where": "public.a"}); count];
    vec![
        (spec(&json!({"grantPermissions": null, "grants": []})), "spec.grants"),
        (
            spec(&json!({"grantPermissions": null, "grants": pairs(33)})),
            "spec.grants",
        ),
        (pair("", "public.a"), "spec.grantPermissions.what"),
        (
            pair("SELECT", &format!("public.\"{}\"", "x".repeat(400))),
            "spec.grantPermissions.where",
        ),
        (
            spec(&json!({"linkConfig": {"linkedSecret": ""}})),
            "spec.linkConfig.linkedSecret",
        ),
        (spec(&json!({"pool": {"name": ""}})), "spec.pool.name"),
        (
            spec(&json!({"issuance": {"mode": "Always"}})),
            "spec.issuance.mode: Unsupported value",
        ),
        (spec(&json!({"issuance": {"renewBefore": "soon"}})), SPAN),
        (spec(&json!({"issuance": {"overlap": -1}})), SPAN),
        (
            spec(&json!({"deletionPolicy": "Keep"})),
            "spec.deletionPolicy: Unsupported value",
        ),
        (
            spec(&json!({"revocation": {"ownedObjects": "Delete"}})),
            "spec.revocation.ownedObjects: Unsupported value",
        ),
        (spec(&json!({"maxLeases": 0})), "spec.maxLeases"),
        (spec(&json!({"maxLeases": 1_000_001})), "spec.maxLeases"),
        (
            spec(&json!({"account": {"connectionLimit": -1}})),
            "spec.account.connectionLimit",
        ),
        (
            spec(&json!({"account": {"connectionLimit": 100_001}})),
            "spec.account.connectionLimit",
        ),
        (spec(&json!({"account": {"statementTimeout": "1d"}})), SPAN),
        (spec(&json!({"account": {"idleInTransactionTimeout": ""}})), SPAN),
        (
            spec(&json!({"account": {"searchPath": vec!["a"; 17]}})),
            "spec.account.searchPath",
        ),
    ]
}

#[tokio::test]
async fn a_sound_dynamic_secret_is_stored_as_it_was_written() {
    accepts("DynamicSecret", accepted()).await;
}

#[tokio::test]
async fn an_unsound_dynamic_secret_is_refused_with_what_would_be_right() {
    refuses("DynamicSecret", &refused()).await;
}

#[tokio::test]
async fn every_rule_for_dynamic_secrets_has_an_example_that_it_refuses() {
    covers_every_rule("dynamicsecrets", &refused(), &["at most 200 characters"]).await;
}

/// What the API server lets through must mean something to the operator too, or it would be refused late.
#[test]
fn what_the_schema_accepts_the_operator_can_read() {
    for spec in accepted() {
        let read: DynamicSecretSpec = serde_json::from_value(spec.clone()).unwrap();
        assert!(read.ttl.length().is_some_and(|length| length.as_secs() >= 10), "{spec}");
        for pair in read.pairs() {
            pair.parse().unwrap_or_else(|error| panic!("{spec}: {error}"));
        }
        assert_eq!(serde_json::to_value(&read).unwrap(), spec, "written back differently");
    }
}

/// Templates leave nulls behind; one that counted as a field would make an account without grants.
#[tokio::test]
async fn a_null_means_that_the_field_is_absent() {
    let mut unset = spec(&json!({}));
    unset["userPrefix"] = Value::Null;
    unset["grants"] = Value::Null;
    let stored = create(&client().await, "DynamicSecret", &unset).await.unwrap();
    assert_eq!(stored.data["spec"], spec(&json!({})));
    unset["grantPermissions"] = Value::Null;
    refuses(
        "DynamicSecret",
        &[(unset, "write either grantPermissions (one pair) or grants")],
    )
    .await;
}
