//! What people do to a live credential, and to everything it hangs on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use postgres_protocol::escape::escape_identifier;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use super::lane::Lane;
use super::tales::{Tale, tale};
use crate::objects::{condition, text};
use crate::sample::{BASE_SECRET, ORDERS};
use crate::say::say;
use crate::scene::{Credential, Scene};

/// How long an account may be there after the books lost it: its time, and one round of the audit.
const AUDITED: Duration = Duration::from_secs(90);
/// How soon after a restore expired Secrets that came back are gone.
const RESTORED: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(45);

pub fn tales() -> Vec<Tale> {
    vec![
        tale!("credential Secret deleted by hand", secret_deleted),
        tale!("credential Secret edited by hand", secret_edited),
        tale!("foreign Secret in the way", foreign_secret),
        tale!("base secret deleted while leases live", base_deleted, alone = true),
        tale!(
            "base secret relabelled while leases live",
            base_relabelled,
            alone = true
        ),
        tale!("base secret repointed while leases live", base_repointed, alone = true),
        tale!("lease's finalizer removed by hand", finalizer_removed, alone = true),
        tale!("role dropped by hand", role_dropped),
        tale!("role renamed by hand", role_renamed),
        tale!("role unlocked and given a password by hand", role_unlocked),
        tale!("etcd restored from an older backup", etcd_restored, alone = true),
        tale!(
            "everything deleted at once, in any order",
            everything_deleted,
            alone = true
        ),
    ]
}

fn rotating() -> Value {
    json!({"ttl": 16, "issuance": {"mode": "Rotate", "renewBefore": 5, "overlap": 1}})
}

pub async fn issued(lane: &Lane<'_>, name: &str) -> Result<Credential> {
    lane.scene.ask(name, &rotating()).await?;
    lane.scene.wait_credential(name).await
}

pub async fn followed(lane: &Lane<'_>, name: &str, old: &Credential) -> Result<()> {
    let new = lane.scene.wait_serial(name, old.serial + 1).await?;
    lane.scene.use_account(&new.login).await?;
    gone(lane, &old.login.user, PATIENCE).await
}

/// Waits until a role is gone, asking by a session of its own.
pub async fn gone(lane: &Lane<'_>, role: &str, limit: Duration) -> Result<()> {
    let administrator = lane.scene.server().connect("postgres").await?;
    let check = || async {
        let rows = administrator
            .query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])
            .await?;
        Ok(rows.is_empty().then_some(()))
    };
    lane.stack
        .eventually(&format!("the role {role} is gone"), limit, check)
        .await
}

async fn secret_deleted(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    lane.scene.objects.delete("Secret", &lane.scene.shop, name).await?;
    followed(lane, name, &credential).await
}

async fn secret_edited(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    let edit = json!({"stringData": {"password": "mine"}});
    lane.scene
        .objects
        .merge("Secret", &lane.scene.shop, name, &edit)
        .await?;
    followed(lane, name, &credential).await
}

async fn foreign_secret(lane: &Lane<'_>, name: &str) -> Result<()> {
    let shop = &*lane.scene.shop;
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": shop}, "stringData": {"mine": "untouched"},
    });
    let made = lane.scene.objects.create(&foreign).await?;
    lane.scene.ask(name, &rotating()).await?;
    lane.scene.wait_ready(name, "False/TargetNotOurs").await?;
    let now = lane.scene.objects.get("Secret", shop, name).await?;
    let now = now.context("the foreign Secret is gone")?;
    ensure!(
        text(&now, "/metadata/resourceVersion") == text(&made, "/metadata/resourceVersion"),
        "the foreign Secret was written"
    );
    lane.scene.objects.delete("Secret", shop, name).await?;
    lane.scene.wait_credential(name).await.map(drop)
}

/// Deletes the dynamic secret and waits for the account to go, while something is as it should not be.
async fn delete_and_wait(lane: &Lane<'_>, name: &str, credential: &Credential) -> Result<()> {
    lane.scene
        .objects
        .delete("DynamicSecret", &lane.scene.shop, name)
        .await?;
    gone(lane, &credential.login.user, PATIENCE).await
}

async fn base_deleted(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    let (objects, home) = (&lane.scene.objects, &*lane.scene.databases);
    let base = objects
        .get("Secret", home, BASE_SECRET)
        .await?
        .context("no base secret")?;
    objects.delete("Secret", home, BASE_SECRET).await?;
    let ended = delete_and_wait(lane, name, &credential).await;
    objects.create(&anew(base)).await?;
    ended
}

/// The same object, to be made again.
fn anew(mut object: Value) -> Value {
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.remove(field);
        }
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("kind".to_owned(), json!("Secret"));
        fields.insert("apiVersion".to_owned(), json!("v1"));
    }
    object
}

async fn base_relabelled(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    let (objects, home) = (&lane.scene.objects, &*lane.scene.databases);
    let off = json!({"metadata": {"labels": {"dsv.dev/type": null}}});
    objects.merge("Secret", home, BASE_SECRET, &off).await?;
    let ended = delete_and_wait(lane, name, &credential).await;
    let on = json!({"metadata": {"labels": {"dsv.dev/type": "postgresql"}}});
    objects.merge("Secret", home, BASE_SECRET, &on).await?;
    ended
}

async fn base_repointed(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    let (objects, home) = (&lane.scene.objects, &*lane.scene.databases);
    let base = lane.scene.base_secret(BASE_SECRET);
    let elsewhere = crate::ports::free()?.to_string();
    let change = json!({"stringData": {"port": elsewhere}});
    objects.merge("Secret", home, BASE_SECRET, &change).await?;
    let ended = delete_and_wait(lane, name, &credential).await;
    let back = json!({"stringData": {"port": text(&base, "/stringData/port")}});
    objects.merge("Secret", home, BASE_SECRET, &back).await?;
    ended
}

