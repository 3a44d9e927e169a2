//! `kubectl dsv get`: the leases of one dynamic secret, which account each has and until when.

use super::connect::Cluster;
use super::error::Intention;
use super::rotate::existing;
use super::{Error, Output, advice, show};
use crate::api::{CredentialLease, DynamicSecret};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// Runs the command.
pub async fn run(cluster: &Cluster, name: &str, output: Output) -> Result<(), Error> {
    let namespace = &cluster.namespace;
    let secrets: Api<DynamicSecret> = Api::namespaced(cluster.client.clone(), namespace);
    existing(&secrets, namespace, name).await?;
    let mut leases = leases_of(cluster, namespace, name).await?;
    leases.sort_by_key(|lease| lease.metadata.creation_timestamp.as_ref().map(|at| at.0));
    let now = Timestamp::now();
    match output {
        Output::Json | Output::Yaml => show::print_value(output, &leases.iter().map(value).collect::<Vec<_>>()),
        Output::Table if leases.is_empty() => {
            show::remark(&format!(
                "DynamicSecret {namespace}/{name} has no lease now; kubectl dsv why {name} says why"
            ));
            Ok(())
        }
        Output::Table => show::print(&show::table(
            ["LEASE", "PHASE", "USER", "ENGINE", "EXPIRES IN", "SECRET", "REASON"],
            leases.iter().map(|lease| row(lease, now)).collect(),
        )),
    }
}

/// All leases that a dynamic secret has, in whatever phase.
pub async fn leases_of(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<CredentialLease>, Error> {
    let api: Api<CredentialLease> = Api::namespaced(cluster.client.clone(), namespace);
    let of_it = ListParams::default().fields(&format!("spec.dynamicSecret={name}"));
    let found = api
        .list(&of_it)
        .await
        .to(|| format!("list the leases of DynamicSecret {namespace}/{name}"))?;
    Ok(found.items)
}

fn row(lease: &CredentialLease, now: Timestamp) -> [String; 7] {
    let status = lease.status.clone().unwrap_or_default();
    let unknown = || "-".to_owned();
    let reason = advice::ready(&status.conditions).map(|(_, condition)| condition.reason.clone());
    [
        lease.name_any(),
        status.phase.as_ref().map_or_else(unknown, |phase| format!("{phase:?}")),
        status.username.clone().unwrap_or_else(unknown),
        status.issued_by.clone().unwrap_or_else(unknown),
        status
            .expires_at
            .as_ref()
            .map_or_else(unknown, |at| show::from_now(now, at.0)),
        target(lease).unwrap_or_else(unknown),
        reason.unwrap_or_else(unknown),
    ]
}

fn value(lease: &CredentialLease) -> Value {
    let status = lease.status.clone().unwrap_or_default();
    json!({
        "namespace": lease.namespace(), "lease": lease.name_any(), "phase": status.phase,
        "username": status.username, "engine": status.issued_by,
        "expiresAt": status.expires_at.as_ref().map(|at| at.0.to_string()), "secret": target(lease),
        "boundTo": lease.spec.bound_to,
        "reason": advice::ready(&status.conditions).map(|(_, condition)| condition.reason.clone()),
    })
}

/// The Secret that the credential is delivered to, if it is to one.
pub fn target(lease: &CredentialLease) -> Option<String> {
    let asked = lease.spec.target.as_ref().map(|target| target.name.clone());
    asked.or_else(|| lease.claim().and_then(|claim| claim.target.clone()))
}
