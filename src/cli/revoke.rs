//! `kubectl dsv revoke`: takes accounts back now. Issuing is suspended first, or the next account would come at once.

use super::connect::Cluster;
use super::error::Intention;
use super::follow::interrupt;
use super::get::leases_of;
use super::{Error, advice, show};
use crate::api::grants::Part;
use crate::api::{CredentialLease, DynamicSecret};
use clap::{ArgGroup, Args};
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(500);
/// Requests at a time.
const AT_ONCE: usize = 8;
/// Leases that are named when the time is over.
const NAMED: usize = 10;

/// Whose accounts are taken back.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whose").required(true).multiple(true).args(["name", "all", "pool", "database"])))]
pub struct RevokeArguments {
    /// Name of a DynamicSecret
    #[arg(conflicts_with_all = ["all", "pool", "database", "all_namespaces"])]
    name: Option<String>,
    /// All DynamicSecrets of the namespace; with -A of the cluster
    #[arg(long)]
    all: bool,
    /// Those that use this pool: name, or namespace/name
    #[arg(long)]
    pool: Option<String>,
    /// Those that grant something in this database
    #[arg(long)]
    database: Option<String>,
    /// Look in all namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// How long to wait until all accounts are gone, in seconds
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

/// Runs the command. It ends well only when no lease is left, so no account.
pub async fn run(cluster: &Cluster, asked: &RevokeArguments) -> Result<(), Error> {
    let chosen = choose(cluster, asked).await?;
    if chosen.is_empty() {
        return Err(Error::Refused(
            "no DynamicSecret is meant by that; kubectl dsv status -A shows all".to_owned(),
        ));
    }
    let leases = leases(cluster, &chosen).await?;
    let question = format!(
        "suspend {} and revoke {}?",
        shortened(&chosen.iter().map(full_name).collect::<Vec<_>>()),
        count(leases.len())
    );
    if !asked.yes && !confirmed(&question)? {
        return Err(Error::Refused("nothing was changed".to_owned()));
    }
    stream::iter(chosen.iter().map(Ok::<_, Error>))
        .try_for_each_concurrent(AT_ONCE, |secret| suspend(cluster, secret))
        .await?;
    // One may have been made before the suspension was seen, so each look deletes what it finds.
    let gone = until_gone(cluster, &chosen, Duration::from_secs(asked.timeout));
    tokio::select! {
        ended = gone => ended?,
        () = interrupt()? => return Err(Error::Interrupted(
            "no longer waited for; the accounts are being taken back all the same, and nothing new is issued".to_owned(),
        )),
    }
    for secret in &chosen {
        show::remark(&format!(
            "issue again with: kubectl patch dynamicsecret -n {} {} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
            secret.namespace().unwrap_or_default(),
            secret.name_any()
        ));
    }
    show::print("no account is left")
}

async fn choose(cluster: &Cluster, asked: &RevokeArguments) -> Result<Vec<DynamicSecret>, Error> {
    let api: Api<DynamicSecret> = if asked.all_namespaces {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    if let Some(name) = &asked.name {
        return Ok(vec![super::rotate::existing(&api, &cluster.namespace, name).await?]);
    }
    let found = api
        .list(&ListParams::default())
        .await
        .to(|| "list the dynamic secrets".to_owned())?;
    Ok(found.items.into_iter().filter(|one| is_meant(one, asked)).collect())
}

fn is_meant(secret: &DynamicSecret, asked: &RevokeArguments) -> bool {
    let home = secret.namespace().unwrap_or_default();
    let reference = &secret.spec.pool;
    let pools = reference.namespace.as_ref().unwrap_or(&home);
    let of_pool = asked.pool.as_ref().is_none_or(|pool| match pool.split_once('/') {
        Some((namespace, name)) => namespace == pools && name == reference.name,
        None => *pool == reference.name,
    });
    let of_database = asked
        .database
        .as_ref()
        .is_none_or(|database| in_database(secret, database));
    of_pool && of_database
}

/// By what was last granted; where nothing was, there is nothing to take back.
fn in_database(secret: &DynamicSecret, database: &str) -> bool {
    let groups = secret.status.iter().flat_map(|status| &status.groups);
    let meant = Part::Name(database.to_owned());
    let mut grants = groups.flat_map(|group| &group.grants);
    grants.any(|pair| {
        let grant = pair.parse();
        grant.is_ok_and(|grant| grant.target.database.is_some_and(|part| meant.lies_in(&part)))
    })
}

async fn leases(cluster: &Cluster, chosen: &[DynamicSecret]) -> Result<Vec<CredentialLease>, Error> {
    let each = chosen.iter().map(|secret| {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        async move { leases_of(cluster, &namespace, &name).await }
    });
    let found: Vec<Vec<CredentialLease>> = stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn suspend(cluster: &Cluster, secret: &DynamicSecret) -> Result<(), Error> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let api: Api<DynamicSecret> = Api::namespaced(cluster.client.clone(), &namespace);
    let patch = json!({"metadata": {"uid": secret.metadata.uid}, "spec": {"suspend": true}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(|_| ())
        .to(|| format!("suspend DynamicSecret {namespace}/{name}"))
}

async fn until_gone(cluster: &Cluster, chosen: &[DynamicSecret], patience: Duration) -> Result<(), Error> {
    let start = Instant::now();
    let mut last = None;
    loop {
        let left = leases(cluster, chosen).await?;
        if last != Some(left.len()) {
            show::remark(&format!("{} to go", count(left.len())));
            last = Some(left.len());
        }
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() >= patience {
            return Err(Error::TooSlow(still_there(&left, patience)));
        }
        let alive = left.iter().filter(|lease| lease.metadata.deletion_timestamp.is_none());
        stream::iter(alive.map(Ok::<_, Error>))
            .try_for_each_concurrent(AT_ONCE, |lease| delete(cluster, lease))
            .await?;
        sleep(LOOK).await;
    }
}

async fn delete(cluster: &Cluster, lease: &CredentialLease) -> Result<(), Error> {
    let (namespace, name) = (lease.namespace().unwrap_or_default(), lease.name_any());
    let api: Api<CredentialLease> = Api::namespaced(cluster.client.clone(), &namespace);
    match api.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other
            .map(|_| ())
            .to(|| format!("delete CredentialLease {namespace}/{name}")),
    }
}

fn still_there(left: &[CredentialLease], patience: Duration) -> String {
    let each: Vec<String> = left
        .iter()
        .map(|lease| {
            let conditions = lease.status.iter().flat_map(|status| &status.conditions);
            let conditions: Vec<_> = conditions.cloned().collect();
            let why = advice::ready(&conditions).map_or_else(
                || "the operator has not looked at it".to_owned(),
                |(_, condition)| format!("{}: {}", condition.reason, condition.message),
            );
            format!("{}/{} ({why})", lease.namespace().unwrap_or_default(), lease.name_any())
        })
        .collect();
    format!(
        "after {} s {} left; nothing new is issued, and these are tried for ever: {}",
        patience.as_secs(),
        count(left.len()),
        shortened(&each)
    )
}

fn full_name(secret: &DynamicSecret) -> String {
    format!("{}/{}", secret.namespace().unwrap_or_default(), secret.name_any())
}

fn count(leases: usize) -> String {
    if leases == 1 {
        "1 lease".to_owned()
    } else {
        format!("{leases} leases")
    }
}

fn shortened(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        let _ = write!(text, " and {} more", names.len() - NAMED);
    }
    text
}

/// Asks once, on a terminal. Elsewhere nobody can answer, so nothing is done.
fn confirmed(question: &str) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Refused(format!(
            "{question} There is no terminal to answer on; --yes answers it"
        )));
    }
    let mut screen = std::io::stderr().lock();
    write!(screen, "{question} [y/N] ")
        .and_then(|()| screen.flush())
        .map_err(Error::Write)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Error::Write)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
