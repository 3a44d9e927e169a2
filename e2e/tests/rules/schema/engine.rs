//! `Engine`: which specs and which changes are accepted.

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::schema::world::{accepts, api, changed, client, covers_every_rule, object, refuses};

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn spec(patch: &Value) -> Value {
    changed(json!({"pool": "orders"}), patch)
}

fn refused() -> Vec<(Value, &'static str)> {
    let key = "publicKey must be the 43 characters that dsv-engine keygen prints";
    vec![
        (spec(&json!({"pool": null})), "spec.pool: Required value"),
        (spec(&json!({"pool": ""})), "spec.pool"),
        (
            spec(&json!({"pool": "databases/orders"})),
            "pool must be a Kubernetes object name",
        ),
        (spec(&json!({"publicKey": ""})), key),
        (spec(&json!({"publicKey": "dsvk1.abc"})), key),
        (spec(&json!({"publicKey": format!("{KEY}=")})), key),
        (spec(&json!({"publicKey": KEY.replace('A', "+")})), key),
        (
            spec(&json!({"previousPublicKey": {"key": KEY}})),
            "spec.previousPublicKey.until: Required value",
        ),
        (
            spec(&json!({"previousPublicKey": {"until": "2030-01-01T00:00:00Z"}})),
            "spec.previousPublicKey.key: Required value",
        ),
        (
            spec(&json!({"previousPublicKey": {"key": KEY, "until": "tomorrow"}})),
            "spec.previousPublicKey.until",
        ),
    ]
}

#[tokio::test]
async fn a_sound_engine_is_stored_as_it_was_written() {
    let previous = json!({"key": KEY, "until": "2030-01-01T00:00:00Z"});
    let rows = vec![
        spec(&json!({})),
        spec(&json!({"publicKey": KEY, "disabled": true})),
        spec(&json!({"publicKey": KEY, "previousPublicKey": previous})),
    ];
    accepts("Engine", rows).await;
}

#[tokio::test]
async fn an_unsound_engine_is_refused_with_what_would_be_right() {
    refuses("Engine", &refused()).await;
}

#[tokio::test]
async fn every_rule_for_engines_has_an_example_that_it_refuses() {
    covers_every_rule("engines", &refused(), &["pool cannot change", "at most 200 characters"]).await;
}

#[tokio::test]
async fn an_engine_stays_in_its_pool_for_life() {
    let engines = api(&client().await, "Engine");
    let engine = serde_json::from_value(object("Engine", "settled", &spec(&json!({})))).unwrap();
    engines.create(&PostParams::default(), &engine).await.unwrap();
    let change = |patch: Value| {
        let engines = engines.clone();
        async move {
            engines
                .patch(
                    "settled",
                    &PatchParams::default(),
                    &Patch::Merge(&json!({"spec": patch})),
                )
                .await
        }
    };
    let moved = change(json!({"pool": "payroll"})).await.unwrap_err().to_string();
    assert!(moved.contains("pool cannot change; make another Engine"), "{moved}");
    let homeless = change(json!({"pool": null})).await.unwrap_err().to_string();
    assert!(homeless.contains("spec.pool: Required value"), "{homeless}");
    change(json!({"publicKey": KEY, "disabled": true})).await.unwrap();
    engines.delete("settled", &DeleteParams::default()).await.unwrap();
}
