//! Faults that break what a lane cannot be mended of: each has a stack of its own, and the same judge.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use serde_json::json;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::judge::{self, Before};
use super::lane::Lane;
use super::tales::{Tale, tale};
use crate::install;
use crate::objects::text;
use crate::places;
use crate::postgres::{Options, Tls};
use crate::process::{Process, Spec};
use crate::scene::Scene;
use crate::stack::{Shape, Stack};

/// What PostgreSQL needs when it is empty, and a few dozen MiB.
const DISK_MIB: u32 = 144;
/// How soon after everything is mended and deleted nothing is left; a proof of absence takes as long as a credential lives.
const CLEAN: Duration = Duration::from_secs(90);
/// How long a definition takes to go, with accounts that have to go before.
const DEFINITION_GOES: Duration = Duration::from_secs(90);
const ENGINES: &str = "engines.dsv.dev";
const UNINSTALL_LIMIT: &str = "150";
const POLL: Duration = Duration::from_millis(500);

/// What happens on a scene of that stack.
pub type Tell = for<'t> fn(&'t Scene<'t>) -> BoxFuture<'t, Result<()>>;

pub fn tales() -> Vec<Tale> {
    vec![
        tale!(
            "disk full on CREATE, and until the server gives up",
            disk_full,
            alone = true
        ),
        tale!("each definition deleted while leases live", definitions, alone = true),
        tale!("uninstalled while leases live", uninstalled, alone = true),
    ]
}

pub fn shape(lane: &Lane<'_>, disk_mib: Option<u32>) -> Shape {
    // Segments of the log are given back soon: what is free is filled by the test alone.
    let small = [("min_wal_size", "32MB"), ("max_wal_size", "48MB")];
    Shape {
        postgres: lane.stack.postgres().major(),
        options: Options {
            tls: Tls::Required,
            settings: small.map(|(name, value)| (name.into(), value.into())).to_vec(),
            disk_mib,
        },
        node: true,
        ..Shape::default()
    }
}

/// Tells these one after the other, each on a scene of its own, and fails with whatever they have left in the database or in
/// the cluster.
pub async fn judged(stack: &Stack, tales: &[Tell]) -> Result<()> {
    let mut scenes = Vec::new();
    let mut before = None;
    for tell in tales {
        let scene = Scene::open(stack, Some(1)).await?;
        if before.is_none() {
            before = Some(Before::look(&scene).await?);
        }
        tell(&scene).await?;
        ask_no_more(&scene).await?;
        scenes.push(scene);
    }
    let before = before.context("there is nothing to tell")?;
    let start = Instant::now();
    for scene in &scenes {
        loop {
            let found = before.left(scene).await?;
            if found.is_clean() {
                break;
            }
            if found.is_harmless() {
                // What is in the middle of a handover is refused; then the next look does it.
                let _ = judge::drop_kept(scene).await;
            }
            if start.elapsed() > CLEAN {
                let left = before.all_left(scene).await?;
                bail!("left behind: {left:?}; {}", stack.report("something is left"));
            }
            sleep(POLL).await;
        }
    }
    Ok(())
}

async fn ask_no_more(scene: &Scene<'_>) -> Result<()> {
    for object in scene.objects.list("DynamicSecret", &scene.shop).await? {
        let name = text(&object, "/metadata/name");
        scene.objects.delete("DynamicSecret", &scene.shop, &name).await?;
    }
    Ok(())
}

async fn disk_full(lane: &Lane<'_>, _: &str) -> Result<()> {
    let stack = Stack::start(shape(lane, Some(DISK_MIB))).await?;
    let told = judged(&stack, &[|scene| Box::pin(fill(scene))]).await;
    stack.shut_down();
    told
}

/// First no account can be added, then the server cannot write its log and ends, as it does when nobody looks after it.
async fn fill(scene: &Scene<'_>) -> Result<()> {
    let live = json!({"ttl": "10m", "issuance": {"mode": "Once"}});
    scene.ask("lives", &live).await?;
    scene
        .ask("ends", &json!({"ttl": 12, "issuance": {"mode": "Once"}}))
        .await?;
    let lives = scene.wait_credential("lives").await?;
    let ends = scene.wait_credential("ends").await?;
    let server = scene.server();
    server.fill_disk()?;
    take_the_rest(scene).await?;
    scene.ask("waits", &live).await?;
    let said = scene.wait_ready("waits", "False/DatabaseBusy").await;
    scene.use_account(&lives.login).await?;
    // What was asked for meanwhile is neither there nor forgotten.
    ensure!(
        scene.credential("waits").await?.is_none(),
        "a Secret without an account"
    );
    let wrote = flood(scene).await;
    ensure!(wrote.is_err(), "the log was written on a full disk");
    sleep(Duration::from_secs(5)).await;
    server.free_disk()?;
    server.restart().await?;
    forget_the_rest(scene).await?;
    said?;
    let came = scene.wait_credential("waits").await?;
    scene.use_account(&came.login).await?;
    scene.use_account(&lives.login).await?;
    let session = server.connect("postgres").await?;
    let gone = || async {
        let found = session
            .query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&ends.login.user])
            .await?;
        Ok(found.is_empty().then_some(()))
    };
    scene
        .stack
        .eventually("what ended meanwhile is gone", CLEAN, gone)
        .await
}

