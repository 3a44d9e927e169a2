//! What the scenarios of the audit share: an operator that audits every two seconds, and servers of their own.

use anyhow::ensure;
use dsv::keys::{RoleComment, RoleKind, SigningKey};
use e2e::install::NAMESPACE;
use e2e::objects::text;
use e2e::postgres::Major;
use e2e::scene::{Credential, PATIENCE, Scene};
use e2e::stack::{Shape, Stack};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Between two audits of these tests' operator.
pub const EVERY: Duration = Duration::from_secs(2);
/// A round may come this late: interval, pause between rounds, and the round itself.
pub const ROUND: Duration = Duration::from_secs(10);

/// A runtime of its own: the stack outlives the test that starts it.
static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> =
    std::sync::LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());
static STACK: OnceCell<Stack> = OnceCell::const_new();

/// One operator that audits every two seconds.
async fn stack() -> &'static Stack {
    let shape = Shape {
        node: true,
        operator_args: vec!["--audit-every".into(), EVERY.as_secs().to_string()],
        ..Shape::default()
    };
    STACK
        .get_or_init(|| async { RUNTIME.spawn(Stack::start(shape)).await.unwrap().unwrap() })
        .await
}

/// On a server of its own, so that nobody else's roles are audited with it.
pub async fn scene() -> Scene<'static> {
    Scene::open_alone(stack().await, Major::of_this_machine(), Some(1))
        .await
        .unwrap()
}

pub async fn sql(scene: &Scene<'_>, sql: &str) {
    scene.administrator().batch_execute(sql).await.unwrap();
}

