//! Servers that are not what they were: promoted, restored from a backup, or shared with another installation.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::lane::Lane;
use super::people::{followed, gone, issued};
use super::tales::{Tale, tale};
use crate::install::NAMESPACE;
use crate::postgres::Server;
use crate::sample::BASE_SECRET;
use crate::scene::{Credential, Scene};
use crate::stack::{Shape, Stack};

/// One round of the audit, which a changed timeline calls for, and what it decides.
const AUDITED: Duration = Duration::from_secs(90);
/// Several rounds of an audit that is made every two seconds.
const ROUNDS: Duration = Duration::from_secs(12);
const EVERY: &str = "2";
/// What an installation signs with, and the hash that its roles carry.
const KEYS: [&str; 2] = ["dsv-root", "dsv-signing"];

pub fn tales() -> Vec<Tale> {
    vec![
        tale!("database promoted: a new timeline", promoted, alone = true),
        tale!("database restored from a base backup", restored, alone = true),
        tale!("two installations, one a copy of the other", two, alone = true),
    ]
}

/// What was in order before a promotion is so afterwards, and credentials go on.
async fn promoted(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    lane.scene.server().restart_on_a_new_timeline().await?;
    lane.scene.use_account(&credential.login).await?;
    followed(lane, name, &credential).await
}

/// An account that was taken back after the backup was made is there again, and goes again.
async fn restored(lane: &Lane<'_>, name: &str) -> Result<()> {
    let (old, live) = (format!("{name}-old"), format!("{name}-live"));
    lane.scene
        .ask(&old, &json!({"ttl": "10m", "issuance": {"mode": "Once"}}))
        .await?;
    let revoked = lane.scene.wait_credential(&old).await?;
    let credential = issued(lane, &live).await?;
    let server = lane.scene.server();
    server.back_up().await?;
    lane.ready().await?;
    lane.scene
        .objects
        .delete("DynamicSecret", &lane.scene.shop, &old)
        .await?;
    gone(lane, &revoked.login.user, AUDITED).await?;
    // The account itself may be gone again before anybody looks.
    let since = "after_the_backup";
    let session = server.connect("postgres").await?;
    session.batch_execute(&format!("CREATE TABLE {since} ()")).await?;
    server.restore_backup().await?;
    let session = server.connect("postgres").await?;
    let row = session.query_one("SELECT to_regclass($1) IS NULL", &[&since]).await?;
    ensure!(row.get::<_, bool>(0), "the backup was not restored");
    gone(lane, &revoked.login.user, AUDITED).await?;
    followed(lane, &live, &credential).await
}

/// Another installation on the same server leaves ours alone; so does a copy of ours, which has our keys and not our leases:
/// what it does not know is left to its signed end.
async fn two(lane: &Lane<'_>, name: &str) -> Result<()> {
    let (mine, empty) = (format!("{name}-mine"), format!("{name}-empty"));
    let spec = json!({"ttl": "5m", "issuance": {"mode": "Rotate"}});
    lane.scene.ask(&mine, &spec).await?;
    let credential = lane.scene.wait_credential(&mine).await?;
    // Its group role has no member any more, and is needed again.
    lane.scene
        .ask(&empty, &json!({"ttl": 10, "issuance": {"mode": "Once"}}))
        .await?;
    let over = lane.scene.wait_credential(&empty).await?;
    let other = Stack::start(Shape {
        operator_args: vec!["--audit-every".into(), EVERY.into()],
        node: true,
        ..Shape::default()
    })
    .await?;
    gone(lane, &over.login.user, AUDITED).await?;
    let told = match live_beside(lane, &other, name, &credential).await {
        Ok(()) => {
            copy_keys(lane, &other).await?;
            live_beside(lane, &other, name, &credential).await
        }
        refused => refused,
    };
    other.shut_down();
    told?;
    lane.scene.rotate(&empty, "again").await?;
    let again = lane.scene.wait_serial(&empty, 2).await?;
    lane.scene.use_account(&again.login).await.map(drop)
}

/// A scene of the other installation, on our server. Both audit it for a while, and neither loses what it has.
async fn live_beside(lane: &Lane<'_>, other: &Stack, name: &str, ours: &Credential) -> Result<()> {
    let theirs = Scene::open(other, Some(1)).await?;
    point_to(&theirs, lane).await?;
    let spec = json!({"ttl": "5m", "issuance": {"mode": "Rotate"}});
    theirs.ask(name, &spec).await?;
    let credential = theirs.wait_credential(name).await?;
    let start = Instant::now();
    let mut lived = Ok(());
    while start.elapsed() < ROUNDS && lived.is_ok() {
        for login in [&ours.login, &credential.login] {
            lived = lived.and(lane.scene.use_account(login).await.map(drop));
        }
        sleep(Duration::from_secs(1)).await;
    }
    theirs.objects.delete("DynamicSecret", &theirs.shop, name).await?;
    theirs.wait_absent("DynamicSecret", &theirs.shop, name).await?;
    gone(lane, &credential.login.user, AUDITED).await?;
    lived
}

/// From now on the other installation's base secret leads to our server.
async fn point_to(theirs: &Scene<'_>, lane: &Lane<'_>) -> Result<()> {
    let server: &Server = lane.scene.server();
    let issuer = lane.scene.issuer();
    let data = json!({
        "port": server.port().to_string(), "username": issuer.user, "password": issuer.password,
        "ca.crt": server.authority(),
    });
    let change = json!({ "stringData": data });
    theirs
        .objects
        .merge("Secret", &theirs.databases, BASE_SECRET, &change)
        .await?;
    Ok(())
}

/// What a restore of our installation's backup in another cluster leads to.
async fn copy_keys(lane: &Lane<'_>, other: &Stack) -> Result<()> {
    let from = &lane.scene.objects;
    let to = crate::objects::Objects::new(other.client().await?);
    let operator = other.operators().first().context("the other installation has one")?;
    operator.stop();
    for name in KEYS {
        let key = from.get("Secret", NAMESPACE, name).await?;
        let key = key.with_context(|| format!("our installation has no {name}"))?;
        let data = key.pointer("/data").cloned().unwrap_or(Value::Null);
        let api = to.api("Secret", NAMESPACE)?;
        let mut there = api.get(name).await?;
        if let Some(fields) = there.data.as_object_mut() {
            fields.insert("data".to_owned(), data);
        }
        api.delete(name, &kube::api::DeleteParams::default()).await?;
        for field in [&mut there.metadata.uid, &mut there.metadata.resource_version] {
            *field = None;
        }
        api.create(&kube::api::PostParams::default(), &there).await?;
    }
    operator.restart().await
}
