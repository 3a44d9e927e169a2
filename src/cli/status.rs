//! `kubectl dsv status`: one line for each dynamic secret, with what to do about it.

use super::connect::Cluster;
use super::error::Intention;
use super::{Error, Output, advice, show};
use crate::api::conditions::Reason;
use crate::api::dynamic_secret::Mode;
use crate::api::{DynamicSecret, names::ROTATE_AT};
use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

/// A status that should have changed this long ago was left behind by an operator that does not run.
const OVERDUE: SignedDuration = SignedDuration::from_mins(1);

/// One dynamic secret.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When credentials are issued.
    pub mode: Mode,
    /// Condition Ready; none before the operator has looked.
    pub ready: Option<bool>,
    /// The condition's reason.
    pub reason: Option<String>,
    /// The condition's message.
    pub message: Option<String>,
    /// Account of the current credential.
    pub username: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When the next one is due.
    pub renew_at: Option<Timestamp>,
    /// What to do; empty if nothing.
    pub next_step: String,
}

/// Runs the command.
pub async fn run(cluster: &Cluster, all: bool, output: Output) -> Result<(), Error> {
    let (api, place): (Api<DynamicSecret>, String) = if all {
        (Api::all(cluster.client.clone()), "all namespaces".to_owned())
    } else {
        let namespace = &cluster.namespace;
        let api = Api::namespaced(cluster.client.clone(), namespace);
        (api, format!("namespace {namespace}"))
    };
    let list = api
        .list(&ListParams::default())
        .await
        .to(|| format!("list the dynamic secrets of {place}"))?;
    let now = Timestamp::now();
    let mut rows: Vec<Row> = list.items.iter().map(|one| row(one, now)).collect();
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    match output {
        Output::Json | Output::Yaml => show::print_value(output, &rows),
        Output::Table if rows.is_empty() => {
            show::remark(&format!("no dynamic secrets in {place}"));
            Ok(())
        }
        Output::Table => show::print(&text(&rows, all, now)),
    }
}

/// What is to be said of one.
pub fn row(one: &DynamicSecret, now: Timestamp) -> Row {
    let status = one.status.clone().unwrap_or_default();
    let ready = advice::ready(&status.conditions);
    let name = one.name_any();
    let expires_at = status.expires_at.as_ref().map(|at| at.0);
    let renew_at = status.renew_at.as_ref().map(|at| at.0);
    let word = ready.map(|(_, condition)| condition.reason.as_str());
    // While a credential is current only; the status keeps the last one's times.
    let current = word == Some(Reason::Issued.as_str());
    let next_step = if let Some(step) = left_behind(one, now) {
        step
    } else if let Some(word) = word {
        advice::next_step_of(word, &name)
    } else {
        "wait; the operator has not looked at it yet".to_owned()
    };
    Row {
        namespace: one.namespace().unwrap_or_default(),
        name,
        mode: one.spec.mode(),
        ready: ready.map(|(ready, _)| ready),
        reason: ready.map(|(_, condition)| condition.reason.clone()),
        message: ready.map(|(_, condition)| condition.message.clone()),
        username: status.username.filter(|_| current),
        expires_at: expires_at.filter(|_| current),
        renew_at: renew_at.filter(|_| current),
        next_step,
    }
}

/// The next step where the operator itself seems to be away: what it wrote, or did not write, is too old.
pub fn left_behind(one: &DynamicSecret, now: Timestamp) -> Option<String> {
    let late = |at: Timestamp| now.duration_since(at) > OVERDUE;
    let status = one.status.as_ref();
    let observed = status.and_then(|s| s.observed_generation);
    let new = one.creation_timestamp().is_some_and(|at| late(at.0));
    let valid = status
        .and_then(|s| advice::ready(&s.conditions))
        .is_some_and(|(_, condition)| condition.reason == Reason::Issued.as_str());
    let ended = status.and_then(|s| s.expires_at.as_ref()).is_some_and(|at| late(at.0));
    if (observed.is_none() && new) || (valid && ended) {
        return Some("is the operator running? nothing was written when it was due".to_owned());
    }
    None
}