/// The pool's condition `Audited` as `status/reason`, and its message.
async fn audited(scene: &Scene<'_>) -> (String, String) {
    let pool = scene
        .objects
        .get("EnginePool", &scene.databases, "orders")
        .await
        .unwrap()
        .unwrap();
    let conditions = pool["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "Audited");
    let part = |name: &str| found.map(|c| text(c, &format!("/{name}"))).unwrap_or_default();
    (format!("{}/{}", part("status"), part("reason")), part("message"))
}

/// Waits until the pool's condition is that, and gives its message.
pub async fn wait_audited(scene: &Scene<'_>, wanted: &str) -> String {
    let check = || async {
        let (now, message) = audited(scene).await;
        ensure!(now == wanted, "it is {now}: {message}");
        Ok(Some(message))
    };
    let what = format!("the pool's audit says {wanted}");
    scene.stack.eventually(&what, PATIENCE, check).await.unwrap()
}

pub async fn history(scene: &Scene<'_>, name: &str) -> Vec<String> {
    let seen = scene.seen(name).await.unwrap();
    let history = seen["status"]["history"].as_array().cloned().unwrap_or_default();
    history.iter().map(|record| text(record, "/why")).collect()
}

pub async fn oid(scene: &Scene<'_>, role: &str) -> u32 {
    let query = "SELECT oid FROM pg_roles WHERE rolname = $1";
    scene.administrator().query_one(query, &[&role]).await.unwrap().get(0)
}

pub async fn has_oid(scene: &Scene<'_>, oid: u32) -> bool {
    let query = "SELECT 1 FROM pg_roles WHERE oid = $1";
    !scene.administrator().query(query, &[&oid]).await.unwrap().is_empty()
}

pub async fn rotating(scene: &Scene<'_>, name: &str) -> Credential {
    let spec = json!({"ttl": "10m", "issuance": {"mode": "Rotate"}});
    scene.ask(name, &spec).await.unwrap();
    let credential = scene.wait_credential(name).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    credential
}

/// Waits for an Event about a dynamic secret with one of these reasons.
pub async fn wait_event(scene: &Scene<'_>, reasons: &[&str], about: &str) {
    let check = || async {
        let events = scene
            .stack
            .kubectl(&["-n", &scene.shop, "get", "events.events.k8s.io", "-o", "json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let found =
            events["items"].as_array().into_iter().flatten().any(|event| {
                reasons.contains(&text(event, "/reason").as_str()) && text(event, "/regarding/name") == about
            });
        Ok(found.then_some(()))
    };
    let what = format!("an Event {reasons:?} about {about}");
    scene.stack.eventually(&what, PATIENCE, check).await.unwrap();
}

/// Takes a lease off the books as a person who must not: finalizer and all.
pub async fn tear(scene: &Scene<'_>, lease: &str) {
    let none = json!({"metadata": {"finalizers": null}});
    let patch = none.to_string();
    // Deleted first: on a living lease the finalizer is put back.
    let namespace: &str = &scene.shop;
    let delete = ["-n", namespace, "delete", "credentiallease", lease, "--wait=false"];
    let operator = &scene.stack.operators()[0];
    operator.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let torn = scene.stack.kubectl(&delete).and_then(|_| {
        scene.stack.kubectl(&[
            "-n",
            namespace,
            "patch",
            "credentiallease",
            lease,
            "--type=merge",
            "-p",
            &patch,
        ])
    });
    operator.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    torn.unwrap();
}

/// Makes a role whose comment says that it is an account of ours.
pub async fn forge(scene: &Scene<'_>, key: &SigningKey, installation: &str, until: jiff::Timestamp) -> String {
    let random = format!("{:032x}", rand::random::<u128>());
    let parts = [
        &random[..8],
        &random[8..12],
        &random[12..16],
        &random[16..20],
        &random[20..],
    ];
    let uid = parts.join("-");
    let role = dsv::api::names::role_name("lost_", "app", &uid).unwrap();
    let comment = RoleComment {
        kind: RoleKind::Lease,
        installation: installation.into(),
        subject: uid,
        role: role.clone(),
        claimed_at: until - jiff::SignedDuration::from_secs(60),
        expires_at: Some(until),
    };
    let comment = comment.sign(key).unwrap();
    let create = format!("CREATE ROLE \"{role}\" LOGIN; COMMENT ON ROLE \"{role}\" IS '{comment}'");
    let issuer = scene.server().connect_as(scene.issuer(), "orders").await.unwrap();
    issuer.batch_execute(&create).await.unwrap();
    role
}

/// The key that this installation signs comments with.
pub async fn signing_key(scene: &Scene<'_>) -> SigningKey {
    let secret = scene
        .objects
        .get("Secret", NAMESPACE, "dsv-signing")
        .await
        .unwrap()
        .unwrap();
    let encoded = text(&secret, "/data/key");
    let stored = data_encoding::BASE64.decode(encoded.as_bytes()).unwrap();
    SigningKey::load(&dsv::keys::SecretText::new(String::from_utf8(stored).unwrap())).unwrap()
}

/// Its id, as its accounts' comments name it.
pub async fn installation(scene: &Scene<'_>) -> String {
    let query = "SELECT description FROM pg_shdescription WHERE description LIKE 'dsv/1 kind=group %' LIMIT 1";
    let comment: String = scene.administrator().query_one(query, &[]).await.unwrap().get(0);
    let word = comment.split(' ').find_map(|word| word.strip_prefix("inst="));
    word.unwrap().to_owned()
}

/// Name of the server record that the lease of a credential is on the books with.
pub async fn record_of(scene: &Scene<'_>, credential: &Credential) -> String {
    let lease = scene
        .objects
        .get("CredentialLease", &scene.shop, &credential.lease)
        .await
        .unwrap()
        .unwrap();
    let record = text(&lease, "/spec/claim/server");
    assert!(record.starts_with("server-"), "{record}");
    record
}

/// The history that the only server record of the scene's namespace names.
pub async fn recorded_history(scene: &Scene<'_>) -> String {
    let records = scene.objects.list("Secret", NAMESPACE).await.unwrap();
    let note = |record: &Value, name: &str| text(record, &format!("/metadata/annotations/dsv.dev~1{name}"));
    let ours: Vec<_> = records
        .iter()
        .filter(|record| note(record, "base-namespace") == *scene.databases)
        .collect();
    assert_eq!(ours.len(), 1);
    note(ours[0], "history")
}
