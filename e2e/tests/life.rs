//! One credential from the request to the proof that nothing of it is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::objects::{number, text};
use e2e::postgres::Major;
use e2e::sample;
use e2e::say::say;
use e2e::scene::{Credential, PATIENCE, Scene};
use e2e::stack::Stack;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::RwLock;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// How soon after the request the Secret is there, with an engine connected.
const DELIVERED: Duration = Duration::from_secs(2);
/// How long after the end of a credential something of it may still be seen.
const GRACE: Duration = Duration::from_secs(2);
/// Enough for a 99th percentile.
const MANY: usize = 100;

#[tokio::test]
async fn a_credential_works_until_its_ttl_and_leaves_nothing_on_postgresql_15() {
    a_life(Major::V15).await;
}

#[tokio::test]
async fn a_credential_works_until_its_ttl_and_leaves_nothing_on_postgresql_18() {
    a_life(Major::V18).await;
}

#[tokio::test]
async fn of_many_accounts_each_is_gone_within_two_seconds_of_its_end() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, Some(2)).await.unwrap();
    let crowd = CROWD.write().await;
    for number in 0..MANY {
        // Ends that are spread over a few seconds, and some that meet.
        let spec = json!({"ttl": 15 + number % 5});
        scene.ask(&format!("app-{number}"), &spec).await.unwrap();
    }
    let mut ends = BTreeMap::new();
    for number in 0..MANY {
        let credential = scene.wait_credential(&format!("app-{number}")).await.unwrap();
        ends.insert(credential.login.user, credential.expires_at);
    }
    drop(crowd);
    let mut late = Vec::new();
    while !ends.is_empty() {
        let left = scene.all_accounts().await.unwrap();
        let now = Timestamp::now();
        ends.retain(|user, end| {
            let there = left.contains(user);
            if !there {
                late.push(Duration::try_from(now.duration_since(*end)).unwrap_or_default());
            }
            let overdue = now.duration_since(*end) > SignedDuration::from_secs(60);
            assert!(!overdue, "{user} is still there a minute after its end");
            there
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    late.sort();
    let at = |percent: usize| late[(late.len() * percent).div_ceil(100) - 1];
    say(format!(
        "{MANY} accounts were gone after their ends: p50 {:?}, p99 {:?}",
        at(50),
        at(99)
    ));
    assert!(at(99) <= GRACE, "{late:?}");
}

/// Held for writing while a hundred accounts are made at once: a Secret that is timed then shows the machine.
static CROWD: RwLock<()> = RwLock::const_new(());

async fn a_life(major: Major) {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, major, Some(1)).await.unwrap();
    let before = scene.books().await.unwrap();
    let alone = CROWD.read().await;
    let asked = Instant::now();
    scene.ask("app", &json!({})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let took = asked.elapsed();
    drop(alone);
    say(format!("PostgreSQL {major}: the Secret is there after {took:?}"));
    assert!(took < DELIVERED, "the Secret came after {took:?}");

    let session = scene.use_account(&credential.login).await.unwrap();
    refused(&session).await;
    same_on_the_books(&scene, &credential).await;

    scene.ended("app", &credential, GRACE).await.unwrap();
    scene.session_dies(&session, GRACE).await.unwrap();
    assert!(
        scene.log_in(&credential.login).await.is_err(),
        "the account still logs in"
    );
    told_in_the_history(&scene, &credential).await;
    // Mode Once: nothing follows by itself.
    assert!(scene.credential("app").await.unwrap().is_none());
    assert!(scene.leases().await.unwrap().is_empty());

    scene.objects.delete("DynamicSecret", &scene.shop, "app").await.unwrap();
    scene.wait_absent("DynamicSecret", &scene.shop, "app").await.unwrap();
    let after = scene.books().await.unwrap();
    assert_eq!(
        before.difference(&after),
        "",
        "something of ours stayed in PostgreSQL {major}"
    );
}

/// The account may do what it was granted and nothing else, and cannot help itself to more.
async fn refused(session: &Client) {
    for forbidden in [
        "DELETE FROM public.orders",
        "INSERT INTO public.orders (item) VALUES ('mine')",
        "SELECT * FROM public.invoices",
        "CREATE TABLE public.mine (n int)",
        "CREATE ROLE mine",
        "SET ROLE dsv_issuer",
        "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'",
    ] {
        let refused = session.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(
            refused.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{forbidden}: {refused}"
        );
    }
}

/// What the database and the lease say about one account is the same.
async fn same_on_the_books(scene: &Scene<'_>, credential: &Credential) {
    let lease = scene
        .objects
        .get("CredentialLease", &scene.shop, &credential.lease)
        .await;
    let lease = lease.unwrap().expect("an issued account is on the books");
    assert_eq!(text(&lease, "/metadata/uid"), credential.lease_uid);
    let query = "SELECT oid::int8, extract(epoch FROM rolvaliduntil)::int8, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = $1";
    let role = scene
        .administrator()
        .query_one(query, &[&credential.login.user])
        .await
        .unwrap();
    let (oid, until, strong): (i64, i64, bool) = (role.get(0), role.get(1), role.get(2));
    assert!(!strong, "the account has attributes that nobody granted");
    let end = credential.expires_at.as_second();
    assert!(
        (until - end).abs() <= 2,
        "VALID UNTIL is {until}, the lease ends at {end}"
    );
    let check = || async {
        let lease = scene
            .objects
            .get("CredentialLease", &scene.shop, &credential.lease)
            .await?;
        Ok(lease.filter(|lease| text(lease, "/status/phase") == "Issued"))
    };
    let lease = scene
        .stack
        .eventually("the lease is reported as issued", PATIENCE, check)
        .await
        .unwrap();
    assert_eq!(number(&lease, "/status/roleOid"), oid);
    assert_eq!(text(&lease, "/status/username"), credential.login.user);
    assert_eq!(text(&lease, "/status/issuedBy"), format!("{}-0", sample::ORDERS));
}

/// The dynamic secret's status keeps what became of the lease.
async fn told_in_the_history(scene: &Scene<'_>, credential: &Credential) {
    let seen = scene.wait_ready("app", "True/Expired").await.unwrap();
    let history = &seen["status"]["history"];
    assert_eq!(history.as_array().map(Vec::len), Some(1), "{history}");
    assert_eq!(text(history, "/0/lease"), credential.lease);
    assert_eq!(number(history, "/0/serial"), 1);
    assert_eq!(text(history, "/0/username"), credential.login.user);
    assert_eq!(text(history, "/0/why"), "Expired");
    let time = |pointer: &str| {
        text(history, pointer)
            .parse::<jiff::Timestamp>()
            .expect("a time in the history")
    };
    assert!(time("/0/issuedAt") < time("/0/endedAt"));
    assert!(time("/0/endedAt") >= credential.expires_at);
}

#[tokio::test]
async fn equal_names_in_two_namespaces_do_not_meet() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, Some(1)).await.unwrap();
    let other = stack.namespace("shop", &[("team", "shop")]).unwrap();
    scene.ask("app", &json!({"ttl": 20})).await.unwrap();
    let twin = scene.dynamic_secret(&other, "app", &json!({"ttl": 15}));
    scene.objects.create(&twin).await.unwrap();
    let ours = scene.wait_credential("app").await.unwrap();
    let theirs = || async { scene.credential_in(&other, "app").await };
    let theirs = stack
        .eventually("the other Secret is there", PATIENCE, theirs)
        .await
        .unwrap();
    assert_ne!(ours.login.user, theirs.login.user);
    assert_ne!(ours.login.password, theirs.login.password);
    scene.use_account(&ours.login).await.unwrap();

    scene.objects.delete("DynamicSecret", &other, "app").await.unwrap();
    scene.wait_no_role(&theirs.login.user).await.unwrap();
    assert!(scene.credential_in(&other, "app").await.unwrap().is_none());
    scene.use_account(&ours.login).await.unwrap();
    scene.wait_absent("DynamicSecret", &other, "app").await.unwrap();
    let still = scene
        .credential("app")
        .await
        .unwrap()
        .expect("our Secret is not touched");
    assert_eq!((still.uid, still.version), (ours.uid, ours.version));
    scene.use_account(&ours.login).await.unwrap();
}

