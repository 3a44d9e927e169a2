//! Use and breakage at random: some do what users do, another breaks what can be broken. Then both stop, everything heals and
//! is deleted, and the judge counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_postgres::Client;

use super::blows::Blow;
use super::judge::{Before, Left};
use super::lane::{self, Lane};
use crate::objects::text;
use crate::postgres::Major;
use crate::sample::{self, ORDERS};
use crate::say::say;
use crate::scene::merge;

/// Dynamic secrets that come and go.
const CROWD: usize = 50;
/// Databases, all on one server; each has a base secret of its own.
const DATABASES: [&str; 3] = [ORDERS, "invoices", "parcels"];
/// Users that act at once.
const USERS: usize = 6;
/// Sessions that one user holds at most.
const HELD: usize = 4;
/// No credential lives longer than this: it bounds how long a proof of absence may take at the end.
const LONGEST: u64 = 40;
/// How long after the end, healed and deleted, nothing is left.
const CLEAN_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(250);

/// What was done, and what is left of it.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub operations: BTreeMap<&'static str, u64>,
    pub refused: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub left: Left,
    pub doubled: usize,
    pub clean: Option<Duration>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.left.is_clean() && self.doubled == 0
    }

    /// What people read.
    pub fn text(&self) -> String {
        let list = |counts: &BTreeMap<&'static str, u64>| {
            let lines: Vec<String> = counts
                .iter()
                .map(|(what, count)| format!("  {count:5} {what}"))
                .collect();
            lines.join("\n")
        };
        let clean = self.clean.map_or_else(
            || format!("not clean after {CLEAN_LIMIT:?}: {:?}", self.left),
            |took| format!("clean {:.1} s after everything was deleted", took.as_secs_f64()),
        );
        format!(
            "operations ({} of them refused)\n{}\nfaults\n{}\n{clean}\nseed {}\n{} operations, {} faults, {} accounts left, {} doubled, \
             {} leases left, {} Secrets left, {} sessions left",
            self.refused,
            list(&self.operations),
            list(&self.faults),
            self.seed,
            self.operations.values().sum::<u64>(),
            self.faults.values().sum::<u64>(),
            self.left.accounts.len(),
            self.doubled,
            self.left.leases.len(),
            self.left.secrets.len(),
            self.left.sessions.len(),
        )
    }
}

/// Does so for this long.
pub async fn run(major: Major, time: Duration, seed: u64) -> Result<Report> {
    let stack = lane::stack(major).await?;
    let lane = Lane::open(&stack).await?;
    prepare(&lane).await?;
    let before = Before::look(&lane.scene).await?;
    say(format!("torture on PostgreSQL {major} for {time:?}, seed {seed}"));
    let world = World {
        lane: &lane,
        stop: AtomicBool::new(false),
        refused: AtomicU64::new(0),
    };
    let mut report = Report {
        seed,
        ..Report::default()
    };
    let users = futures::future::join_all((0..USERS).map(|number| use_it(&world, seed, number)));
    let clock = async {
        sleep(time).await;
        world.stop.store(true, Ordering::Relaxed);
    };
    let (done, faults, ()) = futures::join!(users, break_it(&world, seed), clock);
    report.faults = faults?;
    for operations in done {
        for (what, count) in operations {
            *report.operations.entry(what).or_default() += count;
        }
    }
    report.refused = world.refused.load(Ordering::Relaxed);
    say("everything heals, and everything is deleted");
    lane.ready().await.context("after the torture")?;
    report.doubled = doubled(&lane, &before).await?;
    finish(&lane, &before, &mut report).await?;
    drop(lane);
    stack.shut_down();
    Ok(report)
}

/// The other databases, and a pool that may use all of them.
async fn prepare(lane: &Lane<'_>) -> Result<()> {
    let scene = &lane.scene;
    let (mut linked, mut grants) = (Vec::new(), Vec::new());
    for database in DATABASES {
        if database != ORDERS {
            sample::add(scene.server(), scene.issuer(), database).await?;
            let mut base = scene.base_secret(&base_of(database));
            merge(&mut base, &json!({"stringData": {"database": database}}));
            scene.objects.create(&base).await?;
        }
        linked.push(base_of(database));
        grants.push(json!({"what": "SELECT, INSERT, UPDATE, DELETE", "where": format!("{database}.public.*")}));
    }
    let mut access = scene.access();
    merge(&mut access, &json!({"linkedSecrets": linked, "grants": grants}));
    let patch = json!({"spec": {"access": [access]}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, ORDERS, &patch)
        .await?;
    Ok(())
}

fn base_of(database: &str) -> String {
    if database == ORDERS {
        sample::BASE_SECRET.to_owned()
    } else {
        format!("{database}-db")
    }
}

struct World<'a> {
    lane: &'a Lane<'a>,
    stop: AtomicBool,
    /// Operations that failed, as they may while things are broken.
    refused: AtomicU64,
}

impl World<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// What one user does, until it is time to stop.
async fn use_it(world: &World<'_>, seed: u64, number: usize) -> BTreeMap<&'static str, u64> {
    let mut dice = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64));
    let mut done = BTreeMap::new();
    let mut sessions: Vec<Client> = Vec::new();
    while world.goes_on() {
        let name = format!("q{:02}", dice.random_range(0..CROWD));
        let (what, result) = act(world, &mut dice, &name, &mut sessions).await;
        *done.entry(what).or_default() += 1;
        if result.is_err() {
            world.refused.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(dice.random_range(20..400))).await;
    }
    done
}

