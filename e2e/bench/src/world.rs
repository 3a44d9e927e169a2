//! What the figures are measured in: a stack with one operator and one engine, all of it as in production but for what would
//! make the log of the database the slowest part.

use std::time::Duration;

use anyhow::{Context, Result};
use dsv::api::CredentialLease;
use e2e::postgres::{Major, Options, Tls};
use e2e::scene::Scene;
use e2e::stack::{Shape, Stack};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::audit::AuditLog;
use crate::engine_work::functions;
use crate::reading::TENANT;
use crate::sightings::Sightings;
use crate::statements::StatementLog;

/// Name of the dynamic secret whose leases are measured.
pub const ASKED: &str = "bench";
/// After the last change everything may settle: a new server is audited for the first time.
const SETTLE: Duration = Duration::from_secs(5);

/// Of a server that commits as in production and writes no statement to its log.
pub fn settings() -> Vec<(String, String)> {
    let settings = [
        ("fsync", "on"),
        ("log_statement", "none"),
        ("log_connections", "off"),
        ("log_disconnections", "off"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// A stack whose database commits as in production and writes no statement to its log.
pub async fn start(major: Major, operators: usize) -> Result<Stack> {
    Stack::start(shape(major, operators)).await
}

/// The same with the REST API and its audit file, as the chart sets it up.
pub async fn start_with_api(major: Major) -> Result<Stack> {
    let mut shape = shape(major, 1);
    let address = ["--api-addr", "127.0.0.1:0", "--api-name", "127.0.0.1"];
    let tenant = ["--api-tenant", TENANT, "--api-audit-file", "audit.jsonl"];
    let args = address.into_iter().chain(tenant).map(str::to_owned);
    shape.operator_args.extend(args);
    let stack = Stack::start(shape).await?;
    stack.kubectl(&["create", "namespace", TENANT])?;
    Ok(stack)
}

fn shape(major: Major, operators: usize) -> Shape {
    Shape {
        operators,
        operator_log: Some("info".to_owned()),
        postgres: major,
        options: Options {
            tls: Tls::Offered,
            settings: settings(),
            ..Options::default()
        },
        node: true,
        ..Shape::default()
    }
}

/// A team with a pool, an engine, and a dynamic secret of which leases are asked.
pub struct World<'a> {
    pub scene: Scene<'a>,
    pub secrets: Sightings,
    pub leases: Sightings,
    pub requests: AuditLog,
    administrator: Client,
}

impl<'a> World<'a> {
    /// `functions`: a superuser has installed them, as is advised from PostgreSQL 16 on where many accounts live.
    pub async fn open(stack: &'a Stack, functions: bool) -> Result<Self> {
        let scene = Scene::open(stack, Some(1)).await?;
        if functions {
            functions::install(scene.server(), scene.issuer()).await?;
        }
        scene
            .ask(ASKED, &json!({"ttl": "2h", "issuance": {"mode": "OnDemand"}}))
            .await?;
        scene.wait_ready(ASKED, "True/OnDemand").await?;
        let client = || scene.objects.client().clone();
        let world = Self {
            secrets: Sightings::of::<Secret>(client(), &scene.shop),
            leases: Sightings::of::<CredentialLease>(client(), &scene.shop),
            requests: AuditLog::of(stack)?,
            administrator: scene.server().connect("postgres").await?,
            scene,
        };
        // The first lease makes what all others share: server record and group role.
        world.ask("first", "2h").await?;
        world.secrets.came("first").await?;
        tokio::time::sleep(SETTLE).await;
        Ok(world)
    }

    /// Writes a lease as somebody does who wants a Secret of the same name.
    pub async fn ask(&self, name: &str, ttl: &str) -> Result<Value> {
        let spec = json!({"target": {"name": name}, "ttl": ttl});
        self.scene.lease(ASKED, name, &spec).await
    }

    /// From now on the database logs all statements, or none.
    pub async fn log_statements(&self, all: bool) -> Result<()> {
        let which = if all { "all" } else { "none" };
        let session = &self.administrator;
        session
            .batch_execute(&format!("ALTER SYSTEM SET log_statement = '{which}'"))
            .await?;
        session.batch_execute("SELECT pg_reload_conf()").await?;
        // Each session reads the settings before its next statement, once the signal has reached it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// What the engines ask of the database.
    pub fn statements(&self) -> StatementLog {
        StatementLog::of(self.scene.server(), &self.scene.issuer().user)
    }

    /// Process number of the first operator.
    pub fn operator(&self) -> Result<i32> {
        let operator = self.scene.stack.operators().first();
        operator
            .and_then(|operator| operator.pid())
            .context("the operator does not run")
    }

    /// Process number of the engine.
    pub fn engine(&self) -> Result<i32> {
        let runner = self.scene.stack.runner().context("the stack has no node")?;
        let engine = runner.rows().first().and_then(|row| row.pid);
        engine.context("no engine runs")
    }

    /// How many accounts of this world there are.
    pub async fn accounts(&self) -> Result<usize> {
        let query = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1)";
        let row = self.administrator.query_one(query, &[&self.scene.prefix]).await?;
        Ok(usize::try_from(row.get::<_, i64>(0))?)
    }
}
