//! Mode OnDemand: leases that somebody asks for, and how many there may be.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::objects::{condition, text};
use e2e::postgres::{Login, random_password};
use e2e::scene::{PATIENCE, Scene, grace, sleep_until};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::modes::scene;

/// A password and the verifier that a person would hand in for it.
fn verifier() -> (String, String) {
    let password = random_password();
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    (password, verifier)
}

async fn wait_lease(scene: &Scene<'_>, name: &str, phase: &str) -> Value {
    let check = || async {
        let lease = scene.objects.get("CredentialLease", &scene.shop, name).await?;
        Ok(lease.filter(|lease| text(lease, "/status/phase") == phase))
    };
    let what = format!("the lease {name} is {phase}");
    scene.stack.eventually(&what, PATIENCE, check).await.unwrap()
}

#[tokio::test]
async fn on_demand_gives_an_account_for_a_password_that_only_the_asker_knows() {
    let scene = scene().await;
    scene
        .ask("app", &json!({"ttl": "1m", "issuance": {"mode": "OnDemand"}}))
        .await
        .unwrap();
    scene.wait_ready("app", "True/OnDemand").await.unwrap();
    let (password, verifier) = verifier();
    let plain = scene
        .lease("app", "plain", &json!({"verifier": password}))
        .await
        .unwrap_err();
    assert!(
        format!("{plain:#}").contains("verifier must be SCRAM-SHA-256"),
        "{plain:#}"
    );

    scene
        .lease("app", "mine", &json!({"verifier": verifier, "ttl": 12}))
        .await
        .unwrap();
    let lease = wait_lease(&scene, "mine", "Issued").await;
    let login = Login {
        user: text(&lease, "/status/username"),
        password,
    };
    let session = scene.use_account(&login).await.unwrap();
    let end: jiff::Timestamp = text(&lease, "/status/expiresAt").parse().unwrap();
    let left = end.duration_since(jiff::Timestamp::now()).as_secs();
    assert!(
        (8..=13).contains(&left),
        "the lease's own ttl counts, but {left} s are left"
    );
    assert!(
        scene.objects.list("Secret", &scene.shop).await.unwrap().is_empty(),
        "nobody asked for a Secret"
    );

    sleep_until(end, Duration::ZERO).await;
    scene.role_goes(&login.user, grace()).await.unwrap();
    scene.session_dies(&session, grace()).await.unwrap();
    scene.wait_absent("CredentialLease", &scene.shop, "mine").await.unwrap();
}

#[tokio::test]
async fn a_lease_that_asks_for_a_secret_gets_one_and_takes_it_along_when_deleted() {
    let scene = scene().await;
    scene
        .ask("app", &json!({"ttl": 20, "issuance": {"mode": "OnDemand"}}))
        .await
        .unwrap();
    scene
        .lease("app", "mine", &json!({"target": {"name": "given"}}))
        .await
        .unwrap();
    scene
        .lease("app", "other", &json!({"target": {"name": "other"}}))
        .await
        .unwrap();
    let lease = wait_lease(&scene, "mine", "Issued").await;
    wait_lease(&scene, "other", "Issued").await;
    let find = || async { scene.credential("given").await };
    let given = scene
        .stack
        .eventually("the Secret is there", PATIENCE, find)
        .await
        .unwrap();
    let other = scene.credential("other").await.unwrap().unwrap();
    assert_eq!(given.login.user, text(&lease, "/status/username"));
    assert_ne!(given.login, other.login);
    scene.use_account(&given.login).await.unwrap();

    scene
        .objects
        .delete("CredentialLease", &scene.shop, "mine")
        .await
        .unwrap();
    scene.role_goes(&given.login.user, grace()).await.unwrap();
    assert!(scene.credential("given").await.unwrap().is_none());
    scene
        .use_account(&other.login)
        .await
        .expect("the other lease is not touched");
}

#[tokio::test]
async fn a_lease_is_refused_where_nobody_offers_one() {
    let scene = scene().await;
    scene.ask("once", &json!({"suspend": true})).await.unwrap();
    scene
        .lease("once", "a", &json!({"verifier": verifier().1}))
        .await
        .unwrap();
    scene
        .lease("absent", "b", &json!({"verifier": verifier().1}))
        .await
        .unwrap();
    for (name, reason) in [("a", "False/NotOnDemand"), ("b", "False/DynamicSecretMissing")] {
        let lease = wait_lease(&scene, name, "Refused").await;
        assert_eq!(condition(&lease, "Ready"), reason);
        scene
            .objects
            .delete("CredentialLease", &scene.shop, name)
            .await
            .unwrap();
        scene.wait_absent("CredentialLease", &scene.shop, name).await.unwrap();
    }
    assert_eq!(scene.accounts("once").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn no_more_leases_are_open_than_the_dynamic_secret_admits() {
    let scene = scene().await;
    let spec = json!({"ttl": 30, "maxLeases": 2, "issuance": {"mode": "OnDemand"}});
    scene.ask("app", &spec).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        scene
            .lease("app", name, &json!({"verifier": verifier().1, "ttl": 25}))
            .await
            .unwrap();
    }
    let settled = || async {
        let leases = scene.leases().await?;
        let phases: Vec<String> = leases.iter().map(|lease| text(lease, "/status/phase")).collect();
        let count = |phase: &str| phases.iter().filter(|have| *have == phase).count();
        assert!(count("Issued") <= 2, "{phases:?}");
        ensure!((count("Issued"), count("Pending")) == (2, 2), "{phases:?}");
        Ok(Some(leases))
    };
    let what = "two are issued and two wait";
    let leases = scene.stack.eventually(what, PATIENCE, settled).await.unwrap();
    assert_eq!(scene.accounts("app").await.unwrap().len(), 2);
    let waits = leases
        .iter()
        .find(|lease| text(lease, "/status/phase") == "Pending")
        .unwrap();
    assert_eq!(condition(waits, "Ready"), "False/TooManyLeases");
    // When one ends, the next goes on by itself, and never are there three.
    let until = Instant::now() + PATIENCE;
    while !text(
        &scene
            .objects
            .get("CredentialLease", &scene.shop, &text(waits, "/metadata/name"))
            .await
            .unwrap()
            .unwrap_or_default(),
        "/status/phase",
    )
    .starts_with("Issued")
    {
        assert!(Instant::now() < until, "the lease that waited was never issued");
        assert!(scene.accounts("app").await.unwrap().len() <= 2);
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn no_more_leases_are_open_than_the_pool_admits_for_a_namespace() {
    let scene = scene().await;
    let pool = scene
        .objects
        .get("EnginePool", &scene.databases, "orders")
        .await
        .unwrap()
        .unwrap();
    let mut access = pool["spec"]["access"].clone();
    access[0]["maxLeases"] = json!(1);
    let patch = json!({"spec": {"access": access}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, "orders", &patch)
        .await
        .unwrap();
    scene.ask("first", &json!({"ttl": 10})).await.unwrap();
    let first = scene.wait_credential("first").await.unwrap();
    scene.ask("second", &json!({"ttl": 10})).await.unwrap();
    scene.wait_ready("second", "False/TooManyLeases").await.unwrap();
    assert_eq!(scene.accounts("second").await.unwrap(), [""; 0]);
    scene.ended("first", &first, grace()).await.unwrap();
    let second = scene.wait_credential("second").await.unwrap();
    scene.use_account(&second.login).await.unwrap();
}
