//! What a DynamicSecret can be told to do, and what happens when people reach into its Secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use e2e::objects::{condition, number, text};
use e2e::postgres::{Login, random_password};
use e2e::scene::{Credential, PATIENCE, Scene, sleep_until};
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

const GRACE: Duration = Duration::from_secs(2);
/// Long enough for the operator to notice whatever it is going to notice.
const NOTICE: Duration = Duration::from_secs(3);

async fn scene() -> Scene<'static> {
    Scene::open(Stack::shared().await.unwrap(), Some(1)).await.unwrap()
}

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

/// Fails if the Secret gets another serial, or appears, within a while.
async fn nothing_follows(scene: &Scene<'_>, secret: &str, serial: i64) {
    let until = Instant::now() + NOTICE;
    while Instant::now() < until {
        let now = scene.credential(secret).await.unwrap().map_or(0, |now| now.serial);
        assert!(now <= serial, "serial {now} was issued");
        sleep(Duration::from_millis(200)).await;
    }
    let accounts = scene.accounts(secret).await.unwrap();
    assert!(accounts.len() <= 1, "{accounts:?}");
}

#[tokio::test]
async fn rotate_keeps_a_working_credential_in_the_secret_and_the_old_one_for_the_overlap() {
    let scene = scene().await;
    let spec = json!({"ttl": 14, "issuance": {"mode": "Rotate", "renewBefore": "6s", "overlap": "4s"}});
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
            if since.elapsed() < Duration::from_secs(3) {
                scene
                    .use_account(&old.login)
                    .await
                    .expect("the replaced account works during the overlap");
            } else if since.elapsed() > Duration::from_secs(4) + GRACE {
                assert!(
                    !scene.has_role(&old.login.user).await.unwrap(),
                    "the replaced account outlived the overlap"
                );
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    let status = scene.seen("app").await.unwrap()["status"].clone();
    assert_eq!(text(&status, "/history/0/why"), "Rotated", "{status}");
    assert_eq!(number(&status, "/deliveredSerial"), 4, "{status}");
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

    sleep_until(end, GRACE).await;
    assert!(!scene.has_role(&login.user).await.unwrap());
    assert!(session.simple_query("SELECT 1").await.is_err());
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
    sleep(GRACE).await;
    assert!(!scene.has_role(&given.login.user).await.unwrap());
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
    scene.ended("app", &first, GRACE).await.unwrap();
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
    scene.ended("app", &second, GRACE).await.unwrap();
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

/// Does something to the Secret of a live credential of mode Once; returns the credential.
async fn meddle_once(scene: &Scene<'_>, name: &str, meddling: Meddling) -> Credential {
    scene.ask(name, &json!({"ttl": 20})).await.unwrap();
    let credential = scene.wait_credential(name).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    meddling.apply(scene, name).await;
    scene.wait_no_role(&credential.login.user).await.unwrap();
    credential
}

#[derive(Clone, Copy)]
enum Meddling {
    Delete,
    Edit,
    Release,
}

impl Meddling {
    async fn apply(self, scene: &Scene<'_>, secret: &str) {
        let patch = match self {
            Self::Delete => return scene.objects.delete("Secret", &scene.shop, secret).await.unwrap(),
            Self::Edit => json!({"stringData": {"password": "changed by hand"}}),
            Self::Release => json!({"metadata": {"labels": {"dsv.dev/lease": null}}}),
        };
        scene
            .objects
            .merge("Secret", &scene.shop, secret, &patch)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn in_mode_once_a_deleted_or_edited_secret_ends_the_account_and_nothing_follows() {
    let scene = scene().await;
    for (name, meddling) in [("deleted", Meddling::Delete), ("edited", Meddling::Edit)] {
        meddle_once(&scene, name, meddling).await;
        assert!(scene.credential(name).await.unwrap().is_none());
    }
    nothing_follows(&scene, "deleted", 0).await;
    nothing_follows(&scene, "edited", 0).await;
    scene.wait_ready("deleted", "False/TargetDeleted").await.unwrap();
    let seen = scene.wait_ready("edited", "False/TargetEdited").await.unwrap();
    assert_eq!(text(&seen, "/status/history/0/why"), "TargetEdited");
}

#[tokio::test]
async fn a_secret_without_our_label_is_left_alone_and_its_account_ends() {
    let scene = scene().await;
    let once = meddle_once(&scene, "once", Meddling::Release).await;
    let spec = json!({"ttl": 20, "issuance": {"mode": "Rotate", "overlap": 1}});
    scene.ask("rotate", &spec).await.unwrap();
    let rotate = scene.wait_credential("rotate").await.unwrap();
    scene.wait_ready("rotate", "True/Issued").await.unwrap();
    Meddling::Release.apply(&scene, "rotate").await;
    scene.wait_no_role(&rotate.login.user).await.unwrap();
    for (name, was) in [("once", once), ("rotate", rotate)] {
        nothing_follows(&scene, name, was.serial).await;
        let left = scene
            .credential(name)
            .await
            .unwrap()
            .expect("the Secret is the user's now");
        assert_eq!((left.uid, left.login), (was.uid, was.login), "its data is not touched");
    }
    scene.wait_ready("once", "False/TargetReleased").await.unwrap();
}

#[tokio::test]
async fn in_mode_rotate_a_deleted_or_edited_secret_is_replaced_by_a_fresh_credential() {
    let scene = scene().await;
    let spec = json!({"ttl": 30, "issuance": {"mode": "Rotate", "overlap": 1}});
    scene.ask("app", &spec).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    Meddling::Delete.apply(&scene, "app").await;
    let second = scene.wait_serial("app", 2).await.unwrap();
    scene.use_account(&second.login).await.unwrap();
    Meddling::Edit.apply(&scene, "app").await;
    let third = scene.wait_serial("app", 3).await.unwrap();
    scene.use_account(&third.login).await.unwrap();
    for old in [first, second] {
        assert_ne!(old.login.password, third.login.password);
        scene.wait_no_role(&old.login.user).await.unwrap();
    }
    nothing_follows(&scene, "app", 3).await;
}

#[tokio::test]
async fn labels_that_others_put_on_the_secret_are_no_edit() {
    let scene = scene().await;
    scene.ask("app", &json!({"ttl": 20})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let patch = json!({"metadata": {"labels": {"seen-by": "somebody"}, "annotations": {"note": "mine"}}});
    scene.objects.merge("Secret", &scene.shop, "app", &patch).await.unwrap();
    nothing_follows(&scene, "app", 1).await;
    scene.use_account(&credential.login).await.unwrap();
    scene.ended("app", &credential, GRACE).await.unwrap();
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
    scene.ended("app", &credential, GRACE).await.unwrap();
    scene.wait_absent("DynamicSecret", &scene.shop, "app").await.unwrap();
}

#[tokio::test]
async fn account_settings_reach_the_role() {
    let scene = scene().await;
    let account = json!({
        "connectionLimit": 2,
        "statementTimeout": "1s",
        "idleInTransactionTimeout": "7s",
        "searchPath": ["Odd \"schema\"", "public"],
    });
    scene.ask("app", &json!({"ttl": 30, "account": account})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let session = scene.log_in(&credential.login).await.unwrap();
    for (setting, value) in [
        ("statement_timeout", "1s"),
        ("idle_in_transaction_session_timeout", "7s"),
        ("search_path", "\"Odd \"\"schema\"\"\", public"),
    ] {
        let row = session.query_one(&format!("SHOW {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{setting}");
    }
    let slow = session.batch_execute("SELECT pg_sleep(3)").await.unwrap_err();
    assert_eq!(slow.code(), Some(&SqlState::QUERY_CANCELED));
    session
        .query_one("SELECT count(*) FROM orders", &[])
        .await
        .expect("found by the search path");
    let _second = scene.log_in(&credential.login).await.unwrap();
    let third = scene
        .log_in(&credential.login)
        .await
        .expect_err("two sessions are the limit");
    assert!(format!("{third:#}").contains("too many connections"), "{third:#}");
}

#[tokio::test]
async fn the_secret_is_as_the_target_says_and_holds_all_that_a_client_needs() {
    let scene = scene().await;
    let target = json!({
        "name": "db-of-app",
        "type": "servicebinding.io/postgresql",
        "labels": {"app": "orders"},
        "annotations": {"example.com/owner": "shop"},
    });
    scene.ask("app", &json!({"ttl": 20, "target": target})).await.unwrap();
    let credential = scene.wait_credential("db-of-app").await.unwrap();
    let secret = &credential.secret;
    assert_eq!(text(secret, "/type"), "servicebinding.io/postgresql");
    assert_eq!(text(secret, "/metadata/labels/app"), "orders");
    assert_eq!(text(secret, "/metadata/annotations/example.com~1owner"), "shop");
    assert!(
        scene.credential("app").await.unwrap().is_none(),
        "only the named Secret is made"
    );
    let server = scene.server();
    for (key, value) in [
        ("type", "postgresql".to_owned()),
        ("host", server.host().to_owned()),
        ("port", server.port().to_string()),
        ("database", "orders".to_owned()),
        ("sslmode", "verify-full".to_owned()),
        ("ca.crt", server.authority().to_owned()),
    ] {
        assert_eq!(credential.value(key).unwrap(), value, "{key}");
    }
    // The URI alone is enough to connect: a real client library reads it.
    let mut config: tokio_postgres::Config = credential
        .value("uri")
        .unwrap()
        .replace("verify-full", "require")
        .parse()
        .unwrap();
    config.connect_timeout(Duration::from_secs(5));
    let session = server.open(&config).await.unwrap();
    session.query("SELECT item FROM public.orders", &[]).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_is_not_ours_is_never_overwritten() {
    let scene = scene().await;
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "taken", "namespace": &*scene.shop, "labels": {"app.kubernetes.io/managed-by": "dsv-operator"}},
        "stringData": {"password": "theirs"},
    });
    let was = scene.objects.create(&foreign).await.unwrap();
    scene.ask("taken", &json!({})).await.unwrap();
    scene.wait_ready("taken", "False/TargetNotOurs").await.unwrap();
    // Another dynamic secret's Secret is not ours either.
    scene.ask("app", &json!({"ttl": 20})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    scene.ask("rival", &json!({"target": {"name": "app"}})).await.unwrap();
    scene.wait_ready("rival", "False/TargetShared").await.unwrap();
    let now = scene
        .objects
        .get("Secret", &scene.shop, "taken")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now["metadata"]["resourceVersion"], was["metadata"]["resourceVersion"]);
    let still = scene.credential("app").await.unwrap().unwrap();
    assert_eq!(still.version, credential.version);
    for name in ["taken", "rival"] {
        assert_eq!(
            scene.accounts(name).await.unwrap(),
            [""; 0],
            "nothing is issued that cannot be delivered"
        );
    }
    // When the place is free, it goes on by itself.
    scene.objects.delete("Secret", &scene.shop, "taken").await.unwrap();
    scene.wait_credential("taken").await.unwrap();
}

#[tokio::test]
async fn no_more_leases_are_open_than_the_dynamic_secret_admits() {
    let scene = scene().await;
    let spec = json!({"ttl": 30, "maxLeases": 2, "issuance": {"mode": "OnDemand"}});
    scene.ask("app", &spec).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        scene
            .lease("app", name, &json!({"verifier": verifier().1, "ttl": 10}))
            .await
            .unwrap();
    }
    sleep(NOTICE).await;
    let leases = scene.leases().await.unwrap();
    let phases: Vec<String> = leases.iter().map(|lease| text(lease, "/status/phase")).collect();
    let count = |phase: &str| phases.iter().filter(|have| *have == phase).count();
    assert_eq!((count("Issued"), count("Refused")), (2, 2), "{phases:?}");
    assert_eq!(scene.accounts("app").await.unwrap().len(), 2);
    let refused = leases
        .iter()
        .find(|lease| text(lease, "/status/phase") == "Refused")
        .unwrap();
    assert_eq!(condition(refused, "Ready"), "False/TooManyLeases");
    // When one ends, the next goes on by itself, and never are there three.
    let until = Instant::now() + PATIENCE;
    while !text(
        &scene
            .objects
            .get("CredentialLease", &scene.shop, &text(refused, "/metadata/name"))
            .await
            .unwrap()
            .unwrap_or_default(),
        "/status/phase",
    )
    .starts_with("Issued")
    {
        assert!(Instant::now() < until, "the refused lease was never issued");
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
    scene.ended("first", &first, GRACE).await.unwrap();
    let second = scene.wait_credential("second").await.unwrap();
    scene.use_account(&second.login).await.unwrap();
}
