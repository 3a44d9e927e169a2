//! From what was seen to what it means. No client here: the same facts give the same words.

use super::{Facts, Seen};
use crate::api::conditions::{self, READY, RESTARTED};
use crate::api::lease::Phase;
use crate::api::pool::ServerStatus;
use crate::api::{CredentialLease, EnginePool};
use crate::cli::{advice, show, status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use serde::Serialize;

/// What is known, and what to do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Of the dynamic secret.
    pub namespace: String,
    /// Of the dynamic secret.
    pub name: String,
    /// Condition Ready.
    pub ready: Option<bool>,
    /// Its reason.
    pub reason: Option<String>,
    /// Its message.
    pub message: Option<String>,
    /// What to do; empty if nothing.
    pub next_step: String,
    /// Each thing that was looked at.
    pub findings: Vec<Finding>,
    /// Leases that are not gone.
    pub leases: Vec<LeaseLine>,
    /// What was told as Events.
    pub events: Vec<EventLine>,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub subject: String,
    /// How it stands.
    pub verdict: Verdict,
    /// The same as a sentence.
    pub text: String,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Something is to be done.
    Problem,
    /// It may not be read.
    Unknown,
}

/// One lease.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseLine {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub phase: String,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Account name.
    pub username: Option<String>,
    /// Why it does not go on.
    pub message: String,
}

/// One Event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// When it was told last.
    pub at: Option<Timestamp>,
    /// Kind and name.
    pub object: String,
    /// The reason.
    pub reason: String,
    /// The sentence.
    pub note: String,
}

/// Puts it all in words.
pub fn explain(facts: &Facts, now: Timestamp) -> Explanation {
    let row = status::row(&facts.owner, now);
    let mut findings = vec![operator(facts, now)];
    findings.extend(spec(facts));
    findings.push(pool(facts));
    findings.extend(server(facts));
    findings.extend(engines(facts));
    findings.extend(attempts(facts, now));
    findings.extend(restarts(facts));
    findings.extend(leases(facts));
    Explanation {
        namespace: row.namespace,
        name: row.name,
        ready: row.ready,
        reason: row.reason,
        message: row.message,
        next_step: row.next_step,
        findings,
        leases: lease_lines(facts),
        events: event_lines(facts),
    }
}

/// When an Event was told last.
pub fn time_of(event: &Event) -> Option<Timestamp> {
    let repeated = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    let told = repeated.or(event.event_time.as_ref()).map(|at| at.0);
    told.or_else(|| event.last_timestamp.as_ref().map(|at| at.0))
        .or_else(|| event.creation_timestamp().map(|at| at.0))
}

fn finding(subject: impl Into<String>, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding {
        subject: subject.into(),
        verdict,
        text: text.into(),
    }
}

fn operator(facts: &Facts, now: Timestamp) -> Finding {
    let owner = &facts.owner;
    let observed = owner.status.as_ref().and_then(|s| s.observed_generation);
    if status::left_behind(owner, now).is_some() {
        return finding(
            "operator",
            Verdict::Problem,
            "it has not written what is due; see whether it runs and leads: kubectl -n dsv-system get \
             leases.coordination.k8s.io dsv-operator",
        );
    }
    match observed {
        Some(seen) if Some(seen) == owner.metadata.generation => {
            finding("operator", Verdict::Good, "it has seen this spec")
        }
        _ => finding("operator", Verdict::Unknown, "it has not reported on this spec yet"),
    }
}

fn spec(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let owner = &facts.owner;
    if owner.metadata.deletion_timestamp.is_some() {
        found.push(finding(
            "deletion",
            Verdict::Problem,
            "it is being deleted: leases end, then its group roles are dropped",
        ));
    }
    if owner.spec.suspend == Some(true) {
        found.push(finding(
            "spec.suspend",
            Verdict::Problem,
            "nothing is issued until it is taken off",
        ));
    }
    if status::asks_for_another(owner) {
        found.push(finding(
            "rotation",
            Verdict::Unknown,
            "a new credential was asked for and is not delivered yet",
        ));
    }
    found
}

fn pool(facts: &Facts) -> Finding {
    let owner = &facts.owner;
    let namespace = owner
        .spec
        .pool
        .namespace
        .clone()
        .or_else(|| owner.namespace())
        .unwrap_or_default();
    let subject = format!("pool {namespace}/{}", owner.spec.pool.name);
    match &facts.pool {
        Seen::Hidden => finding(subject, Verdict::Unknown, "you may not read it"),
        Seen::Missing => finding(
            subject,
            Verdict::Problem,
            "it does not exist; create it, or correct spec.pool",
        ),
        Seen::Found(pool) => {
            let conditions = pool
                .status
                .as_ref()
                .map(|s| s.conditions.as_slice())
                .unwrap_or_default();
            match advice::ready(conditions) {
                Some((true, condition)) => finding(subject, Verdict::Good, condition.message.clone()),
                Some((false, condition)) => {
                    let text = format!("{}: {}", condition.reason, condition.message);
                    finding(subject, Verdict::Problem, text)
                }
                None => finding(subject, Verdict::Unknown, "the operator has not reported on it yet"),
            }
        }
    }
}

