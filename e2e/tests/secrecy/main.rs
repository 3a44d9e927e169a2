//! Passwords are with whoever asked for them and in the target Secret, and nowhere else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod tap;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use e2e::engine::Engine;
use e2e::health;
use e2e::objects::text;
use e2e::postgres::{Login, random_password};
use e2e::sample::ORDERS;
use e2e::scene::{PATIENCE, Scene};
use e2e::stack::{Shape, Stack};
use serde_json::json;

use crate::tap::Tap;

/// Everything that was written or can be seen while accounts lived, by name.
type Places = BTreeMap<String, Vec<u8>>;

/// How a text may look: as it is, in hexadecimal digits, or in base64 at each of the three positions that it can have in a
/// longer text.
fn disguises(text: &str) -> Vec<String> {
    let mut all = vec![text.to_owned(), HEXLOWER.encode(text.as_bytes())];
    for shift in 0..3 {
        let padded = [vec![0; shift], text.as_bytes().to_vec()].concat();
        for encoding in [BASE64, BASE64URL] {
            let encoded = encoding.encode(&padded);
            // The characters at both ends also depend on what stands around.
            all.push(encoded[4..(padded.len() / 3 * 4)].to_owned());
        }
    }
    all
}

/// Where a secret is found.
fn found<'a>(places: &'a Places, secret: &str) -> Vec<&'a str> {
    let disguises = disguises(secret);
    let holds = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        disguises.iter().any(|disguise| text.contains(disguise.as_str()))
    };
    let found = places.iter().filter(|(_, bytes)| holds(bytes));
    found.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn the_search_finds_a_secret_in_every_disguise() {
    let secret = random_password();
    let wrapped = |before: &str| format!("{before}{secret} and more").into_bytes();
    for before in ["", "x", "xy", "xyz"] {
        let places = Places::from([
            ("plain".to_owned(), wrapped(before)),
            ("base64".to_owned(), BASE64.encode(&wrapped(before)).into_bytes()),
            ("url".to_owned(), BASE64URL.encode(&wrapped(before)).into_bytes()),
            ("hex".to_owned(), HEXLOWER.encode(&wrapped(before)).into_bytes()),
            ("other".to_owned(), random_password().into_bytes()),
        ]);
        assert_eq!(found(&places, &secret), ["base64", "hex", "plain", "url"]);
    }
}

#[tokio::test]
async fn no_password_is_anywhere_but_with_its_asker_and_in_the_secret() {
    let shape = Shape {
        operator_log: Some("debug".to_owned()),
        ..Shape::default()
    };
    let stack = Stack::start(shape).await.unwrap();
    let scene = Scene::open(&stack, None).await.unwrap();
    let tap = Tap::start(stack.operators()[0].channel()).await.unwrap();
    let engine = engine_behind(&scene, &tap).await;

    let mut secrets = lives(&scene).await;
    secrets.insert("the issuer's password".to_owned(), scene.issuer().password.clone());
    let places = places(&scene, &engine, &tap).await;
    let delivered = scene.objects.list("Secret", &scene.shop).await.unwrap();
    let kept = Places::from([("Secrets".to_owned(), serde_json::to_vec(&delivered).unwrap())]);
    assert_eq!(
        found(&kept, &secrets["app"]),
        ["Secrets"],
        "the search finds what is there"
    );
    for (what, secret) in &secrets {
        assert_eq!(found(&places, secret), [""; 0], "{what} leaked");
    }
    // A verifier cannot log in, but it can be guessed against. Objects have it by design, and PostgreSQL logs it with its
    // statements, if it is told to.
    let elsewhere = |name: &String| !name.starts_with("objects") && name != "log of postgres";
    for (name, bytes) in places.iter().filter(|(name, _)| elsewhere(name)) {
        assert!(!has_verifier(bytes), "a verifier is in the {name}");
    }
    assert!(
        has_verifier(&places["log of postgres"]),
        "the search finds what is there"
    );
}

fn has_verifier(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut tails = text.split("SCRAM-SHA-256$4096:").skip(1);
    tails.any(|tail| tail.get(22..25) == Some("==$"))
}

async fn engine_behind(scene: &Scene<'_>, tap: &Tap) -> Engine {
    let manifest = json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "Engine",
        "metadata": {"name": "dc-west-1", "namespace": &*scene.databases}, "spec": {"pool": ORDERS},
    });
    scene.objects.create(&manifest).await.unwrap();
    let mut registration = scene.stack.registration(&scene.databases, "dc-west-1").await.unwrap();
    registration.insert("DSV_ENDPOINT".to_owned(), tap.address().to_string());
    registration.insert("RUST_LOG".to_owned(), "debug".to_owned());
    let engine = Engine::start(scene.stack.run(), "dc-west-1", &registration, None).unwrap();
    engine.wait_ready().await.unwrap();
    scene.wait_connected(1).await.unwrap();
    engine
}

