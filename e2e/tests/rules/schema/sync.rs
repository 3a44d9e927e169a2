//! `DsvTenant` and `SecretSync`: which specs are accepted.

use serde_json::{Value, json};

use crate::schema::world::{accepts, changed, covers_every_rule, refuses};

fn tenant(patch: &Value) -> Value {
    changed(json!({"credentials": {"secretName": "login"}}), patch)
}

fn sync(patch: &Value) -> Value {
    changed(json!({"source": {"name": "a"}, "tenant": "b", "path": ["c"]}), patch)
}

fn refused_tenants() -> Vec<(Value, &'static str)> {
    let url = "url must be https://host or https://host:port, without a login, path or query";
    let name = "secretName must be a Kubernetes object name";
    let span = "a length of time is seconds";
    vec![
        (
            tenant(&json!({"credentials": null})),
            "spec.credentials: Required value",
        ),
        (tenant(&json!({"credentials": {"secretName": "a/b"}})), name),
        (tenant(&json!({"url": "http://a.example"})), url),
        (tenant(&json!({"url": "https://u:p@a.example"})), url),
        (tenant(&json!({"url": "https://a.example/v1"})), url),
        (
            tenant(&json!({"proxy": "https://a.example"})),
            "proxy must be http://host:port",
        ),
        (
            tenant(&json!({"proxy": "http://u:p@a.example:1"})),
            "its login belongs into the credentials Secret",
        ),
        (tenant(&json!({"syncInterval": "soon"})), span),
        (tenant(&json!({"requestsPerMinute": 1})), "spec.requestsPerMinute"),
        (tenant(&json!({"maxInFlight": 0})), "spec.maxInFlight"),
    ]
}

fn refused_syncs() -> Vec<(Value, &'static str)> {
    let part = "each part of path has letters, digits, @, +, dots, underscores and dashes, or is $ and a slug";
    vec![
        (sync(&json!({"path": []})), "spec.path"),
        (sync(&json!({"path": ["a/b"]})), part),
        (sync(&json!({"path": ["a:b"]})), part),
        (sync(&json!({"path": [".."]})), part),
        (sync(&json!({"path": ["$"]})), part),
        (sync(&json!({"path": ["$a b"]})), part),
        (sync(&json!({"path": ["\\\\$a"]})), part),
        (sync(&json!({"tenant": "A"})), "tenant must be a Kubernetes object name"),
        (
            sync(&json!({"source": {"name": "a/b"}})),
            "the source's name must be a Kubernetes object name",
        ),
        (sync(&json!({"source": {"kind": "ConfigMap"}})), "spec.source.kind"),
        (sync(&json!({"drift": "Ignore"})), "spec.drift"),
        (sync(&json!({"deletionPolicy": "Keep"})), "spec.deletionPolicy"),
        (sync(&json!({"fields": {"a": "x".repeat(1025)}})), "spec.fields"),
    ]
}

#[tokio::test]
async fn sound_tenants_and_syncs_are_stored_as_they_were_written() {
    let more = json!({
        "url": "https://acme.secretsvaultcloud.com", "syncInterval": "30m", "active": false, "caBundle": "x",
        "proxy": "http://proxy.example.com:3128", "requestsPerMinute": 60, "maxInFlight": 1,
    });
    accepts("DsvTenant", vec![tenant(&json!({})), tenant(&more)]).await;
    let more = json!({
        "source": {"kind": "DynamicSecret"}, "path": ["Demo", "$domain", "\\$user-name", "a@b+c.d_e"],
        "fields": {"login": "$user-name", "env": "qa"}, "pushHidden": true, "attributes": {"team": "shop"},
        "description": "d", "active": false, "drift": "Overwrite", "deletionPolicy": "SoftDelete",
    });
    accepts("SecretSync", vec![sync(&json!({})), sync(&more)]).await;
}

#[tokio::test]
async fn unsound_tenants_and_syncs_are_refused_with_what_would_be_right() {
    refuses("DsvTenant", &refused_tenants()).await;
    refuses("SecretSync", &refused_syncs()).await;
}

#[tokio::test]
async fn every_rule_for_tenants_and_syncs_has_an_example_that_it_refuses() {
    let long = "at most 200 characters";
    covers_every_rule("dsvtenants", &refused_tenants(), &[long]).await;
    covers_every_rule(
        "secretsyncs",
        &refused_syncs(),
        &[long, "source and tenant of a sync cannot change"],
    )
    .await;
}
