//! Keys of engines: changed when somebody asks, without a moment in which an engine that works is refused.

use e2e::engine::Engine;
use e2e::install::NAMESPACE;
use e2e::objects::text;
use e2e::sample::ORDERS;
use e2e::scene::{PATIENCE, Scene};
use e2e::stack::Stack;
use serde_json::{Value, json};

async fn seen(scene: &Scene<'_>, name: &str) -> Value {
    let found = scene.objects.get("Engine", &scene.databases, name).await.unwrap();
    found.expect("the Engine is there")
}

/// The Engine as soon as its key was changed for this request.
async fn changed(scene: &Scene<'_>, name: &str, asked: &str) -> Value {
    let ask = json!({"metadata": {"annotations": {"dsv.dev/rotate-key": asked}}});
    scene
        .objects
        .merge("Engine", &scene.databases, name, &ask)
        .await
        .unwrap();
    let answered = || async {
        let found = scene.objects.get("Engine", &scene.databases, name).await?;
        Ok(found.filter(|engine| text(engine, "/status/answeredRotateKey") == asked))
    };
    scene
        .stack
        .eventually("the key is changed", PATIENCE, answered)
        .await
        .unwrap()
}

async fn a_credential_works(scene: &Scene<'_>, name: &str) {
    scene.ask(name, &json!({"ttl": "10m"})).await.unwrap();
    let credential = scene.wait_credential(name).await.unwrap();
    scene.use_account(&credential.login).await.unwrap();
}

#[tokio::test]
async fn an_engine_elsewhere_works_with_the_old_key_until_it_is_given_the_new_one() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let process = stack.engine(&scene.databases, ORDERS, "dc-west-1").await.unwrap();
    scene.wait_connected(1).await.unwrap();
    let before = seen(&scene, "dc-west-1").await;
    let old = stack.registration(&scene.databases, "dc-west-1").await.unwrap();

    let after = changed(&scene, "dc-west-1", "once").await;
    assert_ne!(text(&after, "/spec/publicKey"), text(&before, "/spec/publicKey"));
    assert_eq!(
        text(&after, "/spec/previousPublicKey/key"),
        text(&before, "/spec/publicKey")
    );
    assert!(!text(&after, "/status/keySince").is_empty());
    let new = stack.registration(&scene.databases, "dc-west-1").await.unwrap();
    assert_ne!(
        old["DSV_PRIVATE_KEY"], new["DSV_PRIVATE_KEY"],
        "the Secret has the new key"
    );
    a_credential_works(&scene, "with-the-session-of-before").await;
    // One that was not told yet comes back after a restart all the same.
    process.restart().await.unwrap();
    scene.wait_connected(1).await.unwrap();
    a_credential_works(&scene, "with-the-old-key").await;
    assert!(process.stop());
    let told = Engine::start(stack.run(), "told-the-new-key", &new, None).unwrap();
    told.wait_ready().await.unwrap();
    scene.wait_connected(1).await.unwrap();
    a_credential_works(&scene, "with-the-new-key").await;
    // What was answered is not done again by the next look.
    let later = seen(&scene, "dc-west-1").await;
    assert_eq!(text(&later, "/spec/publicKey"), text(&after, "/spec/publicKey"));
}

#[tokio::test]
async fn an_engine_in_the_cluster_is_started_anew_with_its_new_key() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, Some(2)).await.unwrap();
    scene.wait_connected(2).await.unwrap();
    let engines = scene.objects.list("Engine", &scene.databases).await.unwrap();
    let name = text(&engines[0], "/metadata/name");
    let deployment = dsv::api::names::managed_engine(&text(&engines[0], "/metadata/uid")).unwrap();
    let key_of_pod = || async {
        let found = scene.objects.get("Deployment", NAMESPACE, &deployment).await?;
        let key = text(
            &found.unwrap_or_default(),
            "/spec/template/metadata/annotations/dsv.dev~1key",
        );
        Ok(Some(key).filter(|key| !key.is_empty()))
    };
    let before = stack
        .eventually("the pod is marked with its key", PATIENCE, key_of_pod)
        .await
        .unwrap();
    let after = changed(&scene, &name, "once").await;
    assert_eq!(
        text(&after, "/spec/previousPublicKey/key"),
        text(&engines[0], "/spec/publicKey")
    );
    let other = || async { Ok(key_of_pod().await?.filter(|key| *key != before)) };
    stack
        .eventually("the pod is to be started anew", PATIENCE, other)
        .await
        .unwrap();
    scene.wait_connected(2).await.unwrap();
    a_credential_works(&scene, "app").await;
    let untouched = seen(&scene, &text(&engines[1], "/metadata/name")).await;
    assert_eq!(
        text(&untouched, "/spec/publicKey"),
        text(&engines[1], "/spec/publicKey"),
        "nobody asked for the other one's"
    );
}