fn server(facts: &Facts) -> Option<Finding> {
    let Seen::Found(pool) = &facts.pool else { return None };
    let linked = &facts.owner.spec.link_config.linked_secret;
    let subject = format!("base secret {}/{linked}", pool.namespace().unwrap_or_default());
    let Some(server) = server_of(pool, linked) else {
        return Some(finding(
            subject,
            Verdict::Problem,
            "no Secret of that name with label dsv.dev/type=postgresql was seen beside the pool",
        ));
    };
    let address = server.address.clone().unwrap_or_else(|| "no address".to_owned());
    if server.ready {
        let version = server.version.as_deref().unwrap_or("?");
        let tls = server.tls.as_deref().unwrap_or("plain text");
        return Some(finding(
            subject,
            Verdict::Good,
            format!("{address}, PostgreSQL {version}, {tls}"),
        ));
    }
    let reason = server.reason.as_deref().unwrap_or("not ready");
    let message = server.message.as_deref().unwrap_or("no engine has looked at it yet");
    Some(finding(
        subject,
        Verdict::Problem,
        format!("{address}: {reason}: {message}"),
    ))
}

fn server_of<'a>(pool: &'a EnginePool, linked: &str) -> Option<&'a ServerStatus> {
    pool.status
        .iter()
        .flat_map(|s| &s.servers)
        .find(|server| server.linked_secret == linked)
}

fn engines(facts: &Facts) -> Vec<Finding> {
    let engines = match &facts.engines {
        Seen::Found(engines) => engines,
        Seen::Missing => return Vec::new(),
        Seen::Hidden => return vec![finding("engines", Verdict::Unknown, "you may not read them")],
    };
    let judged = engines.iter().map(|engine| {
        let subject = format!("engine {}", engine.name_any());
        let conditions = engine
            .status
            .as_ref()
            .map(|s| s.conditions.as_slice())
            .unwrap_or_default();
        match advice::ready(conditions) {
            Some((true, condition)) => finding(subject, Verdict::Good, condition.message.clone()),
            Some((false, condition)) => {
                let text = format!("{}: {}", condition.reason, condition.message);
                finding(subject, Verdict::Problem, text)
            }
            None => finding(subject, Verdict::Unknown, "the operator has not reported on it yet"),
        }
    });
    judged.collect()
}

fn attempts(facts: &Facts, now: Timestamp) -> Option<Finding> {
    let status = facts.owner.status.as_ref()?;
    let count = status.failures.filter(|count| *count > 0)?;
    let last = status
        .last_failure
        .as_ref()
        .map(|at| show::distance(at.0, now))
        .unwrap_or_default();
    Some(finding(
        "attempts",
        Verdict::Problem,
        format!(
            "{count} failed in a row, the last {last} ago; the next follows within five minutes, and at once when the cause is mended"
        ),
    ))
}

fn restarts(facts: &Facts) -> Option<Finding> {
    let status = facts.owner.status.as_ref()?;
    let condition = conditions::find(&status.conditions, RESTARTED)?;
    let text = format!("{}: {}", condition.reason, condition.message);
    let verdict = if condition.status == "True" {
        Verdict::Good
    } else {
        Verdict::Problem
    };
    Some(finding("restarts", verdict, text))
}

fn leases(facts: &Facts) -> Option<Finding> {
    match &facts.leases {
        Seen::Hidden => Some(finding(
            "leases",
            Verdict::Unknown,
            "you may not read them; the cluster role edit admits it",
        )),
        _ => None,
    }
}

fn lease_lines(facts: &Facts) -> Vec<LeaseLine> {
    let Seen::Found(leases) = &facts.leases else {
        return Vec::new();
    };
    let mut lines: Vec<LeaseLine> = leases.iter().map(lease_line).collect();
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    lines
}

fn lease_line(lease: &CredentialLease) -> LeaseLine {
    let status = lease.status.clone().unwrap_or_default();
    let condition = conditions::find(&status.conditions, READY);
    let ending = lease.metadata.deletion_timestamp.is_some() && status.phase != Some(Phase::Blocked);
    // Its account may be gone already, while the proof waits for the issue deadline.
    let phase = if ending {
        Some("Ending".to_owned())
    } else {
        status.phase.map(|phase| format!("{phase:?}"))
    };
    LeaseLine {
        name: lease.name_any(),
        phase: phase.unwrap_or_else(|| "-".to_owned()),
        expires_at: status
            .expires_at
            .or_else(|| lease.claim().map(|c| c.expires_at.clone()))
            .map(|at| at.0),
        username: status.username,
        message: condition
            .map(|c| format!("{}: {}", c.reason, c.message))
            .unwrap_or_default(),
    }
}

fn event_lines(facts: &Facts) -> Vec<EventLine> {
    let Seen::Found(events) = &facts.events else {
        return Vec::new();
    };
    let line = |event: &Event| EventLine {
        at: time_of(event),
        object: format!(
            "{}/{}",
            event.involved_object.kind.as_deref().unwrap_or_default(),
            event.involved_object.name.as_deref().unwrap_or_default()
        ),
        reason: event.reason.clone().unwrap_or_default(),
        note: event.message.clone().unwrap_or_default(),
    };
    events.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
