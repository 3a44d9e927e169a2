//! `kubectl dsv orphans`: accounts in the databases that the books do not account for, as the operator's audit found them.

use super::connect::Cluster;
use super::error::Intention;
use super::{Error, Output, show};
use crate::api::EnginePool;
use crate::api::conditions::{self, AUDITED};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

/// Runs the command.
pub async fn run(cluster: &Cluster, all: bool, output: Output) -> Result<(), Error> {
    let api: Api<EnginePool> = if all {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    let pools = api.list(&ListParams::default()).await;
    let pools = pools.to(|| "list the EnginePools".to_owned())?.items;
    match output {
        Output::Json | Output::Yaml => show::print_value(output, &pools.iter().map(value).collect::<Vec<_>>()),
        Output::Table if pools.is_empty() => {
            show::remark("there is no EnginePool here; -A looks in all namespaces");
            Ok(())
        }
        Output::Table => {
            let now = Timestamp::now();
            show::print(&show::table(
                ["NAMESPACE", "POOL", "IN ORDER", "REASON", "SINCE", "FOUND"],
                pools.iter().map(|pool| row(pool, now)).collect(),
            ))
        }
    }
}

fn row(pool: &EnginePool, now: Timestamp) -> [String; 6] {
    let status = pool.status.clone().unwrap_or_default();
    let found = conditions::find(&status.conditions, AUDITED);
    let said = |text: fn(&Condition) -> String, otherwise: &str| found.map_or_else(|| otherwise.to_owned(), text);
    [
        pool.namespace().unwrap_or_default(),
        pool.name_any(),
        said(|audited| audited.status.clone(), "Unknown"),
        said(|audited| audited.reason.clone(), "-"),
        found.map_or_else(
            || "-".to_owned(),
            |audited| show::from_now(now, audited.last_transition_time.0),
        ),
        said(
            |audited| audited.message.clone(),
            "no server of the pool was looked at yet",
        ),
    ]
}

fn value(pool: &EnginePool) -> serde_json::Value {
    let status = pool.status.clone().unwrap_or_default();
    json!({
        "namespace": pool.namespace(), "pool": pool.name_any(), "audited": conditions::find(&status.conditions, AUDITED),
    })
}
