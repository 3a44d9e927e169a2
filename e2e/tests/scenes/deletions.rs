//! Things are deleted or taken back while accounts live that depend on them. No account is forgotten, and nothing hangs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use dsv::api::names::managed_engine;
use e2e::install::NAMESPACE;
use e2e::objects::text;
use e2e::postgres::{Major, random_password};
use e2e::sample::{BASE_SECRET, ISSUER, ORDERS};
use e2e::scene::{Credential, PATIENCE, Scene, grace};
use e2e::stack::Stack;
use jiff::SignedDuration;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Without waiting for a session to look after itself, which it does every few minutes.
const AT_ONCE: Duration = Duration::from_secs(20);
/// Long enough for the operator to notice whatever it is going to notice.
const NOTICE: Duration = Duration::from_secs(3);

async fn scene() -> Scene<'static> {
    Scene::open(Stack::shared().await.unwrap(), Some(1)).await.unwrap()
}

/// A credential that is issued and reported.
async fn issued(scene: &Scene<'_>, name: &str, spec: &Value) -> Credential {
    scene.ask(name, spec).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    let credential = scene.wait_credential(name).await.unwrap();
    scene.use_account(&credential.login).await.unwrap();
    credential
}

async fn delete(scene: &Scene<'_>, name: &str) {
    scene.objects.delete("DynamicSecret", &scene.shop, name).await.unwrap();
    scene.wait_absent("DynamicSecret", &scene.shop, name).await.unwrap();
}