async fn finalizer_removed(lane: &Lane<'_>, name: &str) -> Result<()> {
    lane.scene
        .ask(name, &json!({"ttl": 15, "issuance": {"mode": "Once"}}))
        .await?;
    let credential = lane.scene.wait_credential(name).await?;
    // Nobody is there to see it: with the operators running, it is put back on before the deletion.
    for operator in lane.stack.operators() {
        operator.kill9();
    }
    let (objects, shop) = (&lane.scene.objects, &*lane.scene.shop);
    objects.delete("CredentialLease", shop, &credential.lease).await?;
    let none = json!({"metadata": {"finalizers": null}});
    objects.merge("CredentialLease", shop, &credential.lease, &none).await?;
    lane.ready().await?;
    gone(lane, &credential.login.user, AUDITED).await
}

async fn by_hand(lane: &Lane<'_>, sql: &str) -> Result<()> {
    let superuser = lane.scene.server().connect("postgres").await?;
    superuser.batch_execute(sql).await.with_context(|| sql.to_owned())
}

async fn role_dropped(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    by_hand(
        lane,
        &format!("DROP ROLE {}", escape_identifier(&credential.login.user)),
    )
    .await
}

async fn role_renamed(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    let user = &credential.login.user;
    // Its lease's UID stays in the comment only.
    let other = format!("renamed_{name}");
    let rename = format!(
        "ALTER ROLE {} RENAME TO {}",
        escape_identifier(user),
        escape_identifier(&other)
    );
    by_hand(lane, &rename).await?;
    lane.scene
        .objects
        .delete("DynamicSecret", &lane.scene.shop, name)
        .await?;
    gone(lane, &other, AUDITED).await
}

async fn role_unlocked(lane: &Lane<'_>, name: &str) -> Result<()> {
    let credential = issued(lane, name).await?;
    let user = escape_identifier(&credential.login.user);
    by_hand(
        lane,
        &format!("ALTER ROLE {user} VALID UNTIL 'infinity' PASSWORD 'known' CONNECTION LIMIT -1"),
    )
    .await?;
    delete_and_wait(lane, name, &credential).await
}

/// Books of before: an account made since is on none of them and ends at its signed end; one that ended since is on them
/// again, and its Secret with it, which goes within a minute.
async fn etcd_restored(lane: &Lane<'_>, name: &str) -> Result<()> {
    let plane = lane
        .stack
        .cluster()
        .control_plane()
        .context("the cluster is somebody else's")?;
    let old = format!("{name}-old");
    lane.scene
        .ask(&old, &json!({"ttl": 12, "issuance": {"mode": "Once"}}))
        .await?;
    let ended = lane.scene.wait_credential(&old).await?;
    let backup = lane.stack.run().subfolder("etcd-backup")?;
    plane.back_up(&backup).await?;
    lane.ready().await?;
    let new = format!("{name}-new");
    lane.scene
        .ask(&new, &json!({"ttl": 40, "issuance": {"mode": "Once"}}))
        .await?;
    let unknown = lane.scene.wait_credential(&new).await?;
    gone(lane, &ended.login.user, PATIENCE).await?;
    for operator in lane.stack.operators() {
        operator.kill9();
    }
    plane.restore(&backup).await?;
    let restored = Instant::now();
    lane.ready().await?;
    let check = || async { Ok(lane.scene.credential(&old).await?.is_none().then_some(())) };
    let what = "an expired Secret that came back is deleted within a minute";
    lane.stack.eventually(what, RESTORED, check).await?;
    say(format!(
        "the Secret that came back was gone after {:?}",
        restored.elapsed()
    ));
    let left = lane.scene.use_account(&unknown.login).await;
    left.context("the unknown account was not left to its end")?;
    gone(lane, &unknown.login.user, AUDITED).await
}

/// A scene of its own: dynamic secrets, pool and both namespaces go at once, while the engines are killed.
async fn everything_deleted(lane: &Lane<'_>, name: &str) -> Result<()> {
    let scene = Scene::open(lane.stack, Some(1)).await?;
    for letter in ["a", "b", "c"] {
        scene.ask(&format!("{name}{letter}"), &rotating()).await?;
    }
    for letter in ["a", "b", "c"] {
        scene.wait_credential(&format!("{name}{letter}")).await?;
    }
    let (shop, databases) = (scene.shop.to_owned(), scene.databases.to_owned());
    let mut all = vec![
        ("Namespace", String::new(), shop.clone()),
        ("Namespace", String::new(), databases.clone()),
        ("EnginePool", databases.clone(), ORDERS.to_owned()),
        ("Secret", databases.clone(), BASE_SECRET.to_owned()),
        ("DynamicSecret", shop.clone(), format!("{name}a")),
    ];
    all.shuffle(&mut rand::rng());
    for (kind, namespace, object) in &all {
        scene.objects.delete(kind, namespace, object).await?;
    }
    lane.stack
        .runner()
        .context("a lane has engines")?
        .signal(Signal::SIGKILL)?;
    for namespace in [&shop, &databases] {
        let check = || async {
            let found = scene.objects.get("Namespace", "", namespace).await?;
            if let Some(found) = &found {
                anyhow::bail!("{}", condition(found, "NamespaceContentRemaining"));
            }
            Ok(Some(()))
        };
        let what = format!("namespace {namespace} is gone, after {all:?} were deleted");
        lane.stack.eventually(&what, AUDITED, check).await?;
    }
    ensure!(
        scene.all_accounts().await?.is_empty(),
        "there are accounts without a namespace"
    );
    Ok(())
}
