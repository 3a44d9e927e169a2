//! A database is scrapped while leases are open: they wait for it, until somebody who may change the pool lets go of them.

use std::time::Duration;

use e2e::objects::{condition, text};
use e2e::postgres::Major;
use e2e::sample::ORDERS;
use e2e::scene::{Credential, PATIENCE, Scene, sleep_until};
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Nothing is let go of before it was due for a minute; by then it still waits.
const BEFORE: Duration = Duration::from_secs(55);
/// Attempts on a server that does not answer take their time.
const LET_GO: Duration = Duration::from_secs(120);

async fn scene() -> Scene<'static> {
    let stack = Stack::shared().await.unwrap();
    Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap()
}

async fn issued(scene: &Scene<'_>, name: &str, spec: &Value) -> Credential {
    scene.ask(name, spec).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    scene.wait_credential(name).await.unwrap()
}

/// Says on the pool that something may be let go of.
async fn let_go(scene: &Scene<'_>, uid: &str, why: &str) {
    let patch = json!({"metadata": {"annotations": {format!("abandon.dsv.dev/{uid}"): why}}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, ORDERS, &patch)
        .await
        .unwrap();
}

async fn lease(scene: &Scene<'_>, name: &str) -> Option<Value> {
    scene.objects.get("CredentialLease", &scene.shop, name).await.unwrap()
}

async fn wait_released(scene: &Scene<'_>, name: &str) {
    let check = || async { Ok(lease(scene, name).await.is_none().then_some(())) };
    let what = format!("lease {name} is let go of");
    scene.stack.eventually(&what, LET_GO, check).await.unwrap();
}

/// Notes of the Events of one reason about an object.
async fn events(scene: &Scene<'_>, namespace: &str, kind: &str, reason: &str) -> Vec<String> {
    let all = scene.objects.list("Event", namespace).await.unwrap();
    all.iter()
        .filter(|event| text(event, "/reason") == reason && text(event, "/regarding/kind") == kind)
        .map(|event| text(event, "/note"))
        .collect()
}

async fn counted(scene: &Scene<'_>) -> u64 {
    let metrics = scene.stack.operators()[0].metrics().await.unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("dsv_abandoned_total "));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one story")]
async fn only_a_reasoned_word_on_the_pool_lets_go_of_a_scrapped_database() {
    let scene = scene().await;
    let over = issued(&scene, "over", &json!({"ttl": 12})).await;
    let kept = issued(&scene, "kept", &json!({"ttl": 12})).await;
    let live = issued(&scene, "live", &json!({"ttl": "1h"})).await;
    let before = counted(&scene).await;
    scene.server().stop();
    for credential in [&kept, &live] {
        let why = if credential.lease == kept.lease {
            "true"
        } else {
            "scrapped for good, OPS-42"
        };
        let_go(&scene, &credential.lease_uid, why).await;
    }
    let_go(&scene, &over.lease_uid, "scrapped for good, OPS-42").await;
    sleep_until(over.expires_at, BEFORE).await;
    assert!(
        lease(&scene, &over.lease).await.is_some(),
        "a database may merely restart"
    );
    wait_released(&scene, &over.lease).await;
    assert!(scene.credential("over").await.unwrap().is_none());

    let told = events(&scene, &scene.databases, "EnginePool", "Abandoned").await;
    let said = told.iter().find(|note| note.contains(&over.lease_uid)).unwrap();
    for part in [over.login.user.as_str(), "OPS-42", "written by", "cannot be reached"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(events(&scene, &scene.shop, "DynamicSecret", "Abandoned").await.len(), 1);
    let log = scene.stack.operators()[0].log_text();
    let audit = log
        .lines()
        .filter(|line| line.contains("audit=") && line.contains(&over.lease_uid));
    assert_eq!(audit.count(), 1, "one line for one lease");
    assert!(counted(&scene).await > before, "the other stories count here as well");
    let owner = scene.seen("over").await.unwrap();
    assert_eq!(text(&owner, "/status/history/0/why"), "Abandoned");
    assert_eq!(condition(&owner, "Ready"), "False/Abandoned");

    let ignored = events(&scene, &scene.databases, "EnginePool", "InvalidSpec").await;
    assert!(ignored.iter().any(|note| note.contains(&kept.lease_uid)), "{ignored:?}");
    let waits = lease(&scene, &kept.lease)
        .await
        .expect("a word without a reason lets go of nothing");
    assert_eq!(condition(&waits, "Ready"), "False/DatabaseUnreachable");
    let valid = lease(&scene, &live.lease)
        .await
        .expect("what is not due is not let go of");
    assert!(valid["metadata"].get("deletionTimestamp").is_none());

    // The namespace goes: it waits for this database alone, and ends by the same word.
    let owners = ["over", "kept", "live"].map(|name| async { text(&scene.seen(name).await.unwrap(), "/metadata/uid") });
    let owners = futures::future::join_all(owners).await;
    scene.objects.delete("Namespace", "", &scene.shop).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(lease(&scene, &kept.lease).await.is_some());
    let_go(&scene, &kept.lease_uid, "scrapped for good, OPS-42").await;
    for owner in &owners {
        let_go(&scene, owner, "scrapped for good, OPS-42").await;
    }
    let gone = || async {
        let found = scene.objects.get("Namespace", "", &scene.shop).await?;
        Ok(found.is_none().then_some(()))
    };
    let what = "the namespace is gone";
    scene.stack.eventually(what, LET_GO * 2, gone).await.unwrap();
}

#[tokio::test]
async fn a_database_that_answers_is_asked_for_proof_whatever_the_pool_says() {
    let scene = scene().await;
    let credential = issued(&scene, "app", &json!({"ttl": 12})).await;
    let_go(&scene, &credential.lease_uid, "scrapped for good, OPS-42").await;
    scene.ended("app", &credential, Duration::from_secs(2)).await.unwrap();
    wait_released(&scene, &credential.lease).await;
    assert_eq!(
        events(&scene, &scene.databases, "EnginePool", "Abandoned").await,
        [""; 0]
    );
    assert_eq!(
        text(&scene.seen("app").await.unwrap(), "/status/history/0/why"),
        "Expired"
    );
}

#[tokio::test]
async fn a_pool_made_anew_under_its_name_speaks_for_its_predecessor() {
    let scene = scene().await;
    let credential = issued(&scene, "app", &json!({"ttl": 12})).await;
    scene.server().stop();
    // Somebody tears the pool off its books.
    let off = json!({"metadata": {"finalizers": null}});
    let pools = ("EnginePool", &*scene.databases, ORDERS);
    scene.objects.delete(pools.0, pools.1, pools.2).await.unwrap();
    let gone = || async {
        scene.objects.merge(pools.0, pools.1, pools.2, &off).await.ok();
        Ok(scene
            .objects
            .get(pools.0, pools.1, pools.2)
            .await?
            .is_none()
            .then_some(()))
    };
    scene
        .stack
        .eventually("the pool is gone", PATIENCE, gone)
        .await
        .unwrap();
    let mut pool = e2e::sample::pool(&scene.databases, None);
    let key = format!("abandon.dsv.dev/{}", credential.lease_uid);
    pool["metadata"]["annotations"] = json!({key: "scrapped for good, OPS-43"});
    scene.objects.create(&pool).await.unwrap();
    wait_released(&scene, &credential.lease).await;
}
