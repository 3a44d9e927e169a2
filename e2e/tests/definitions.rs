//! A definition is deleted while accounts live and the operator is away: it comes back, says what is missing, and takes the
//! accounts back all the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use anyhow::ensure;
use e2e::install;
use e2e::objects::text;
use e2e::scene::{Credential, PATIENCE, Scene, grace};
use e2e::stack::{Shape, Stack};
use serde_json::{Value, json};

async fn stack() -> Stack {
    let shape = Shape {
        node: true,
        ..Shape::default()
    };
    Stack::start(shape).await.unwrap()
}

async fn issued(scene: &Scene<'_>, name: &str, spec: &Value) -> Credential {
    scene.ask(name, spec).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    scene.wait_credential(name).await.unwrap()
}

async fn delete_definition(scene: &Scene<'_>, name: &str) {
    scene
        .objects
        .delete("CustomResourceDefinition", "", name)
        .await
        .unwrap();
}

/// Waits until the operator says whether the definition is missing.
async fn wait_missing(stack: &Stack, kind: &str, missing: u8) {
    let line = format!("dsv_definition_missing{{kind=\"{kind}\"}} {missing}");
    let check = || async {
        let metrics = stack.operators()[0].metrics().await?;
        ensure!(metrics.lines().any(|l| l == line), "the metrics do not say {line}");
        Ok(Some(()))
    };
    stack.eventually(&line, PATIENCE, check).await.unwrap();
}

#[tokio::test]
async fn without_the_definition_of_what_asked_for_them_accounts_are_taken_back() {
    let stack = stack().await;
    let scene = Scene::open(&stack, Some(1)).await.unwrap();
    let deleted = issued(&scene, "deleted", &json!({"ttl": "10m"})).await;
    let kept = issued(&scene, "kept", &json!({"ttl": 40})).await;
    // The garbage collector shall not end this one before its time.
    let unowned = json!({"metadata": {"ownerReferences": null}});
    scene
        .objects
        .merge("CredentialLease", &scene.shop, &kept.lease, &unowned)
        .await
        .unwrap();
    assert!(stack.operators()[0].stop());
    for name in ["deleted", "kept"] {
        let off = json!({"metadata": {"finalizers": null}});
        scene
            .objects
            .merge("DynamicSecret", &scene.shop, name, &off)
            .await
            .unwrap();
    }
    let definition = "dynamicsecrets.dsv.dev";
    delete_definition(&scene, definition).await;
    scene
        .wait_absent("CustomResourceDefinition", "", definition)
        .await
        .unwrap();

    stack.operators()[0].restart().await.unwrap();
    wait_missing(&stack, "dynamic_secret", 1).await;
    let log = stack.operators()[0].log_text();
    let said = log.lines().find(|line| line.contains("definition is not installed"));
    assert!(
        said.is_some_and(|line| line.contains(definition) && line.contains("apply crds/")),
        "{said:?}"
    );
    scene.use_account(&kept.login).await.expect("it lives to its end");
    scene.ended("kept", &kept, grace()).await.unwrap();
    scene
        .objects
        .delete("CredentialLease", &scene.shop, &deleted.lease)
        .await
        .unwrap();
    scene.wait_no_role(&deleted.login.user).await.unwrap();
    none_left(&scene).await;
    assert!(scene.credential("deleted").await.unwrap().is_none());

    install::install(stack.cluster()).await.unwrap();
    wait_missing(&stack, "dynamic_secret", 0).await;
    let anew = issued(&scene, "anew", &json!({"ttl": 30})).await;
    scene.use_account(&anew.login).await.unwrap();
    // Once more, while the operator runs: its cache still shows what is not there any more.
    let off = json!({"metadata": {"finalizers": null}});
    scene
        .objects
        .merge("DynamicSecret", &scene.shop, "anew", &off)
        .await
        .unwrap();
    delete_definition(&scene, definition).await;
    scene.ended("anew", &anew, grace()).await.unwrap();
    none_left(&scene).await;
}

/// The last proof is due a minute after the claim.
async fn none_left(scene: &Scene<'_>) {
    let none = || async { Ok(scene.leases().await?.is_empty().then_some(())) };
    let limit = Duration::from_secs(60) + PATIENCE;
    scene.stack.eventually("no lease is left", limit, none).await.unwrap();
}

#[tokio::test]
async fn of_engines_that_are_deleted_together_all_stay_until_no_account_needs_them() {
    let stack = stack().await;
    let scene = Scene::open(&stack, Some(2)).await.unwrap();
    let credential = issued(&scene, "app", &json!({"ttl": 20})).await;
    assert!(stack.operators()[0].stop());
    let definition = "engines.dsv.dev";
    delete_definition(&scene, definition).await;
    stack.operators()[0].restart().await.unwrap();
    scene.use_account(&credential.login).await.expect("it lives to its end");
    scene.ended("app", &credential, grace()).await.unwrap();
    scene
        .wait_absent("CustomResourceDefinition", "", definition)
        .await
        .unwrap();
    wait_missing(&stack, "engine", 1).await;
    let pool = scene
        .objects
        .get("EnginePool", &scene.databases, "orders")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text(&pool, "/metadata/deletionTimestamp"), "");
}
