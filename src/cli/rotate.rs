//! `kubectl dsv rotate`: a new value of the annotation that asks for a new credential.

use super::connect::Cluster;
use super::error::Intention;
use super::follow::{Ended, follow};
use super::{Error, advice, show};
use crate::api::DynamicSecret;
use crate::api::conditions::ReasonKind;
use crate::api::dynamic_secret::Mode;
use crate::api::names::ROTATE_AT;
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::Duration;

/// Runs the command; with `wait` it returns when the new credential is delivered.
pub async fn run(cluster: &Cluster, name: &str, wait: Option<u64>) -> Result<(), Error> {
    let namespace = &cluster.namespace;
    let api: Api<DynamicSecret> = Api::namespaced(cluster.client.clone(), namespace);
    let found = existing(&api, namespace, name).await?;
    if found.spec.mode() == Mode::OnDemand {
        return Err(Error::Refused(format!(
            "DynamicSecret {namespace}/{name} is in mode OnDemand, where every lease is asked for: kubectl dsv issue {name}"
        )));
    }
    let value = Timestamp::now().to_string();
    let patch = json!({"metadata": {"uid": found.metadata.uid, "annotations": {ROTATE_AT: value}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .to(|| format!("write the annotation {ROTATE_AT} of DynamicSecret {namespace}/{name}"))?;
    show::print(&format!("dynamicsecret.dsv.dev/{name} asked for a new credential"))?;
    if found.spec.suspend == Some(true) {
        show::remark("it is suspended: the new credential is issued when spec.suspend is taken off");
        return Ok(());
    }
    match wait {
        Some(seconds) => delivered(api, name, &value, Duration::from_secs(seconds)).await,
        None => Ok(()),
    }
}

/// Reads a dynamic secret that must exist.
pub async fn existing(api: &Api<DynamicSecret>, namespace: &str, name: &str) -> Result<DynamicSecret, Error> {
    match api.get(name).await {
        // The kind itself may be missing; then the message has no details.
        Err(kube::Error::Api(status)) if status.is_not_found() && status.details.is_some() => Err(Error::Refused(
            format!("DynamicSecret {namespace}/{name} does not exist; kubectl dsv status -A shows those that do"),
        )),
        other => other.to(|| format!("read DynamicSecret {namespace}/{name}")),
    }
}

async fn delivered(api: Api<DynamicSecret>, name: &str, value: &str, patience: Duration) -> Result<(), Error> {
    let mut last = String::new();
    let judge = |state: Option<&DynamicSecret>| {
        let Some(one) = state else {
            return Some(Err(Error::Refused(
                "the DynamicSecret was deleted meanwhile".to_owned(),
            )));
        };
        let status = one.status.clone().unwrap_or_default();
        if status.answered_rotate_at.as_deref() == Some(value) {
            return Some(Ok(status));
        }
        let (_, condition) = advice::ready(&status.conditions)?;
        last = format!("{}: {}", condition.reason, condition.message);
        let refused = advice::reason(&condition.reason).is_some_and(|reason| reason.kind() == ReasonKind::Refused);
        refused.then(|| Err(Error::Refused(last.clone())))
    };
    let ended = follow(api, name, patience, judge).await?;
    match ended {
        Ended::Seen(outcome) => {
            let status = outcome?;
            let user = status.username.unwrap_or_default();
            let end = status.expires_at.map(|at| show::distance(Timestamp::now(), at.0));
            show::print(&format!(
                "delivered: account {user}, ends in {}",
                end.unwrap_or_default()
            ))
        }
        Ended::TimedOut => Err(Error::TooSlow(format!(
            "it is not delivered yet ({last}); it goes on by itself, and kubectl dsv why {name} shows how it stands"
        ))),
        Ended::Interrupted => Err(Error::Interrupted(
            "no longer waited for; the new credential is issued all the same".to_owned(),
        )),
    }
}