async fn act(
    world: &World<'_>,
    dice: &mut StdRng,
    name: &str,
    sessions: &mut Vec<Client>,
) -> (&'static str, Result<()>) {
    let scene = &world.lane.scene;
    match dice.random_range(0..100) {
        0..35 => {
            let spec = spec(dice);
            ("create", scene.ask(name, &spec).await.map(drop))
        }
        35..50 => ("delete", scene.objects.delete("DynamicSecret", &scene.shop, name).await),
        50..62 => {
            let value = dice.random::<u32>().to_string();
            ("rotate", scene.rotate(name, &value).await.map(drop))
        }
        62..70 => {
            let change = json!({"ttl": dice.random_range(10..LONGEST)});
            ("change the ttl", scene.change(name, &change).await.map(drop))
        }
        70..74 => {
            let what = ["SELECT", "SELECT, INSERT", "SELECT, UPDATE"]
                .choose(dice)
                .copied()
                .unwrap_or("SELECT");
            let change = json!({"grantPermissions": {"what": what}});
            ("change the grants", scene.change(name, &change).await.map(drop))
        }
        74..77 => (
            "delete the Secret",
            scene.objects.delete("Secret", &scene.shop, name).await,
        ),
        77..80 => {
            let edit = json!({"stringData": {"password": "edited"}});
            (
                "edit the Secret",
                scene.objects.merge("Secret", &scene.shop, name, &edit).await.map(drop),
            )
        }
        80..92 => ("log in", log_in(world, name, "SELECT 1", None).await),
        92..96 => {
            sessions.truncate(HELD - 1);
            (
                "hold a session",
                log_in(world, name, "BEGIN; SELECT 1", Some(sessions)).await,
            )
        }
        _ => {
            sessions.truncate(HELD - 1);
            let sql = "CREATE TEMP TABLE mine AS SELECT 1 AS n";
            ("create a table", log_in(world, name, sql, Some(sessions)).await)
        }
    }
}

fn spec(dice: &mut StdRng) -> Value {
    let database = DATABASES.choose(dice).copied().unwrap_or(ORDERS);
    let mode = ["Once", "Rotate", "Rotate"].choose(dice).copied().unwrap_or("Once");
    json!({
        "ttl": dice.random_range(10..LONGEST),
        "linkConfig": {"linkedSecret": base_of(database)},
        "grantPermissions": {"where": "public.orders"},
        "issuance": {"mode": mode, "overlap": 1},
    })
}

/// With what the Secret holds, if it holds anything.
async fn log_in(world: &World<'_>, name: &str, sql: &str, keep: Option<&mut Vec<Client>>) -> Result<()> {
    let scene = &world.lane.scene;
    let Some(credential) = scene.credential(name).await? else {
        return Ok(());
    };
    let session = scene
        .server()
        .connect_as(&credential.login, &credential.value("database")?)
        .await?;
    session.batch_execute(sql).await?;
    if let Some(sessions) = keep {
        sessions.insert(0, session);
    }
    Ok(())
}

/// Breaks one thing after the other, each for a while, with pauses in which things may recover or not.
async fn break_it(world: &World<'_>, seed: u64) -> Result<BTreeMap<&'static str, u64>> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut done = BTreeMap::new();
    let all = Blow::all();
    while world.goes_on() {
        sleep(Duration::from_millis(dice.random_range(500..4000))).await;
        let Some(blow) = all.choose(&mut dice) else { break };
        let lasts = blow.lasts().mul_f64(dice.random_range(0.1..0.7));
        // A fault that cannot be struck, since there is no leader or the server is down, is none.
        if blow.strike(world.lane).await.is_ok() {
            *done.entry(blow.name()).or_default() += 1;
            sleep(lasts).await;
        }
        let mut tries = 0;
        while let Err(error) = blow.heal(world.lane).await {
            tries += 1;
            ensure!(tries < 20, "{} does not heal: {error:#}", blow.name());
            sleep(POLL).await;
        }
        // A kubelet starts again what died, soon but not at once.
        sleep(Duration::from_millis(dice.random_range(0..2000))).await;
        for operator in world.lane.stack.operators() {
            operator.launch()?;
        }
    }
    Blow::clear(world.lane)?;
    world
        .lane
        .stack
        .runner()
        .context("a lane has engines")?
        .signal(Signal::SIGCONT)?;
    Ok(done)
}

/// Accounts beyond one for each dynamic secret, after overlaps are over.
async fn doubled(lane: &Lane<'_>, before: &Before) -> Result<usize> {
    let start = Instant::now();
    loop {
        let mut doubled = 0;
        for number in 0..CROWD {
            let accounts = before.accounts_of(&lane.scene, &format!("_q{number:02}_")).await?;
            doubled += accounts.len().saturating_sub(1);
        }
        if doubled == 0 || start.elapsed() > CLEAN_LIMIT / 2 {
            return Ok(doubled);
        }
        sleep(POLL).await;
    }
}

async fn finish(lane: &Lane<'_>, before: &Before, report: &mut Report) -> Result<()> {
    let scene = &lane.scene;
    for object in scene.objects.list("DynamicSecret", &scene.shop).await? {
        let name = text(&object, "/metadata/name");
        scene.objects.delete("DynamicSecret", &scene.shop, &name).await?;
    }
    let start = Instant::now();
    loop {
        report.left = before.left(scene).await?;
        if report.left.is_clean() {
            report.clean = Some(start.elapsed());
            return Ok(());
        }
        if start.elapsed() > CLEAN_LIMIT {
            report.left = before.all_left(scene).await?;
            return Ok(());
        }
        sleep(POLL).await;
    }
}
