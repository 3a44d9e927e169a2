//! One credential from issue to revocation, on real parts, in a cluster that comes and goes with the demo.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use comfy_table::{Table, presets};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::places;
use crate::postgres::{Login, Major};
use crate::sample;
use crate::say::say;
use crate::stack::{Shape, Stack};

const SHOP: &str = "shop";
const NAME: &str = "orders-app";
const TTL: Duration = Duration::from_secs(20);
const ISSUE_LIMIT: Duration = Duration::from_secs(30);
/// How late after the end of the lease everything must be gone; well above what it takes, below what a person waits.
const REVOKE_LIMIT: Duration = Duration::from_secs(15);

/// Stage after stage with its seconds.
struct Stages(Vec<(&'static str, Duration, String)>);

impl Stages {
    fn done(&mut self, name: &'static str, since: Instant, note: impl Into<String>) {
        let (took, note) = (since.elapsed(), note.into());
        say(format!("{name}: {note} ({:.2} s)", took.as_secs_f64()));
        self.0.push((name, took, note));
    }

    fn print(&self) -> Result<()> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(["STAGE", "SECONDS", "SEEN"]);
        for (name, took, note) in &self.0 {
            table.add_row([(*name).to_owned(), format!("{:.2}", took.as_secs_f64()), note.clone()]);
        }
        Ok(writeln!(std::io::stdout(), "\n{table}")?)
    }
}

/// Runs the demo; everything it started is gone afterwards, however it ends.
pub async fn run(major: Option<Major>) -> Result<()> {
    for program in ["dsv-operator", "dsv-engine"] {
        places::own_program(program)?;
    }
    let mut stages = Stages(Vec::new());
    let start = Instant::now();
    let shape = Shape {
        node: true,
        postgres: major.unwrap_or_else(Major::of_this_machine),
        ..Shape::default()
    };
    let stack = Stack::start(shape).await?;
    stages.done(
        "start",
        start,
        format!("Kubernetes, PostgreSQL {}, operator", stack.postgres().major()),
    );
    let told = tell(&stack, &mut stages).await;
    if told.is_err() {
        say(stack.report("demo"));
    }
    stages.print()?;
    stack.shut_down();
    told
}

async fn tell(stack: &Stack, stages: &mut Stages) -> Result<()> {
    ask(stack)?;
    let asked = Instant::now();
    let secrets = Api::<Secret>::namespaced(stack.client().await?, SHOP);
    let wait = || async { Ok(secrets.get_opt(NAME).await?.and_then(|secret| secret.data)) };
    let data = stack
        .eventually("the Secret orders-app appears", ISSUE_LIMIT, wait)
        .await?;
    let text = |key: &str| -> Result<String> {
        let value = data
            .get(key)
            .with_context(|| format!("the Secret lacks the key {key}"))?;
        Ok(String::from_utf8(value.0.clone())?)
    };
    let login = Login {
        user: text("username")?,
        password: text("password")?,
    };
    stages.done(
        "issue",
        asked,
        format!("the Secret {NAME} holds the account {}", login.user),
    );

    let start = Instant::now();
    let session = use_account(stack, &login).await?;
    stages.done("use", start, "SELECT works; DELETE and CREATE TABLE are refused");
    say(format!(
        "$ kubectl get dsv -A\n{}",
        stack.kubectl(&["get", "dsv", "-A"])?
    ));

    tokio::time::sleep(TTL.saturating_sub(asked.elapsed())).await;
    let start = Instant::now();
    gone(stack, &secrets, &login, &session).await?;
    stages.done(
        "revoke",
        start,
        "at the TTL: Secret gone, session ended, login refused, role dropped",
    );
    Ok(())
}

/// What a platform team and an application team write.
fn ask(stack: &Stack) -> Result<()> {
    let none = BTreeMap::new();
    stack.cluster().apply(&sample::list(&[
        sample::namespace(sample::DATABASES, &none),
        sample::namespace(SHOP, &BTreeMap::from([("team", "shop")])),
    ]))?;
    stack.sample(sample::DATABASES, Some(2))?;
    stack.apply(&json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": "DynamicSecret",
        "metadata": {"name": NAME, "namespace": SHOP},
        "spec": {
            "pool": {"name": sample::ORDERS, "namespace": sample::DATABASES},
            "linkConfig": {"linkType": "dynamic", "linkedSecret": sample::BASE_SECRET},
            "grantPermissions": {"what": "SELECT", "where": "orders.public.orders"},
            "userPrefix": "shop_",
            "ttl": TTL.as_secs(),
            "issuance": {"mode": "Once"},
        },
    }))?;
    Ok(())
}

/// Logs in and tries the account's limits; the session stays open.
async fn use_account(stack: &Stack, login: &Login) -> Result<Client> {
    let session = stack
        .postgres()
        .connect_as(login, sample::ORDERS)
        .await
        .context("the new account cannot log in")?;
    let rows = session
        .query("SELECT item FROM public.orders", &[])
        .await
        .context("the new account cannot read")?;
    ensure!(!rows.is_empty(), "the new account reads an empty table");
    for forbidden in ["DELETE FROM public.orders", "CREATE TABLE public.mine (n int)"] {
        match session.batch_execute(forbidden).await {
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            Err(error) => return Err(error).context(format!("{forbidden} failed for another reason than its rights")),
            Ok(()) => bail!("the account has no right to `{forbidden}`, yet it worked"),
        }
    }
    Ok(session)
}

async fn gone(stack: &Stack, secrets: &Api<Secret>, login: &Login, session: &Client) -> Result<()> {
    let secret = || async { Ok(secrets.get_opt(NAME).await?.is_none().then_some(())) };
    stack
        .eventually("the Secret is deleted at the TTL", REVOKE_LIMIT, secret)
        .await?;
    let administrator = stack.postgres().connect("postgres").await?;
    let role = || async {
        let rows = administrator
            .query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&login.user])
            .await?;
        Ok(rows.is_empty().then_some(()))
    };
    stack
        .eventually("the role is dropped after the TTL", REVOKE_LIMIT, role)
        .await?;
    // The role goes first, its sessions a moment after.
    let dead = || async { Ok(session.simple_query("SELECT 1").await.is_err().then_some(())) };
    stack.eventually("the open session is dead", REVOKE_LIMIT, dead).await?;
    ensure!(
        stack.postgres().connect_as(login, sample::ORDERS).await.is_err(),
        "the account can still log in"
    );
    Ok(())
}