#[tokio::test]
async fn a_deleted_lease_ends_its_account_at_once_and_only_rotate_makes_another() {
    let scene = scene().await;
    let once = issued(&scene, "once", &json!({"ttl": 20})).await;
    let rotate = issued(&scene, "rotate", &json!({"ttl": 20, "issuance": {"mode": "Rotate"}})).await;
    for credential in [&once, &rotate] {
        scene
            .objects
            .delete("CredentialLease", &scene.shop, &credential.lease)
            .await
            .unwrap();
    }
    for credential in [&once, &rotate] {
        scene.role_goes(&credential.login.user, grace()).await.unwrap();
    }
    let next = scene.wait_serial("rotate", 2).await.unwrap();
    scene.use_account(&next.login).await.unwrap();
    sleep(NOTICE).await;
    assert!(scene.credential("once").await.unwrap().is_none());
    assert_eq!(scene.accounts("once").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_lease_cannot_be_torn_off_the_books() {
    let scene = scene().await;
    let credential = issued(&scene, "app", &json!({"ttl": 15})).await;
    let off = json!({"metadata": {"finalizers": null}});
    scene
        .objects
        .merge("CredentialLease", &scene.shop, &credential.lease, &off)
        .await
        .unwrap();
    let find = || async {
        let lease = scene
            .objects
            .get("CredentialLease", &scene.shop, &credential.lease)
            .await?;
        Ok(lease.filter(|lease| text(lease, "/metadata/finalizers/0") == "dsv.dev/revoke"))
    };
    scene
        .stack
        .eventually("the finalizer is back", NOTICE, find)
        .await
        .unwrap();
    scene
        .objects
        .delete("CredentialLease", &scene.shop, &credential.lease)
        .await
        .unwrap();
    scene.wait_no_role(&credential.login.user).await.unwrap();
}

/// With no engine there the account cannot go: whoever looks must not read that all is well.
#[tokio::test]
async fn what_is_deleted_says_so_at_once_and_is_tried_again_with_growing_pauses() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let engine = stack.engine(&scene.databases, ORDERS, "one").await.unwrap();
    scene.wait_connected(1).await.unwrap();
    // The proof that an account cannot come back is due a minute after the claim, or at the end of the ttl.
    let credential = issued(&scene, "app", &json!({"ttl": 30})).await;
    engine.kill9();
    scene.objects.delete("DynamicSecret", &scene.shop, "app").await.unwrap();
    let seen = scene.wait_ready("app", "False/Deleting").await.unwrap();
    let time = |pointer: &str| text(&seen, pointer).parse::<jiff::Timestamp>().unwrap();
    let said = time("/status/conditions/0/lastTransitionTime");
    let late = said.duration_since(time("/metadata/deletionTimestamp"));
    assert!(late <= SignedDuration::from_secs(2), "it was said {late} later");
    let attempts = attempts(&scene, &credential.lease).await;
    for (number, pair) in attempts.windows(2).enumerate() {
        let (pause, least) = (pair[1].duration_since(pair[0]), SignedDuration::from_secs(1 << number));
        assert!(
            pause >= least,
            "attempt {} came {pause} after the one before: {attempts:?}",
            number + 2
        );
    }
    engine.restart().await.unwrap();
    scene.wait_no_role(&credential.login.user).await.unwrap();
    scene.wait_absent("DynamicSecret", &scene.shop, "app").await.unwrap();
}

/// When the operator told that the lease could not be taken back, by its own clock; three times.
async fn attempts(scene: &Scene<'_>, lease: &str) -> Vec<jiff::Timestamp> {
    let told = || async {
        let log = scene.stack.operators()[0].log_text();
        let lines = log
            .lines()
            .filter(|line| line.contains("lease waits") && line.contains(lease));
        let times = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
        let times: Vec<jiff::Timestamp> = times.collect();
        Ok((times.len() >= 3).then_some(times))
    };
    scene.stack.eventually("three attempts", PATIENCE, told).await.unwrap()
}

#[tokio::test]
async fn an_account_of_a_pool_that_was_made_anew_is_taken_back() {
    let scene = scene().await;
    let credential = issued(&scene, "app", &json!({"ttl": 30})).await;
    let pool = pool(&scene).await;
    // As after a restore: the same pool under another UID. Nobody lets go of it the regular way while accounts live.
    scene
        .objects
        .delete("EnginePool", &scene.databases, ORDERS)
        .await
        .unwrap();
    let off = json!({"metadata": {"finalizers": null}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, ORDERS, &off)
        .await
        .unwrap();
    make_anew(&scene, &pool).await;
    scene
        .objects
        .delete("CredentialLease", &scene.shop, &credential.lease)
        .await
        .unwrap();
    scene.wait_no_role(&credential.login.user).await.unwrap();
    scene
        .wait_absent("CredentialLease", &scene.shop, &credential.lease)
        .await
        .unwrap();
}

#[tokio::test]
async fn engines_elsewhere_serve_a_pool_that_was_made_anew_at_once() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let _engine = stack.engine(&scene.databases, ORDERS, "dc-west-1").await.unwrap();
    scene.wait_connected(1).await.unwrap();
    let pool = pool(&scene).await;
    scene
        .objects
        .delete("EnginePool", &scene.databases, ORDERS)
        .await
        .unwrap();
    make_anew(&scene, &pool).await;
    let back = Instant::now();
    scene.wait_connected(1).await.unwrap();
    assert!(back.elapsed() < AT_ONCE, "it took {:?}", back.elapsed());
    issued(&scene, "app", &json!({"ttl": 30})).await;
}

async fn pool(scene: &Scene<'_>) -> Value {
    let found = scene.objects.get("EnginePool", &scene.databases, ORDERS).await;
    found.unwrap().expect("the pool is there")
}

/// Waits until the pool is gone and creates another one like it.
async fn make_anew(scene: &Scene<'_>, pool: &Value) {
    scene.wait_absent("EnginePool", &scene.databases, ORDERS).await.unwrap();
    let anew = json!({
        "apiVersion": pool["apiVersion"], "kind": "EnginePool", "spec": pool["spec"],
        "metadata": {"name": ORDERS, "namespace": &*scene.databases},
    });
    scene.objects.create(&anew).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_goes_does_not_wait_for_what_was_let_expire_before() {
    let scene = scene().await;
    let credential = issued(&scene, "app", &json!({"ttl": 30, "deletionPolicy": "LetExpire"})).await;
    scene.objects.delete("DynamicSecret", &scene.shop, "app").await.unwrap();
    scene.wait_ready("app", "False/Deleting").await.unwrap();
    scene.use_account(&credential.login).await.expect("it lives to its end");
    scene.objects.delete("Namespace", "", &scene.shop).await.unwrap();
    scene.wait_no_role(&credential.login.user).await.unwrap();
    assert!(
        jiff::Timestamp::now() < credential.expires_at,
        "nothing waits for a ttl here"
    );
    scene.wait_absent("DynamicSecret", &scene.shop, "app").await.unwrap();
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_accounts_along_and_does_not_hang() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap();
    let before = scene.books().await.unwrap();
    let once = issued(&scene, "once", &json!({"ttl": 20, "deletionPolicy": "LetExpire"})).await;
    let rotate = issued(&scene, "rotate", &json!({"ttl": 20, "issuance": {"mode": "Rotate"}})).await;
    scene.objects.delete("Namespace", "", &scene.shop).await.unwrap();
    for credential in [&once, &rotate] {
        scene.wait_no_role(&credential.login.user).await.unwrap();
        assert!(
            jiff::Timestamp::now() < credential.expires_at,
            "nothing waits for a ttl here"
        );
    }
    scene.wait_absent("Namespace", "", &scene.shop).await.unwrap();
    assert_eq!(before.difference(&scene.books().await.unwrap()), "");
}

#[tokio::test]
async fn a_deleted_pool_waits_for_its_accounts_and_issues_no_more() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap();
    let before = scene.books().await.unwrap();
    let live = issued(&scene, "live", &json!({"ttl": 12})).await;
    scene
        .objects
        .delete("EnginePool", &scene.databases, ORDERS)
        .await
        .unwrap();
    scene.ask("late", &json!({})).await.unwrap();
    scene.wait_ready("late", "False/PoolDeleting").await.unwrap();
    scene.use_account(&live.login).await.expect("it lives to its end");
    scene.ended("live", &live, grace()).await.unwrap();
    scene.wait_absent("EnginePool", &scene.databases, ORDERS).await.unwrap();
    // Whether a pool of another namespace exists is told to nobody.
    scene.wait_ready("late", "False/AccessDenied").await.unwrap();
    delete(&scene, "late").await;
    delete(&scene, "live").await;
    assert_eq!(
        before.difference(&scene.books().await.unwrap()),
        "",
        "something of ours stayed"
    );
}

#[tokio::test]
async fn a_deleted_namespace_of_a_pool_ends_the_accounts_of_others_and_does_not_hang() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap();
    let before = scene.books().await.unwrap();
    let live = issued(&scene, "live", &json!({"ttl": 15})).await;
    scene.objects.delete("Namespace", "", &scene.databases).await.unwrap();
    scene.wait_no_role(&live.login.user).await.unwrap();
    assert!(scene.credential("live").await.unwrap().is_none());
    scene.wait_absent("Namespace", "", &scene.databases).await.unwrap();
    delete(&scene, "live").await;
    assert_eq!(
        before.difference(&scene.books().await.unwrap()),
        "",
        "something of ours stayed"
    );
}

