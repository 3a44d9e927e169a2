//! All operators are killed for good: the engines take back what is past its end, sessions included, and leave the rest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::objects::text;
use e2e::postgres::Major;
use e2e::say::say;
use e2e::scene::{PATIENCE, Scene, sleep_until};
use e2e::stack::{Shape, Stack};
use jiff::Timestamp;
use serde_json::json;

/// How long past its end an account is left to the operator.
const LEFT: Duration = Duration::from_secs(30);
/// By then nobody has touched it yet.
const UNTOUCHED: Duration = Duration::from_secs(26);
/// How long it may take after [`LEFT`].
const MORE: Duration = Duration::from_secs(6);

#[tokio::test]
async fn without_operators_accounts_and_sessions_end_and_live_ones_live() {
    let shape = Shape {
        operators: 2,
        node: true,
        ..Shape::default()
    };
    let stack = Stack::start(shape).await.unwrap();
    let scene = Scene::open_alone(&stack, Major::V15, Some(2)).await.unwrap();
    let before = scene.books().await.unwrap();
    scene.ask("long", &json!({"ttl": "1h"})).await.unwrap();
    scene.ask("short", &json!({"ttl": 15})).await.unwrap();
    for name in ["long", "short"] {
        scene.wait_ready(name, "True/Issued").await.unwrap();
    }
    let long = scene.wait_credential("long").await.unwrap();
    let short = scene.wait_credential("short").await.unwrap();
    let living = scene.use_account(&long.login).await.unwrap();
    let session = scene.use_account(&short.login).await.unwrap();
    for operator in stack.operators() {
        operator.kill9();
    }
    let user = &short.login.user;
    sleep_until(short.expires_at, UNTOUCHED).await;
    assert!(scene.has_role(user).await.unwrap(), "until then it is the operator's");
    session.batch_execute("SELECT 1").await.unwrap();
    assert!(scene.log_in(&short.login).await.is_err(), "VALID UNTIL is past");
    scene.wait_no_role(user).await.unwrap();
    let took = Timestamp::now().duration_since(short.expires_at);
    say(format!("the role was gone {took:?} after its end"));
    assert!(Duration::try_from(took).unwrap() < LEFT + MORE, "it took {took:?}");
    assert!(session.batch_execute("SELECT 1").await.is_err(), "the session lives on");
    assert_eq!(scene.sessions(user).await.unwrap(), 0);
    living
        .batch_execute("SELECT item FROM public.orders")
        .await
        .expect("what is not past its end is left alone");
    scene.use_account(&long.login).await.unwrap();

    // When an operator is back, it finds the account gone and closes the books.
    for operator in stack.operators() {
        operator.restart().await.unwrap();
    }
    let absent = || async {
        let lease = scene.objects.get("CredentialLease", &scene.shop, &short.lease).await?;
        let secret = scene.credential("short").await?;
        Ok((lease.is_none() && secret.is_none()).then_some(()))
    };
    stack
        .eventually("lease and Secret are gone", PATIENCE, absent)
        .await
        .unwrap();
    let ended = scene.wait_ready("short", "True/Expired").await.unwrap();
    assert_eq!(text(&ended, "/status/history/0/why"), "Expired");
    assert_eq!(scene.credential("long").await.unwrap().unwrap().version, long.version);
    for name in ["long", "short"] {
        scene.objects.delete("DynamicSecret", &scene.shop, name).await.unwrap();
        scene.wait_absent("DynamicSecret", &scene.shop, name).await.unwrap();
    }
    assert_eq!(before.difference(&scene.books().await.unwrap()), "");
}