/// Makes roles until there is no place for one more on the pages that the catalog has already.
async fn take_the_rest(scene: &Scene<'_>) -> Result<()> {
    for number in 0..10_000 {
        let made = scene
            .administrator()
            .batch_execute(&format!("CREATE ROLE filler_{number} PASSWORD NULL"))
            .await;
        match made {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::DISK_FULL) => return Ok(()),
            Err(error) => return Err(error).context("the disk is not full, something else is wrong"),
        }
    }
    bail!("10000 roles found room on a full disk")
}

async fn forget_the_rest(scene: &Scene<'_>) -> Result<()> {
    let session = scene.server().connect("postgres").await?;
    let drop_all = "DO $$ DECLARE f name; BEGIN FOR f IN SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'filler_') \
        LOOP EXECUTE format('DROP ROLE %I', f); END LOOP; END $$";
    Ok(session.batch_execute(drop_all).await?)
}

/// Writes more log than there are segments for.
async fn flood(scene: &Scene<'_>) -> Result<()> {
    let write = "SELECT pg_logical_emit_message(false, 'flood', repeat('x', 1000000)) FROM generate_series(1, 100)";
    Ok(scene.administrator().batch_execute(write).await?)
}

async fn definitions(lane: &Lane<'_>, _: &str) -> Result<()> {
    let stack = Stack::start(shape(lane, None)).await?;
    let tales: [Tell; 4] = [
        |scene| Box::pin(deleted(scene, "dynamicsecrets.dsv.dev")),
        |scene| Box::pin(deleted(scene, "credentialleases.dsv.dev")),
        |scene| Box::pin(deleted(scene, ENGINES)),
        |scene| Box::pin(deleted(scene, "enginepools.dsv.dev")),
    ];
    let told = judged(&stack, &tales).await;
    stack.shut_down();
    told
}

/// Deleted while the operator is away, which comes back and lets it go when no account needs it; then it is installed again.
async fn deleted(scene: &Scene<'_>, definition: &str) -> Result<()> {
    for (name, mode) in [("once", "Once"), ("rotates", "Rotate")] {
        // A pool goes when the last credential has ended, and lets no other be issued.
        let spec = json!({"ttl": 30, "issuance": {"mode": mode}});
        scene.ask(name, &spec).await?;
    }
    let once = scene.wait_credential("once").await?;
    let rotates = scene.wait_credential("rotates").await?;
    let _session = scene.log_in(&once.login).await?;
    let operator = scene.stack.operators().first().context("the stack has an operator")?;
    operator.stop();
    let kind = "CustomResourceDefinition";
    scene.objects.delete(kind, "", definition).await?;
    operator.restart().await?;
    if definition == ENGINES {
        // The last engine stays for as long as an account needs somebody to take it back.
        ask_no_more(scene).await?;
    }
    let absent = || async { Ok(scene.objects.get(kind, "", definition).await?.is_none().then_some(())) };
    let what = format!("the definition {definition} is gone");
    let went = scene.stack.eventually(&what, DEFINITION_GOES, absent).await;
    // Others need it, whatever became of this one.
    install::install(scene.stack.cluster()).await?;
    went.with_context(|| format!("{definition} was deleted with {} alive", rotates.login.user))
}

async fn uninstalled(lane: &Lane<'_>, _: &str) -> Result<()> {
    let stack = Stack::start(shape(lane, None)).await?;
    let told = judged(&stack, &[|scene| Box::pin(uninstall(scene))]).await;
    stack.shut_down();
    told
}

async fn uninstall(scene: &Scene<'_>) -> Result<()> {
    for (name, mode) in [("once", "Once"), ("rotates", "Rotate")] {
        let spec = json!({"ttl": "10m", "issuance": {"mode": mode}});
        scene.ask(name, &spec).await?;
    }
    let once = scene.wait_credential("once").await?;
    scene.wait_credential("rotates").await?;
    let mut session = scene.log_in(&once.login).await?;
    let _open = session.transaction().await?;
    let stack = scene.stack;
    let program = places::own_program("dsv-operator")?;
    let spec = Spec::new("uninstall", program, &stack.run().subfolder("uninstall")?)
        .args(["uninstall", "--timeout", UNINSTALL_LIMIT])
        .env("KUBECONFIG", stack.cluster().kubeconfig().display().to_string());
    tokio::task::spawn_blocking(move || Process::run(&spec)).await??;
    for kind in [
        "DynamicSecret",
        "CredentialLease",
        "Engine",
        "EnginePool",
        "SecretSync",
        "DsvTenant",
    ] {
        let left = scene.objects.list(kind, "").await?;
        ensure!(left.is_empty(), "{kind} left after the uninstall: {left:?}");
    }
    Ok(())
}
