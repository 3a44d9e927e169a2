//! `kubectl dsv pool list`: pools with their engines, leases and servers.

use super::connect::Cluster;
use super::error::Intention;
use super::{Error, Output, show};
use crate::api::EnginePool;
use crate::api::conditions::{self, READY};
use clap::Subcommand;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

/// What is asked of pools.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Show the pools with their engines, leases and servers
    List {
        /// All namespaces
        #[arg(long, short = 'A', conflicts_with = "namespace")]
        all_namespaces: bool,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// Runs the command.
pub async fn run(cluster: &Cluster, asked: &PoolCommand) -> Result<(), Error> {
    let PoolCommand::List { all_namespaces, output } = asked;
    let api: Api<EnginePool> = if *all_namespaces {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    let pools = api
        .list(&ListParams::default())
        .await
        .to(|| "list the EnginePools".to_owned())?;
    match output {
        Output::Table => show::print(&show::table(
            ["NAMESPACE", "POOL", "READY", "ENGINES", "LEASES", "SERVERS"],
            pools.items.iter().map(row).collect(),
        )),
        Output::Json | Output::Yaml => show::print_value(*output, &pools.items.iter().map(value).collect::<Vec<_>>()),
    }
}

fn reason(pool: &EnginePool) -> String {
    let status = pool.status.as_ref();
    let ready = status.and_then(|status| conditions::find(&status.conditions, READY));
    ready.map_or_else(
        || "-".to_owned(),
        |ready| format!("{} ({})", ready.status, ready.reason),
    )
}

fn row(pool: &EnginePool) -> [String; 6] {
    let status = pool.status.clone().unwrap_or_default();
    let servers: Vec<String> = status
        .servers
        .iter()
        .map(|server| {
            let why = server.reason.as_deref().unwrap_or("not ready");
            format!("{}: {}", server.linked_secret, if server.ready { "ready" } else { why })
        })
        .collect();
    [
        pool.namespace().unwrap_or_default(),
        pool.name_any(),
        reason(pool),
        format!(
            "{}/{}",
            status.connected_engines.unwrap_or(0),
            status.engines.unwrap_or(0)
        ),
        status.open_leases.unwrap_or(0).to_string(),
        servers.join(", "),
    ]
}

fn value(pool: &EnginePool) -> serde_json::Value {
    let status = pool.status.clone().unwrap_or_default();
    json!({
        "namespace": pool.namespace(),
        "name": pool.name_any(),
        "ready": reason(pool),
        "engines": status.engines,
        "connectedEngines": status.connected_engines,
        "openLeases": status.open_leases,
        "servers": status.servers,
    })
}