#[tokio::test]
async fn a_deleted_dynamic_secret_leaves_nothing_of_its_live_accounts_on_postgresql_15() {
    deleted(Major::V15).await;
}

#[tokio::test]
async fn a_deleted_dynamic_secret_leaves_nothing_of_its_live_accounts_on_postgresql_18() {
    deleted(Major::V18).await;
}

/// Three credentials with rights of all kinds, two of them live, one with an open session: all of it goes with its dynamic
/// secret, at once and not at the ttl.
async fn deleted(major: Major) {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, major, Some(1)).await.unwrap();
    let before = scene.books().await.unwrap();
    let spec = json!({
        "ttl": 15,
        "grantPermissions": null,
        "grants": [{"what": "SELECT, INSERT, UPDATE", "where": "public.*"}, {"what": "DELETE", "where": "public.invoices"}],
        "issuance": {"mode": "Rotate", "overlap": 12},
    });
    scene.ask("app", &spec).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene
        .change("app", &json!({"grants": [{"what": "SELECT", "where": "public.*"}]}))
        .await
        .unwrap();
    let second = scene.wait_serial("app", 2).await.unwrap();
    scene.rotate("app", "again").await.unwrap();
    let third = scene.wait_serial("app", 3).await.unwrap();
    let mut sessions = Vec::new();
    for credential in [&first, &second, &third] {
        sessions.push(scene.use_account(&credential.login).await.unwrap());
    }
    assert!(
        !before.difference(&scene.books().await.unwrap()).is_empty(),
        "the comparison must see live accounts"
    );

    scene.objects.delete("DynamicSecret", &scene.shop, "app").await.unwrap();
    tokio::time::sleep(GRACE).await;
    assert_eq!(
        scene.accounts("app").await.unwrap(),
        [""; 0],
        "{GRACE:?} after the deletion"
    );
    assert!(
        scene.credential("app").await.unwrap().is_none(),
        "the Secret outlived its account"
    );
    for session in sessions {
        scene.session_dies(&session, GRACE).await.unwrap();
    }
    // The books stay open until no attempt to issue can land any more.
    scene.wait_absent("DynamicSecret", &scene.shop, "app").await.unwrap();
    let after = scene.books().await.unwrap();
    assert_eq!(
        before.difference(&after),
        "",
        "something of ours stayed in PostgreSQL {major}"
    );
    assert!(scene.leases().await.unwrap().is_empty());
}