#[tokio::test]
async fn a_pool_whose_engines_were_deleted_just_before_it_gets_one_to_drop_its_group_roles() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap();
    let before = scene.books().await.unwrap();
    let over = issued(&scene, "over", &json!({})).await;
    scene.ended("over", &over, grace()).await.unwrap();
    scene.wait_ready("over", "True/Expired").await.unwrap();
    let engine = format!("{ORDERS}-0");
    let found = scene.objects.get("Engine", &scene.databases, &engine).await.unwrap();
    let deployment = managed_engine(&text(&found.unwrap(), "/metadata/uid")).unwrap();
    // Nobody makes the managed engine again before the pool is deleted too.
    stack.operators()[0].signal(Signal::SIGSTOP).unwrap();
    let deleted = async {
        scene.objects.delete("Engine", &scene.databases, &engine).await?;
        let off = json!({"metadata": {"finalizers": null}});
        scene.objects.merge("Engine", &scene.databases, &engine, &off).await?;
        scene.objects.delete("Deployment", NAMESPACE, &deployment).await?;
        scene.objects.delete("EnginePool", &scene.databases, ORDERS).await
    };
    let deleted = deleted.await;
    stack.operators()[0].signal(Signal::SIGCONT).unwrap();
    deleted.unwrap();
    scene.wait_absent("EnginePool", &scene.databases, ORDERS).await.unwrap();
    delete(&scene, "over").await;
    assert_eq!(
        before.difference(&scene.books().await.unwrap()),
        "",
        "something of ours stayed"
    );
}

