//! Clocks that are apart. The database's own clock is that of the machine; operator and engines are shifted instead, which
//! is the same seen from them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::sleep;

use super::lane::Lane;
use super::tales::{Tale, tale};

const TTL: Duration = Duration::from_secs(12);
/// How much later than its ttl a Secret may be there, and an account valid.
const GRACE: Duration = Duration::from_secs(2);
/// How soon an operator notices that its clock leapt.
const NOTICED: Duration = Duration::from_secs(2);
const MINUTES: i64 = 300;
const HOUR: i64 = 3600;

pub fn tales() -> Vec<Tale> {
    vec![
        tale!("operator 5 min fast", operator_fast, alone = true),
        tale!("operator 5 min slow", operator_slow, alone = true),
        tale!("engines 5 min fast", engines_fast, alone = true),
        tale!("engines 5 min slow", engines_slow, alone = true),
        tale!("database 5 min fast", database_fast, alone = true),
        tale!("database 5 min slow", database_slow, alone = true),
        tale!("operator leaps an hour ahead", leap_ahead, alone = true),
        tale!("operator leaps an hour back", leap_back, alone = true),
    ]
}

const OPERATORS: [&str; 2] = ["op-1", "op-2"];
const ENGINES: &str = "engines";

fn shift(lane: &Lane<'_>, who: &[&str], seconds: i64) -> Result<()> {
    let wiring = lane.wiring()?;
    who.iter().try_for_each(|clock| wiring.shift_clock(clock, seconds))
}

fn heal(lane: &Lane<'_>) -> Result<()> {
    shift(lane, &[OPERATORS[0], OPERATORS[1], ENGINES], 0)
}

async fn operator_fast(lane: &Lane<'_>, name: &str) -> Result<()> {
    apart(lane, name, &OPERATORS, MINUTES).await
}

async fn operator_slow(lane: &Lane<'_>, name: &str) -> Result<()> {
    apart(lane, name, &OPERATORS, -MINUTES).await
}

async fn engines_fast(lane: &Lane<'_>, name: &str) -> Result<()> {
    apart(lane, name, &[ENGINES], MINUTES).await
}

async fn engines_slow(lane: &Lane<'_>, name: &str) -> Result<()> {
    apart(lane, name, &[ENGINES], -MINUTES).await
}

async fn database_fast(lane: &Lane<'_>, name: &str) -> Result<()> {
    apart(lane, name, &[OPERATORS[0], OPERATORS[1], ENGINES], -MINUTES).await
}

async fn database_slow(lane: &Lane<'_>, name: &str) -> Result<()> {
    apart(lane, name, &[OPERATORS[0], OPERATORS[1], ENGINES], MINUTES).await
}

/// A credential lives its ttl, however far the clocks are apart.
async fn apart(lane: &Lane<'_>, name: &str, who: &[&str], seconds: i64) -> Result<()> {
    shift(lane, who, seconds)?;
    sleep(NOTICED).await;
    let lived = lives(lane, name).await;
    heal(lane)?;
    sleep(NOTICED).await;
    lived
}

async fn lives(lane: &Lane<'_>, name: &str) -> Result<()> {
    let spec = json!({"ttl": TTL.as_secs(), "issuance": {"mode": "Once"}});
    lane.scene.ask(name, &spec).await?;
    let credential = lane.scene.wait_credential(name).await?;
    let issued = Instant::now();
    let superuser = lane.scene.server().connect("postgres").await?;
    let query = "SELECT extract(epoch FROM rolvaliduntil - clock_timestamp())::float8 FROM pg_roles WHERE rolname = $1";
    let valid: f64 = superuser.query_one(query, &[&credential.login.user]).await?.get(0);
    let longest = (TTL + GRACE).as_secs_f64();
    ensure!(
        valid > 1.0 && valid <= longest,
        "by the database's clock the account is valid for {valid} s, and its ttl is {TTL:?}"
    );
    lane.scene.use_account(&credential.login).await?;
    sleep((TTL + GRACE).saturating_sub(issued.elapsed())).await;
    ensure!(
        lane.scene.credential(name).await?.is_none(),
        "the Secret is there {GRACE:?} after its time"
    );
    let rows = superuser
        .query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&credential.login.user])
        .await?;
    ensure!(rows.is_empty(), "the role is there {GRACE:?} after its time");
    Ok(())
}

/// A leap ends what is then over, at once; nothing is issued twice for it.
async fn leap_ahead(lane: &Lane<'_>, name: &str) -> Result<()> {
    lane.scene
        .ask(name, &json!({"ttl": "10m", "issuance": {"mode": "Once"}}))
        .await?;
    let credential = lane.scene.wait_credential(name).await?;
    shift(lane, &OPERATORS, HOUR)?;
    lane.scene.rotate(name, "after-the-leap").await?;
    let leapt = lane.scene.wait_serial(name, 2).await;
    heal(lane)?;
    leapt.context("no other credential after the leap")?;
    ensure!(
        lane.scene.accounts(name).await?.len() <= 2,
        "more than two accounts after a leap of the clock"
    );
    drop(credential);
    Ok(())
}

/// The database's clock ends logins though the operator's says that there is an hour left.
async fn leap_back(lane: &Lane<'_>, name: &str) -> Result<()> {
    let spec = json!({"ttl": TTL.as_secs(), "issuance": {"mode": "Once"}});
    lane.scene.ask(name, &spec).await?;
    let credential = lane.scene.wait_credential(name).await?;
    shift(lane, &OPERATORS, -HOUR)?;
    sleep(TTL + GRACE).await;
    let session = lane.scene.log_in(&credential.login).await;
    heal(lane)?;
    ensure!(
        session.is_err(),
        "the account can log in after its time, since the operator's clock leapt back"
    );
    Ok(())
}