/// Good lives and bad ones, to make everybody talk. The passwords that were about, by what they were for.
async fn lives(scene: &Scene<'_>) -> BTreeMap<String, String> {
    let mut secrets = BTreeMap::new();
    scene.ask("app", &json!({"ttl": "5m"})).await.unwrap();
    let rotate = json!({"ttl": 12, "issuance": {"mode": "Rotate", "renewBefore": 6, "overlap": 1}});
    scene.ask("rotate", &rotate).await.unwrap();
    for serial in 1..=2 {
        let credential = scene.wait_serial("rotate", serial).await.unwrap();
        scene.use_account(&credential.login).await.unwrap();
        secrets.insert(format!("rotate {serial}"), credential.login.password);
    }
    let app = scene.wait_credential("app").await.unwrap();
    scene.use_account(&app.login).await.unwrap();
    secrets.insert("app".to_owned(), app.login.password);

    // Only the asker knows this one.
    scene
        .ask("asked", &json!({"ttl": "5m", "issuance": {"mode": "OnDemand"}}))
        .await
        .unwrap();
    let password = random_password();
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    scene
        .lease("asked", "mine", &json!({"verifier": verifier}))
        .await
        .unwrap();
    let lease = scene
        .wait_condition("CredentialLease", &scene.shop, "mine", "True/Issued")
        .await
        .unwrap();
    let user = text(&lease, "/status/username");
    let login = Login {
        user,
        password: password.clone(),
    };
    scene.use_account(&login).await.unwrap();
    secrets.insert("asked".to_owned(), password);

    secrets.extend(failures(scene).await);
    secrets
}

/// What goes wrong is told in words, and words are where secrets slip out.
async fn failures(scene: &Scene<'_>) -> BTreeMap<String, String> {
    let missing = json!({"grantPermissions": {"what": "SELECT", "where": "public.nowhere"}});
    scene.ask("missing", &missing).await.unwrap();
    scene.wait_ready("missing", "False/ObjectMissing").await.unwrap();
    let wrong = random_password();
    let mut base = scene.base_secret("wrong-db");
    base["stringData"]["password"] = json!(wrong);
    scene.objects.create(&base).await.unwrap();
    let mut access = scene.access();
    access["linkedSecrets"] = json!(["orders-db", "wrong-db"]);
    let access = json!({"spec": {"access": [access]}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, ORDERS, &access)
        .await
        .unwrap();
    scene
        .ask("wrong", &json!({"linkConfig": {"linkedSecret": "wrong-db"}}))
        .await
        .unwrap();
    scene.wait_ready("wrong", "False/LoginRefused").await.unwrap();
    // A credential that is issued and then cannot be delivered.
    scene.ask("edited", &json!({"ttl": 60})).await.unwrap();
    let edited = scene.wait_credential("edited").await.unwrap();
    let by_hand = random_password();
    let edit = json!({"stringData": {"password": by_hand}});
    scene
        .objects
        .merge("Secret", &scene.shop, "edited", &edit)
        .await
        .unwrap();
    scene.wait_no_role(&edited.login.user).await.unwrap();
    // A password in the place of a verifier, as people do.
    let plain = random_password();
    scene
        .lease("asked", "plain", &json!({"verifier": plain}))
        .await
        .unwrap_err();
    BTreeMap::from([
        ("a wrong password in a base secret".to_owned(), wrong),
        ("edited".to_owned(), edited.login.password),
        (
            "a password that somebody wrote into a Secret of ours".to_owned(),
            by_hand,
        ),
        ("a password that was handed in as a verifier".to_owned(), plain),
    ])
}

/// Collects all places, and in each finds something that must be there, or the search would show nothing.
async fn places(scene: &Scene<'_>, engine: &Engine, tap: &Tap) -> Places {
    let stack = scene.stack;
    let operator = &stack.operators()[0];
    let mut places = Places::new();
    let mut put = |name: &str, bytes: Vec<u8>, known: &str| {
        let there = String::from_utf8_lossy(&bytes).contains(known);
        assert!(there, "{name} lacks {known:?}, so searching it shows nothing");
        places.insert(name.to_owned(), bytes);
    };
    for kind in ["CredentialLease", "DynamicSecret", "EnginePool", "Engine"] {
        let plural = format!("{}s.dsv.dev", kind.to_lowercase());
        let yaml = stack
            .kubectl(&["get", &plural, "-A", "-o", "yaml", "--show-managed-fields"])
            .unwrap();
        put(&format!("objects of kind {kind}"), yaml.into_bytes(), kind);
    }
    let events = stack.kubectl(&["get", "events", "-A", "-o", "yaml"]).unwrap();
    put("Events", events.into_bytes(), "LoginRefused");
    put(
        "audit log",
        stack.cluster().control_plane().unwrap().audit_log().into_bytes(),
        "credentialleases",
    );
    put(
        "log of the operator",
        operator.log_text().into_bytes(),
        "account issued",
    );
    put("log of the engine", engine.log_text().into_bytes(), "DEBUG");
    put(
        "metrics of the operator",
        operator.metrics().await.unwrap().into_bytes(),
        "dsv_leader 1",
    );
    let metrics = health::get(engine.health(), "/metrics").await.unwrap().1;
    put("metrics of the engine", metrics.into_bytes(), "dsv_");
    put("command lines", command_lines(), "--channel-addr");

    let marker = random_password();
    let client = scene.server().connect("postgres").await.unwrap();
    client.batch_execute(&format!("SELECT '{marker}'")).await.unwrap();
    let planted = || async { Ok(scene.server().log_text().contains(&marker).then_some(())) };
    stack
        .eventually("PostgreSQL writes its log", PATIENCE, planted)
        .await
        .unwrap();
    put("log of postgres", scene.server().log_text().into_bytes(), &marker);
    put("the channel", say_something(tap, &marker).await, &marker);
    places
}

fn command_lines() -> Vec<u8> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .flat_map(|process: PathBuf| fs::read(process.join("cmdline")).unwrap_or_default())
        .collect()
}

/// Sends a text through the tap, as an engine that does not encrypt would; returns all that the tap has seen.
async fn say_something(tap: &Tap, text: &str) -> Vec<u8> {
    let before = tap.seen().len();
    assert!(before > 10_000, "only {before} bytes went through the tap");
    tap.say(text).await.unwrap();
    tap.seen()
}