fn text(rows: &[Row], all: bool, now: Timestamp) -> String {
    let dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let cells = |row: &Row| {
        let ready = match row.ready {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        [
            row.name.clone(),
            ready.to_owned(),
            dash(row.reason.as_deref().unwrap_or_default()),
            row.expires_at
                .map_or_else(|| "-".to_owned(), |at| show::from_now(now, at)),
            dash(row.username.as_deref().unwrap_or_default()),
            dash(&row.next_step),
        ]
    };
    if !all {
        let rows = rows.iter().map(cells).collect();
        return show::table(["NAME", "READY", "REASON", "EXPIRES IN", "USER", "NEXT STEP"], rows);
    }
    let with_namespace = |row: &Row| {
        let [name, ready, reason, expires, user, step] = cells(row);
        [row.namespace.clone(), name, ready, reason, expires, user, step]
    };
    let header = [
        "NAMESPACE",
        "NAME",
        "READY",
        "REASON",
        "EXPIRES IN",
        "USER",
        "NEXT STEP",
    ];
    show::table(header, rows.iter().map(with_namespace).collect())
}

/// Whether an annotation asks for a credential that is not answered yet.
pub fn asks_for_another(one: &DynamicSecret) -> bool {
    let asked = one.annotations().get(ROTATE_AT);
    let answered = one.status.as_ref().and_then(|s| s.answered_rotate_at.as_ref());
    asked.is_some() && asked != answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn dynamic_secret(reason: Option<Reason>, expires: Option<i64>) -> DynamicSecret {
        let mut one: DynamicSecret = serde_json::from_value(json!({
            "apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret",
            "metadata": {"name": "orders-app", "namespace": "shop", "generation": 1, "creationTimestamp": at(0).to_string()},
            "spec": {
                "pool": {"name": "orders"}, "linkConfig": {"linkType": "dynamic", "linkedSecret": "orders-db"},
                "grantPermissions": {"what": "SELECT", "where": "public.orders"}, "ttl": 1000,
            },
        }))
        .unwrap();
        if let Some(reason) = reason {
            let status = one.status.get_or_insert_default();
            conditions::set_ready(&mut status.conditions, reason, "why", Some(1), at(0));
            status.observed_generation = Some(1);
            status.username = Some("shop_x".into());
            status.expires_at = expires.map(|second| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
        }
        one
    }

    #[test]
    fn a_valid_credential_is_shown_with_its_end_and_asks_nothing() {
        let row = row(&dynamic_secret(Some(Reason::Issued), Some(1000)), at(700));
        assert_eq!((row.ready, row.next_step.as_str()), (Some(true), ""));
        let shown = text(&[row], false, at(700));
        assert!(
            shown
                .lines()
                .nth(1)
                .unwrap()
                .split_whitespace()
                .eq(["orders-app", "True", "Issued", "5m", "shop_x", "-"]),
            "{shown}"
        );
    }

    #[test]
    fn an_ended_credential_is_not_shown_as_one() {
        let row = row(&dynamic_secret(Some(Reason::Expired), Some(1000)), at(2000));
        assert_eq!((row.ready, row.username, row.expires_at), (Some(true), None, None));
        assert_eq!(row.next_step, "for another credential: kubectl dsv rotate orders-app");
    }

    #[test]
    fn an_operator_that_is_away_is_noticed() {
        for (one, now) in [
            (dynamic_secret(Some(Reason::Issued), Some(1000)), at(1100)),
            (dynamic_secret(None, None), at(100)),
        ] {
            let step = row(&one, now).next_step;
            assert!(step.starts_with("is the operator running?"), "{step}");
        }
        assert_eq!(
            row(&dynamic_secret(None, None), at(5)).next_step,
            "wait; the operator has not looked at it yet"
        );
    }
}
