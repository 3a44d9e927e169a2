//! When a credential is issued again, when not, and how long the old one lives on.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::objects::{number, text};
use e2e::scene::{Credential, PATIENCE, grace};
use serde_json::json;
use tokio::time::sleep;

use crate::modes::{NOTICE, nothing_follows, scene};

#[tokio::test]
async fn rotate_keeps_a_working_credential_in_the_secret_and_the_old_one_for_the_overlap() {
    let scene = scene().await;
    let spec = json!({"ttl": 14, "issuance": {"mode": "Rotate", "renewBefore": "6s", "overlap": "5s"}});
    scene.ask("app", &spec).await.unwrap();
    let mut held = scene.wait_credential("app").await.unwrap();
    assert_eq!(held.serial, 1);
    let mut replaced: Vec<(Credential, Instant)> = Vec::new();
    while held.serial < 4 {
        let now = scene
            .credential("app")
            .await
            .unwrap()
            .expect("the Secret is always there");
        scene
            .use_account(&now.login)
            .await
            .expect("what the Secret holds works");
        if now.serial != held.serial {
            assert_eq!(now.serial, held.serial + 1, "serials grow one by one");
            assert_ne!(now.login, held.login);
            replaced.push((held, Instant::now()));
            held = now;
        }
        if let Some((old, since)) = replaced.last() {
            // A look at a busy machine takes long, and comes late.
            if since.elapsed() < Duration::from_secs(2) {
                scene
                    .use_account(&old.login)
                    .await
                    .expect("the replaced account works during the overlap");
            } else if since.elapsed() > Duration::from_secs(5) + grace() {
                assert!(
                    !scene.has_role(&old.login.user).await.unwrap(),
                    "the replaced account outlived the overlap"
                );
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    for (old, _) in replaced {
        scene.wait_no_role(&old.login.user).await.unwrap();
    }
    // The Secret is written first, and what was replaced ends later.
    let told = || async {
        let status = scene.seen("app").await?["status"].clone();
        let (why, serial) = (text(&status, "/history/0/why"), number(&status, "/deliveredSerial"));
        ensure!(why == "Rotated" && serial >= 4, "{status}");
        Ok(Some(()))
    };
    scene
        .stack
        .eventually("the status tells of the rotation", PATIENCE, told)
        .await
        .unwrap();
}

#[tokio::test]
async fn suspend_stops_issuing_and_never_revoking() {
    let scene = scene().await;
    let spec = json!({"ttl": 12, "suspend": true, "issuance": {"mode": "Rotate", "renewBefore": 6, "overlap": 2}});
    scene.ask("app", &spec).await.unwrap();
    scene.wait_ready("app", "False/Suspended").await.unwrap();
    nothing_follows(&scene, "app", 0).await;
    scene.change("app", &json!({"suspend": false})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene.change("app", &json!({"suspend": true})).await.unwrap();
    scene.use_account(&first.login).await.expect("what was issued stays");
    scene.ended("app", &first, grace()).await.unwrap();
    scene.wait_ready("app", "False/Suspended").await.unwrap();
    scene.change("app", &json!({"suspend": null})).await.unwrap();
    let second = scene.wait_serial("app", 2).await.unwrap();
    assert_eq!(second.serial, 2);
    scene.use_account(&second.login).await.unwrap();
}

#[tokio::test]
async fn each_value_of_rotate_at_gives_exactly_one_credential() {
    let scene = scene().await;
    scene.ask("app", &json!({"ttl": 12})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene.rotate("app", "one").await.unwrap();
    let second = scene.wait_serial("app", 2).await.unwrap();
    scene.use_account(&second.login).await.unwrap();
    scene.wait_no_role(&first.login.user).await.unwrap();
    scene.rotate("app", "one").await.unwrap();
    nothing_follows(&scene, "app", 2).await;
    scene.ended("app", &second, grace()).await.unwrap();
    scene.wait_ready("app", "True/Expired").await.unwrap();
    nothing_follows(&scene, "app", 0).await;
    // After the end as well, and without the annotation nothing.
    scene.rotate("app", "two").await.unwrap();
    let third = scene.wait_serial("app", 3).await.unwrap();
    scene.use_account(&third.login).await.unwrap();
    let patch = json!({"metadata": {"annotations": {"dsv.dev/rotate-at": null}}});
    scene
        .objects
        .merge("DynamicSecret", &scene.shop, "app", &patch)
        .await
        .unwrap();
    nothing_follows(&scene, "app", 3).await;
    assert_eq!(third.serial, 3);
}

#[tokio::test]
async fn asking_while_a_credential_is_on_its_way_is_not_forgotten() {
    let scene = scene().await;
    scene.ask("app", &json!({"ttl": 30})).await.unwrap();
    for serial in 1..=3 {
        // At the moment in which the Secret is there, the status does not say so yet.
        let until = Instant::now() + PATIENCE;
        while scene
            .credential("app")
            .await
            .unwrap()
            .is_none_or(|now| now.serial < serial)
        {
            assert!(Instant::now() < until, "serial {serial} was never issued");
            sleep(Duration::from_millis(1)).await;
        }
        scene.rotate("app", &format!("after {serial}")).await.unwrap();
    }
    assert_eq!(scene.wait_serial("app", 4).await.unwrap().serial, 4);
    nothing_follows(&scene, "app", 4).await;
}

#[tokio::test]
async fn with_let_expire_a_deleted_dynamic_secret_waits_for_the_end_of_its_accounts() {
    let scene = scene().await;
    scene
        .ask("app", &json!({"ttl": 12, "deletionPolicy": "LetExpire"}))
        .await
        .unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    scene.objects.delete("DynamicSecret", &scene.shop, "app").await.unwrap();
    sleep(NOTICE).await;
    scene.use_account(&credential.login).await.expect("it lives to its end");
    assert!(scene.credential("app").await.unwrap().is_some());
    assert!(!scene.seen("app").await.unwrap().is_null());
    scene.ended("app", &credential, grace()).await.unwrap();
    scene.wait_absent("DynamicSecret", &scene.shop, "app").await.unwrap();
}
