//! What lies in the database and what is on the books differ, and the operator notices and mends it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use anyhow::ensure;
use dsv::keys::{RoleComment, RoleKind, SigningKey};
use e2e::install::NAMESPACE;
use e2e::objects::text;
use e2e::postgres::Major;
use e2e::scene::{Credential, PATIENCE, Scene};
use e2e::stack::{Shape, Stack};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::sleep;
use tokio_postgres::SimpleQueryMessage;

/// Between two audits of these tests' operator.
const EVERY: Duration = Duration::from_secs(2);
/// A round may come this late: interval, pause between rounds, and the round itself.
const ROUND: Duration = Duration::from_secs(10);

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
async fn scene() -> Scene<'static> {
    Scene::open_alone(stack().await, Major::of_this_machine(), Some(1))
        .await
        .unwrap()
}

async fn sql(scene: &Scene<'_>, sql: &str) {
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
async fn wait_audited(scene: &Scene<'_>, wanted: &str) -> String {
    let check = || async {
        let (now, message) = audited(scene).await;
        ensure!(now == wanted, "it is {now}: {message}");
        Ok(Some(message))
    };
    let what = format!("the pool's audit says {wanted}");
    scene.stack.eventually(&what, PATIENCE, check).await.unwrap()
}

async fn history(scene: &Scene<'_>, name: &str) -> Vec<String> {
    let seen = scene.seen(name).await.unwrap();
    let history = seen["status"]["history"].as_array().cloned().unwrap_or_default();
    history.iter().map(|record| text(record, "/why")).collect()
}

async fn oid(scene: &Scene<'_>, role: &str) -> u32 {
    let query = "SELECT oid FROM pg_roles WHERE rolname = $1";
    scene.administrator().query_one(query, &[&role]).await.unwrap().get(0)
}

async fn has_oid(scene: &Scene<'_>, oid: u32) -> bool {
    let query = "SELECT 1 FROM pg_roles WHERE oid = $1";
    !scene.administrator().query(query, &[&oid]).await.unwrap().is_empty()
}

async fn rotating(scene: &Scene<'_>, name: &str) -> Credential {
    let spec = json!({"ttl": "10m", "issuance": {"mode": "Rotate"}});
    scene.ask(name, &spec).await.unwrap();
    let credential = scene.wait_credential(name).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    credential
}

/// Whatever is done to a live account by hand that can be seen: it is revoked, and mode Rotate issues another.
#[tokio::test]
async fn an_account_that_was_changed_by_hand_is_revoked_and_replaced() {
    let scene = scene().await;
    let changes = [
        ("dropped", "DROP ROLE {}", "AccountMissing"),
        ("renamed", "ALTER ROLE {} RENAME TO somebody", "AccountAltered"),
        ("shut", "ALTER ROLE {} NOLOGIN", "AccountAltered"),
        ("longer", "ALTER ROLE {} VALID UNTIL '2040-01-01'", "AccountAltered"),
        ("mighty", "ALTER ROLE {} CREATEDB", "AccountAltered"),
    ];
    for (name, change, why) in changes {
        let first = rotating(&scene, name).await;
        let user = format!("\"{}\"", first.login.user);
        let account = oid(&scene, &first.login.user).await;
        let session = scene.use_account(&first.login).await.unwrap();
        sql(&scene, &change.replace("{}", &user)).await;
        let second = scene.wait_serial(name, 2).await.unwrap();
        assert_ne!(second.login.user, first.login.user);
        scene.use_account(&second.login).await.unwrap();
        let gone = || async { Ok((!has_oid(&scene, account).await).then_some(())) };
        scene
            .stack
            .eventually("the changed account is gone", PATIENCE, gone)
            .await
            .unwrap();
        let ended = || async { Ok(session.batch_execute("SELECT 1").await.is_err().then_some(())) };
        scene
            .stack
            .eventually("its session is ended", PATIENCE, ended)
            .await
            .unwrap();
        // The first lease stays on the books until its deadline has proven that nothing comes any more.
        let lease = scene
            .objects
            .get("CredentialLease", &scene.shop, &first.lease)
            .await
            .unwrap();
        let told = lease.is_some_and(|lease| !text(&lease, "/metadata/deletionTimestamp").is_empty())
            || history(&scene, name).await.first().is_some_and(|said| said == why);
        assert!(
            told,
            "{name}: neither is the lease ending nor does the history say {why}"
        );
        wait_event(&scene, why, name).await;
    }
    wait_audited(&scene, "True/Consistent").await;
}

/// Waits for an Event about a dynamic secret.
async fn wait_event(scene: &Scene<'_>, reason: &str, about: &str) {
    let check = || async {
        let events = scene
            .stack
            .kubectl(&["-n", &scene.shop, "get", "events.events.k8s.io", "-o", "json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let found = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|event| text(event, "/reason") == reason && text(event, "/regarding/name") == about);
        Ok(found.then_some(()))
    };
    let what = format!("an Event {reason} about {about}");
    scene.stack.eventually(&what, PATIENCE, check).await.unwrap();
}

#[tokio::test]
async fn mode_once_issues_no_other_when_its_account_is_gone() {
    let scene = scene().await;
    scene.ask("app", &json!({"ttl": "10m"})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene.wait_ready("app", "True/Issued").await.unwrap();
    sql(&scene, &format!("DROP ROLE \"{}\"", first.login.user)).await;
    scene.wait_absent("Secret", &scene.shop, "app").await.unwrap();
    let message = wait_audited(&scene, "False/AccountMissing").await;
    assert!(message.contains(&first.login.user), "{message}");
    sleep(ROUND).await;
    assert!(scene.credential("app").await.unwrap().is_none());
    assert_eq!(scene.leases().await.unwrap().len(), 1, "only the one that ends");
    wait_audited(&scene, "True/Consistent").await;
}

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
    assert!(session.batch_execute("SELECT 1").await.is_err());
    let metrics = scene.stack.operators()[0].metrics().await.unwrap();
    let revoked = "dsv_audit_actions_total{action=\"revoke\"} 0";
    assert!(!metrics.lines().any(|line| line == revoked), "{metrics}");
}

/// Takes a lease off the books as a person who must not: finalizer and all.
async fn tear(scene: &Scene<'_>, lease: &str) {
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

/// Accounts of which nobody knows anything (books restored from a backup) are told, left to their end, then revoked; roles
/// of another installation, copies and plain strangers are never touched.
#[tokio::test]
async fn unknown_accounts_live_to_their_end_and_foreign_roles_stay() {
    let scene = scene().await;
    rotating(&scene, "app").await;
    let key = signing_key(&scene).await;
    let genuine = installation(&scene).await;
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(25);
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

/// Makes a role whose comment says that it is an account of ours.
async fn forge(scene: &Scene<'_>, key: &SigningKey, installation: &str, until: jiff::Timestamp) -> String {
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
async fn signing_key(scene: &Scene<'_>) -> SigningKey {
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
async fn installation(scene: &Scene<'_>) -> String {
    let query = "SELECT description FROM pg_shdescription WHERE description LIKE 'dsv/1 kind=group %' LIMIT 1";
    let comment: String = scene.administrator().query_one(query, &[]).await.unwrap().get(0);
    let word = comment.split(' ').find_map(|word| word.strip_prefix("inst="));
    word.unwrap().to_owned()
}

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

/// A right that was taken from a group by hand comes back, and one that cannot be given is told.
#[tokio::test]
async fn the_grants_of_a_group_are_kept() {
    let scene = scene().await;
    let credential = rotating(&scene, "app").await;
    let session = scene.use_account(&credential.login).await.unwrap();
    let group = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'dsvg_')";
    let group: String = scene.administrator().query_one(group, &[]).await.unwrap().get(0);
    let orders = scene.server().connect_as(scene.issuer(), "orders").await.unwrap();
    // As one transaction: an audit may follow within the second.
    let taken = orders
        .simple_query(&format!(
            "REVOKE ALL ON public.orders FROM {group}; SELECT has_table_privilege('{group}', 'public.orders', 'SELECT')"
        ))
        .await
        .unwrap();
    let has = taken.iter().find_map(|said| match said {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(has, Some("f"), "the right was not taken");
    let back = || async {
        let read = session.batch_execute("SELECT item FROM public.orders").await;
        Ok(read.is_ok().then_some(()))
    };
    scene
        .stack
        .eventually("the right is back", PATIENCE, back)
        .await
        .unwrap();
    sql(&scene, &format!("CREATE ROLE analyst; GRANT {group} TO analyst")).await;
    let message = wait_audited(&scene, "False/GroupAltered").await;
    assert!(message.contains("analyst"), "{message}");
    sql(&scene, &format!("REVOKE {group} FROM analyst")).await;
    wait_audited(&scene, "True/Consistent").await;
}

/// A server record goes after the last use of its server, and comes back for the next lease.
#[tokio::test]
async fn a_server_record_lives_as_long_as_it_is_needed() {
    let scene = scene().await;
    scene.ask("app", &json!({})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    let lease = scene
        .objects
        .get("CredentialLease", &scene.shop, &first.lease)
        .await
        .unwrap()
        .unwrap();
    let record = text(&lease, "/spec/claim/server");
    assert!(record.starts_with("server-"), "{record}");
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

/// The history that the only server record of the scene's namespace names.
async fn recorded_history(scene: &Scene<'_>) -> String {
    let records = scene.objects.list("Secret", NAMESPACE).await.unwrap();
    let note = |record: &Value, name: &str| text(record, &format!("/metadata/annotations/dsv.dev~1{name}"));
    let ours: Vec<_> = records
        .iter()
        .filter(|record| note(record, "base-namespace") == *scene.databases)
        .collect();
    assert_eq!(ours.len(), 1);
    note(ours[0], "history")
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
    let lease = scene
        .objects
        .get("CredentialLease", &scene.shop, &credential.lease)
        .await
        .unwrap()
        .unwrap();
    let record = text(&lease, "/spec/claim/server");
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
