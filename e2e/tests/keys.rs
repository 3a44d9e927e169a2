//! The installation's keys are rotated, deleted and lost: no role is orphaned, no credential is changed, and what cannot be
//! mended without a person is said where people look.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::install::NAMESPACE;
use e2e::objects::{condition, text};
use e2e::postgres::Major;
use e2e::sample::ORDERS;
use e2e::scene::{Credential, PATIENCE, Scene};
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

const ROOT: &str = "dsv-root";
const SIGNING: &str = "dsv-signing";

/// That no account can appear any more is known when its issue deadline is past, which is a minute at most.
const PROOF: Duration = Duration::from_secs(90);

/// There is one set of keys, so those who meddle with it take turns.
static TURN: Mutex<()> = Mutex::const_new(());

async fn scene() -> Scene<'static> {
    let stack = Stack::shared().await.unwrap();
    Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap()
}

/// A credential in mode Rotate, whose predecessor goes a second after the next one came.
async fn issued(scene: &Scene<'_>, name: &str) -> Credential {
    let spec = json!({"ttl": 40, "issuance": {"mode": "Rotate", "renewBefore": 5, "overlap": 1}});
    scene.ask(name, &spec).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    scene.wait_credential(name).await.unwrap()
}

async fn key(scene: &Scene<'_>, name: &str) -> Option<Value> {
    let found = scene.objects.get("Secret", NAMESPACE, name).await.unwrap();
    found.map(|secret| secret["data"].clone())
}

/// Group roles with their comments: they are the proof of whose they are.
async fn groups(scene: &Scene<'_>) -> Vec<String> {
    let query = "SELECT rolname || ' ' || shobj_description(oid, 'pg_authid') FROM pg_roles \
                 WHERE starts_with(rolname, 'dsvg_') ORDER BY 1";
    let rows = scene.administrator().query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn delete(scene: &Scene<'_>, name: &str) {
    scene.objects.delete("DynamicSecret", &scene.shop, name).await.unwrap();
    let check = || async {
        let found = scene.objects.get("DynamicSecret", &scene.shop, name).await?;
        Ok(found.is_none().then_some(()))
    };
    let what = format!("{name} is gone");
    scene.stack.eventually(&what, PROOF, check).await.unwrap();
}

/// Another key signs: the next credential comes in the same group, the one before goes, nothing stays.
async fn works_on(scene: &Scene<'_>, credential: &Credential) {
    let old = &credential.login.user;
    assert_eq!(
        scene.credential("app").await.unwrap().unwrap().version,
        credential.version,
        "another key is no reason for another credential"
    );
    scene.use_account(&credential.login).await.unwrap();
    let before = groups(scene).await;
    scene.rotate("app", "now").await.unwrap();
    let next = scene.wait_serial("app", credential.serial + 1).await.unwrap();
    scene.use_account(&next.login).await.unwrap();
    scene.wait_no_role(old).await.unwrap();
    assert_eq!(groups(scene).await, before, "the group role is the same one");
    delete(scene, "app").await;
}

#[tokio::test]
async fn a_rotated_signing_key_orphans_nothing() {
    let _turn = TURN.lock().await;
    let scene = scene().await;
    let before = scene.books().await.unwrap();
    let credential = issued(&scene, "app").await;
    let old = key(&scene, SIGNING).await.unwrap();
    let patch = json!({"metadata": {"annotations": {"dsv.dev/rotate-key": format!("{}", rand::random::<u64>())}}});
    scene.objects.merge("Secret", NAMESPACE, SIGNING, &patch).await.unwrap();
    let check = || async {
        let new = key(&scene, SIGNING).await.unwrap();
        Ok((new["key"] != old["key"]).then_some(new))
    };
    let new = scene
        .stack
        .eventually("the key is another one", PATIENCE, check)
        .await
        .unwrap();
    assert_eq!(new["hash-key"], old["hash-key"], "or every Secret would look edited");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        key(&scene, SIGNING).await.unwrap(),
        new,
        "one annotation is one rotation"
    );
    works_on(&scene, &credential).await;
    assert_eq!(before.difference(&scene.books().await.unwrap()), "");
}

#[tokio::test]
async fn a_signing_key_that_is_lost_while_nobody_leads_orphans_nothing() {
    let _turn = TURN.lock().await;
    let scene = scene().await;
    let before = scene.books().await.unwrap();
    let credential = issued(&scene, "app").await;
    let old = key(&scene, SIGNING).await.unwrap();
    let operator = &scene.stack.operators()[0];
    assert!(operator.stop());
    scene.objects.delete("Secret", NAMESPACE, SIGNING).await.unwrap();
    operator.restart().await.unwrap();
    let check = || async { Ok(key(&scene, SIGNING).await) };
    let what = "there is a signing key again";
    let new = scene.stack.eventually(what, PATIENCE, check).await.unwrap();
    assert_ne!(new["key"], old["key"]);
    works_on(&scene, &credential).await;
    assert_eq!(before.difference(&scene.books().await.unwrap()), "");
}

#[tokio::test]
async fn keys_that_are_deleted_while_somebody_leads_are_put_back() {
    let _turn = TURN.lock().await;
    let scene = scene().await;
    for name in [ROOT, SIGNING] {
        let old = key(&scene, name).await.unwrap();
        scene.objects.delete("Secret", NAMESPACE, name).await.unwrap();
        let check = || async { Ok(key(&scene, name).await) };
        let what = format!("{name} is put back");
        let new = scene.stack.eventually(&what, PATIENCE, check).await.unwrap();
        assert_eq!(new, old);
    }
}

#[tokio::test]
async fn a_missing_root_key_is_said_on_engines_and_pools_until_it_is_back() {
    let _turn = TURN.lock().await;
    let scene = scene().await;
    let credential = issued(&scene, "app").await;
    let operator = &scene.stack.operators()[0];
    assert!(operator.stop());
    let mut root = scene.objects.get("Secret", NAMESPACE, ROOT).await.unwrap().unwrap();
    scene.objects.delete("Secret", NAMESPACE, ROOT).await.unwrap();
    operator.launch().unwrap();
    let missing = "False/RootKeyMissing";
    let pool = scene
        .wait_condition("EnginePool", &scene.databases, ORDERS, missing)
        .await
        .unwrap();
    assert_eq!(condition(&pool, "Stalled"), "True/RootKeyMissing");
    let engine = format!("{ORDERS}-0");
    let engine = scene
        .wait_condition("Engine", &scene.databases, &engine, missing)
        .await
        .unwrap();
    let message = engine["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains(ROOT) && message.contains("restore"), "{message}");
    assert!(key(&scene, ROOT).await.is_none(), "no other root key is made");

    let kept = json!({"name": ROOT, "namespace": NAMESPACE, "labels": root["metadata"]["labels"]});
    root["metadata"] = kept;
    scene.objects.create(&root).await.unwrap();
    operator.wait_ready().await.unwrap();
    let connected = "True/Connected";
    let pool = scene
        .wait_condition("EnginePool", &scene.databases, ORDERS, connected)
        .await
        .unwrap();
    assert_eq!(condition(&pool, "Stalled"), "", "{}", text(&pool, "/metadata/name"));
    scene.use_account(&credential.login).await.unwrap();
}