#[tokio::test]
async fn a_mistyped_second_base_secret_of_a_login_keeps_no_account_alive() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap();
    let live = issued(&scene, "live", &json!({"ttl": 30})).await;
    let mut mistyped = scene.base_secret("mistyped");
    mistyped["stringData"]["password"] = json!(random_password());
    scene.objects.create(&mistyped).await.unwrap();
    let refused = || async {
        let pool = scene.objects.get("EnginePool", &scene.databases, ORDERS).await?;
        let servers = text(&pool.unwrap_or_default()["status"]["servers"][0], "/reason");
        ensure!(servers == "LoginRefused", "it is {servers:?}");
        Ok(Some(()))
    };
    let what = "the mistyped base secret is told";
    scene.stack.eventually(what, PATIENCE, refused).await.unwrap();
    scene.ended("live", &live, grace()).await.unwrap();
}

#[tokio::test]
async fn without_the_base_secret_accounts_end_on_time_and_none_is_issued() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap();
    let before = scene.books().await.unwrap();
    let live = issued(&scene, "live", &json!({})).await;
    scene
        .objects
        .delete("Secret", &scene.databases, BASE_SECRET)
        .await
        .unwrap();
    scene.ask("late", &json!({})).await.unwrap();
    scene.wait_ready("late", "False/BaseSecretMissing").await.unwrap();
    scene.use_account(&live.login).await.expect("it lives to its end");
    scene.ended("live", &live, grace()).await.unwrap();
    delete(&scene, "live").await;
    assert_eq!(
        before.difference(&scene.books().await.unwrap()),
        "",
        "something of ours stayed"
    );
    // As soon as it is back, what waited goes on.
    scene.objects.create(&scene.base_secret(BASE_SECRET)).await.unwrap();
    scene
        .use_account(&scene.wait_credential("late").await.unwrap().login)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_changed_administrative_password_reaches_revocations_and_changes_no_account() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V15, Some(1)).await.unwrap();
    let live = issued(&scene, "live", &json!({"ttl": 12})).await;
    let password = random_password();
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let administrator = scene.administrator();
    administrator
        .batch_execute(&format!("ALTER ROLE {ISSUER} PASSWORD '{verifier}'"))
        .await
        .unwrap();
    let patch = json!({"stringData": {"password": password}});
    scene
        .objects
        .merge("Secret", &scene.databases, BASE_SECRET, &patch)
        .await
        .unwrap();
    // Whoever still had a session with the old password has to log in anew.
    let sessions = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ISSUER}'");
    administrator.batch_execute(&sessions).await.unwrap();
    sleep(NOTICE).await;
    assert_eq!(
        scene.credential("live").await.unwrap().unwrap().version,
        live.version,
        "it is no other target"
    );
    scene.ended("live", &live, grace()).await.unwrap();
    issued(&scene, "late", &json!({})).await;
}

#[tokio::test]
async fn after_consent_is_withdrawn_live_accounts_end_at_their_ttl_and_none_follows() {
    let scene = scene().await;
    let spec = json!({"ttl": 14, "issuance": {"mode": "Rotate", "renewBefore": 6, "overlap": 2}});
    let live = issued(&scene, "live", &spec).await;
    let access = |entries: Value| json!({"spec": {"access": entries}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, ORDERS, &access(json!([])))
        .await
        .unwrap();
    scene.ask("late", &json!({})).await.unwrap();
    scene.wait_ready("late", "False/AccessDenied").await.unwrap();
    scene.use_account(&live.login).await.expect("it lives to its end");
    scene.ended("live", &live, grace()).await.unwrap();
    assert_eq!(
        scene.all_accounts().await.unwrap(),
        [""; 0],
        "consent is asked for each credential anew"
    );
    assert!(scene.credential("live").await.unwrap().is_none());
    scene.wait_ready("live", "False/AccessDenied").await.unwrap();
    let back = access(json!([scene.access()]));
    scene
        .objects
        .merge("EnginePool", &scene.databases, ORDERS, &back)
        .await
        .unwrap();
    scene.wait_credential("late").await.unwrap();
    scene.wait_credential("live").await.unwrap();
}
