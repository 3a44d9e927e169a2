//! What waits for a person.

use crate::world::{EVERY, record_of, recorded_history, rotating, scene, sql, wait_audited};
use e2e::install::NAMESPACE;
use serde_json::json;
use tokio::time::sleep;

/// More than a few at once wait for a person, and go when the person says so.
#[tokio::test]
async fn much_at_once_waits_for_the_annotation() {
    let scene = scene().await;
    let names = ["one", "two", "three", "four", "five"];
    let mut users = Vec::new();
    for name in names {
        users.push(rotating(&scene, name).await.login.user);
    }
    let drop: Vec<String> = users.iter().map(|user| format!("DROP ROLE \"{user}\";")).collect();
    sql(&scene, &drop.concat()).await;
    let message = wait_audited(&scene, "False/ConfirmationNeeded").await;
    assert!(message.contains("5 of 5 accounts"), "{message}");
    sleep(EVERY * 4).await;
    for (name, user) in names.iter().zip(&users) {
        let now = scene.credential(name).await.unwrap().unwrap();
        assert_eq!((now.serial, &now.login.user), (1, user), "it was not waited for");
    }
    let (_, value) = message.split_once("dsv.dev/confirm-revocation=").unwrap();
    let value: String = value.chars().take_while(char::is_ascii_alphanumeric).collect();
    let annotate = |value: &str| json!({"metadata": {"annotations": {"dsv.dev/confirm-revocation": value}}});
    let wrong = annotate("yes");
    scene
        .objects
        .merge("EnginePool", &scene.databases, "orders", &wrong)
        .await
        .unwrap();
    sleep(EVERY * 3).await;
    assert_eq!(scene.credential("one").await.unwrap().unwrap().serial, 1);
    let right = annotate(&value);
    scene
        .objects
        .merge("EnginePool", &scene.databases, "orders", &right)
        .await
        .unwrap();
    for name in names {
        let next = scene.wait_serial(name, 2).await.unwrap();
        scene.use_account(&next.login).await.unwrap();
    }
    wait_audited(&scene, "True/Consistent").await;
}

/// Where a base secret suddenly leads to another server, nothing is ended without being asked.
#[tokio::test]
async fn another_server_behind_the_same_name_waits_for_a_person() {
    let scene = scene().await;
    let credential = rotating(&scene, "app").await;
    wait_audited(&scene, "True/Consistent").await;
    let history = recorded_history(&scene).await;
    let (_, timeline) = history.split_once('/').unwrap();
    let elsewhere =
        json!({"metadata": {"annotations": {"dsv.dev/history": format!("7000000000000000000/{timeline}")}}});
    let record = record_of(&scene, &credential).await;
    scene
        .objects
        .merge("Secret", NAMESPACE, &record, &elsewhere)
        .await
        .unwrap();
    sql(&scene, &format!("DROP ROLE \"{}\"", credential.login.user)).await;
    let message = wait_audited(&scene, "False/ConfirmationNeeded").await;
    assert!(message.contains("1 of 1 accounts"), "{message}");
    sleep(EVERY * 3).await;
    assert_eq!(scene.credential("app").await.unwrap().unwrap().serial, 1);
}
