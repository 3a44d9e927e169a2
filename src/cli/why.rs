//! `kubectl dsv why`: everything around a dynamic secret that may keep it from being ready, looked at once and put in words.
//!
//! What may not be read with the user's rights is said to be unknown, never taken for missing.

mod explain;

use super::connect::Cluster;
use super::error::Intention;
use super::rotate::existing;
use super::{Error, Output, show};
use crate::api::names::GROUP;
use crate::api::{CredentialLease, DynamicSecret, Engine, EnginePool};
use explain::{Explanation, Verdict, explain};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::fmt::Write as _;

/// Events that are shown, newest last.
const EVENTS: usize = 8;

/// What was found where it was looked.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<T> {
    /// It is there.
    Found(T),
    /// It is not there.
    Missing,
    /// The user may not look.
    Hidden,
}

/// Everything that was looked at.
pub struct Facts {
    /// The dynamic secret.
    pub owner: DynamicSecret,
    /// Its leases.
    pub leases: Seen<Vec<CredentialLease>>,
    /// Its pool.
    pub pool: Seen<EnginePool>,
    /// The pool's engines.
    pub engines: Seen<Vec<Engine>>,
    /// Events of the dynamic secret and its leases, oldest first.
    pub events: Seen<Vec<Event>>,
}

/// Runs the command.
pub async fn run(cluster: &Cluster, name: &str, output: Output) -> Result<(), Error> {
    let facts = gather(cluster, name).await?;
    let now = Timestamp::now();
    let explanation = explain(&facts, now);
    match output {
        Output::Json | Output::Yaml => show::print_value(output, &explanation),
        Output::Table => show::print(&text(&explanation, now)),
    }
}

async fn gather(cluster: &Cluster, name: &str) -> Result<Facts, Error> {
    let namespace = &cluster.namespace;
    let client = || cluster.client.clone();
    let owner = existing(&Api::namespaced(client(), namespace), namespace, name).await?;
    let pools = owner.spec.pool.namespace.clone().unwrap_or_else(|| namespace.clone());
    let pool_name = owner.spec.pool.name.clone();
    let leases: Api<CredentialLease> = Api::namespaced(client(), namespace);
    let pool: Api<EnginePool> = Api::namespaced(client(), &pools);
    let engines: Api<Engine> = Api::namespaced(client(), &pools);
    let events: Api<Event> = Api::namespaced(client(), namespace);
    let of_owner = ListParams::default().fields(&format!("spec.dynamicSecret={name}"));
    let of_pool = ListParams::default().fields(&format!("spec.pool={pool_name}"));
    let of_group = ListParams::default().fields(&format!("involvedObject.apiVersion={GROUP}/v1alpha1"));
    let (leases, pool, engines, events) = tokio::join!(
        leases.list(&of_owner),
        pool.get_opt(&pool_name),
        engines.list(&of_pool),
        events.list(&of_group),
    );
    let leases = readable(leases.map(|list| Some(list.items)), || {
        format!("list the leases of {namespace}")
    })?;
    let pool = readable(pool, || format!("read EnginePool {pools}/{pool_name}"))?;
    let engines = readable(engines.map(|list| Some(list.items)), || {
        format!("list the engines of {pools}")
    })?;
    let events = readable(events.map(|list| Some(list.items)), || {
        format!("list the events of {namespace}")
    })?;
    let events = about(events, &owner, &leases);
    Ok(Facts {
        owner,
        leases,
        pool,
        engines,
        events,
    })
}

fn readable<T>(answer: Result<Option<T>, kube::Error>, intention: impl FnOnce() -> String) -> Result<Seen<T>, Error> {
    match answer {
        Ok(Some(found)) => Ok(Seen::Found(found)),
        Ok(None) => Ok(Seen::Missing),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Seen::Hidden),
        Err(error) => Err(error).to(intention),
    }
}

fn about(events: Seen<Vec<Event>>, owner: &DynamicSecret, leases: &Seen<Vec<CredentialLease>>) -> Seen<Vec<Event>> {
    let Seen::Found(mut events) = events else { return events };
    let mut uids: Vec<String> = owner.uid().into_iter().collect();
    if let Seen::Found(leases) = leases {
        uids.extend(leases.iter().filter_map(CredentialLease::uid));
    }
    events.retain(|event| event.involved_object.uid.as_ref().is_some_and(|uid| uids.contains(uid)));
    events.sort_by_key(explain::time_of);
    let surplus = events.len().saturating_sub(EVENTS);
    events.drain(..surplus);
    Seen::Found(events)
}

fn text(explanation: &Explanation, now: Timestamp) -> String {
    let mut text = String::new();
    let state = match explanation.ready {
        Some(true) => "is ready",
        Some(false) => "is not ready",
        None => "was not looked at yet",
    };
    let _ = write!(
        text,
        "DynamicSecret {}/{} {state}",
        explanation.namespace, explanation.name
    );
    if let Some(reason) = &explanation.reason {
        let _ = write!(text, ": {reason}");
    }
    if let Some(message) = &explanation.message {
        let _ = write!(text, "\n  {message}");
    }
    if !explanation.next_step.is_empty() {
        let _ = write!(text, "\nNext step\n  {}", explanation.next_step);
    }
    text.push_str("\nLooked at");
    for finding in &explanation.findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok     ",
            Verdict::Problem => "PROBLEM",
            Verdict::Unknown => "unknown",
        };
        let _ = write!(text, "\n  {mark}  {}: {}", finding.subject, finding.text);
    }
    if !explanation.leases.is_empty() {
        let row = |lease: &explain::LeaseLine| {
            let end = lease
                .expires_at
                .map_or_else(|| "-".to_owned(), |at| show::from_now(now, at));
            [
                lease.name.clone(),
                lease.phase.clone(),
                end,
                lease.username.clone().unwrap_or_default(),
                lease.message.clone(),
            ]
        };
        let rows = explanation.leases.iter().map(row).collect();
        let table = show::table(["LEASE", "PHASE", "EXPIRES IN", "USER", "MESSAGE"], rows);
        let _ = write!(text, "\n\n{table}");
    }
    if !explanation.events.is_empty() {
        text.push_str("\n\nEvents");
        for event in &explanation.events {
            let when = event.at.map_or_else(String::new, |at| show::from_now(now, at));
            let _ = write!(
                text,
                "\n  {when:>10}  {}  {}: {}",
                event.object, event.reason, event.note
            );
        }
    }
    text
}
