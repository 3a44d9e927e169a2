//! The books lost something, or the database got something back; and the records of servers.

use crate::world::{
    EVERY, ROUND, forge, installation, record_of, recorded_history, rotating, scene, signing_key, sql, tear,
    wait_audited,
};
use dsv::keys::SigningKey;
use e2e::install::NAMESPACE;
use e2e::scene::PATIENCE;
use serde_json::json;
use tokio::time::sleep;

/// The books are cut by hand: the lease is gone with its finalizer. What we saw go is revoked at once.
#[tokio::test]
async fn an_account_whose_lease_was_torn_from_the_books_is_revoked() {
    let scene = scene().await;
    let spec = json!({"ttl": "10m"});
    scene.ask("app", &spec).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene.wait_ready("app", "True/Issued").await.unwrap();
    let session = scene.use_account(&first.login).await.unwrap();
    tear(&scene, &first.lease).await;
    scene.wait_no_role(&first.login.user).await.unwrap();
    scene.session_dies(&session, PATIENCE).await.unwrap();
    // Counted when the engine has answered, which is after the role is gone.
    let counted = || async {
        let metrics = scene.stack.operators()[0].metrics().await?;
        let none = "dsv_audit_actions_total{action=\"revoke\"} 0";
        Ok((!metrics.lines().any(|line| line == none)).then_some(()))
    };
    scene
        .stack
        .eventually("the revocation is counted", PATIENCE, counted)
        .await
        .unwrap();
}

/// Accounts of which nobody knows anything (books restored from a backup) are told, left to their end, then revoked; roles
/// of another installation, copies and plain strangers are never touched.
#[tokio::test]
async fn unknown_accounts_live_to_their_end_and_foreign_roles_stay() {
    let scene = scene().await;
    rotating(&scene, "app").await;
    let key = signing_key(&scene).await;
    let genuine = installation(&scene).await;
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(50);
    let lost = forge(&scene, &key, &genuine, until).await;
    let past = forge(&scene, &key, &genuine, jiff::Timestamp::now()).await;
    let neighbour = forge(&scene, &key, "another-installation", jiff::Timestamp::now()).await;
    let stranger = forge(
        &scene,
        &SigningKey::generate().unwrap(),
        &genuine,
        jiff::Timestamp::now(),
    )
    .await;
    sql(
        &scene,
        "CREATE ROLE plain LOGIN; COMMENT ON ROLE plain IS 'dsv/1 kind=lease'",
    )
    .await;
    let message = wait_audited(&scene, "False/ForeignRole").await;
    assert!(message.contains(&lost) && message.contains(&stranger), "{message}");
    assert!(!message.contains(&neighbour), "{message}");
    scene.wait_no_role(&past).await.unwrap();
    assert!(scene.has_role(&lost).await.unwrap(), "its end is ahead");
    scene.wait_no_role(&lost).await.unwrap();
    assert!(jiff::Timestamp::now() >= until, "{lost} went before its end");
    sleep(EVERY * 3).await;
    for role in [&neighbour, &stranger, "plain"] {
        assert!(scene.has_role(role).await.unwrap(), "{role} was touched");
    }
}

/// A failover brings accounts back that were dropped: after a change of the timeline nothing unknown is left to its end.
#[tokio::test]
async fn after_a_failover_accounts_that_came_back_are_revoked() {
    let scene = scene().await;
    rotating(&scene, "app").await;
    wait_audited(&scene, "True/Consistent").await;
    let (key, genuine) = (signing_key(&scene).await, installation(&scene).await);
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10);
    let back = forge(&scene, &key, &genuine, until).await;
    let message = wait_audited(&scene, "False/UnknownAccount").await;
    assert!(message.contains(&back), "{message}");
    let before = recorded_history(&scene).await;
    assert!(before.ends_with("/1"), "{before}");
    scene.server().restart_on_a_new_timeline().await.unwrap();
    let root = scene.server().connect("postgres").await.unwrap();
    let gone = || async {
        let found = root
            .query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&back])
            .await?;
        Ok(found.is_empty().then_some(()))
    };
    let what = "the account that came back is revoked";
    scene.stack.eventually(what, PATIENCE, gone).await.unwrap();
    let noted = || async { Ok((recorded_history(&scene).await == before.replace("/1", "/2")).then_some(())) };
    let what = "the new timeline is on the record";
    scene.stack.eventually(what, PATIENCE, noted).await.unwrap();
    let credential = scene.credential("app").await.unwrap().unwrap();
    assert_eq!(credential.serial, 1, "what was in order stays");
    scene.use_account(&credential.login).await.unwrap();
}

/// A server record goes after the last use of its server, and comes back for the next lease.
#[tokio::test]
async fn a_server_record_lives_as_long_as_it_is_needed() {
    let scene = scene().await;
    scene.ask("app", &json!({})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    let record = record_of(&scene, &first).await;
    scene.wait_ready("app", "True/Expired").await.unwrap();
    sleep(EVERY * 4).await;
    let kept = scene.objects.get("Secret", NAMESPACE, &record).await.unwrap();
    assert!(kept.is_some(), "the dynamic secret's group role is still there");
    scene
        .stack
        .kubectl(&["-n", &scene.shop, "delete", "dynamicsecret", "app", "--wait=false"])
        .unwrap();
    scene.wait_absent("DynamicSecret", &scene.shop, "app").await.unwrap();
    scene.wait_absent("Secret", NAMESPACE, &record).await.unwrap();
    scene.ask("next", &json!({})).await.unwrap();
    let next = scene.wait_credential("next").await.unwrap();
    scene.use_account(&next.login).await.unwrap();
    let again = scene.objects.get("Secret", NAMESPACE, &record).await.unwrap();
    assert!(again.is_some(), "the same login has the same record");
    // Even one that is deleted under a live lease comes back for the revocation.
    scene
        .stack
        .kubectl(&["-n", NAMESPACE, "delete", "secret", &record])
        .unwrap();
    scene.ended("next", &next, ROUND).await.unwrap();
}

/// Whoever deletes pool and base secret together leaves no login of theirs with the operator.
#[tokio::test]
async fn a_server_record_goes_with_the_last_pool_that_reached_it() {
    let scene = scene().await;
    scene.ask("app", &json!({})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let record = record_of(&scene, &credential).await;
    let (shop, databases): (&str, &str) = (&scene.shop, &scene.databases);
    let delete = ["delete", "namespace", shop, databases, "--wait=false"];
    scene.stack.kubectl(&delete).unwrap();
    scene.wait_absent("EnginePool", databases, "orders").await.unwrap();
    scene.wait_absent("Secret", NAMESPACE, &record).await.unwrap();
}
