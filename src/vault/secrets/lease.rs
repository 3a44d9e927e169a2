//! Reading a dynamic secret: a lease is made with the verifier of a password that is made here, and its status is waited for.
//!
//! The password never leaves this process but in the answer. A reader who goes away, and a lease that does not come about in
//! time, leave nothing behind: the lease is deleted, and the operator takes back what there may be.

use crate::api::conditions::{self, READY, Reason, ReasonKind};
use crate::api::dynamic_secret::Mode;
use crate::api::lease::{CredentialLeaseSpec, Phase};
use crate::api::names::base32;
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::credential_secret::whole_seconds;
use crate::cluster::{objects, server_record};
use crate::keys::{Password, Verifier};
use crate::plan::shape::{self, Login};
use crate::telemetry::logs::chain;
use crate::vault::Vault;
use crate::vault::reply::Refusal;
use crate::vault::tenants::Tenant;
use crate::vault::time;
use futures::StreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How long a reader waits for his account.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long of it he waits for an engine that is not connected: one that changes the leader is back in that time.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);
/// Longest beginning of a lease's name: 16 random characters and a dash follow.
const LONGEST_STEM: usize = 200;

/// A lease that is deleted when this is dropped, unless its credential was handed over.
struct Pending {
    client: Client,
    lease: Option<CredentialLease>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let client = self.client.clone();
        tokio::spawn(async move {
            if let Err(error) = objects::delete(&client, &lease).await {
                tracing::warn!(
                    lease = lease.name_any(),
                    error = %chain(&error),
                    "a lease that nobody waits for could not be deleted; it ends at its ttl"
                );
            }
        });
    }
}

impl Vault {
    /// An account of the dynamic secret, as the `data` of an answer: texts only, since the Kubernetes clients of DSV write
    /// nothing else right. With its lease.
    pub(super) async fn issue(
        &self,
        tenant: &Tenant,
        object: &DynamicSecret,
    ) -> Result<(Map<String, Value>, CredentialLease), Refusal> {
        if object.spec.mode() != Mode::OnDemand {
            let message = "this dynamic secret delivers to a Kubernetes Secret by itself; only those in mode OnDemand are read here";
            return Err(Refusal::new(409, message));
        }
        let password = Password::generate();
        let verifier = tokio::task::spawn_blocking({
            let password = password.clone();
            move || Verifier::of(&password)
        });
        let verifier = verifier
            .await
            .map_err(|_| Refusal::new(500, "no password could be made"))?;
        let lease = compose(object, &tenant.namespace, &verifier);
        // Armed before the request is sent: its answer may be lost, or nobody wait for it any more.
        let mut pending = Pending {
            client: self.client.clone(),
            lease: Some(lease.clone()),
        };
        let booked = objects::make(&self.client, &tenant.namespace, &lease).await?;
        pending.lease = Some(booked.clone());
        let issued = self.wait(&booked).await?;
        let data = self.credential(&issued, &password).await?;
        pending.lease = None;
        Ok((data, issued))
    }

    async fn wait(&self, made: &CredentialLease) -> Result<CredentialLease, Refusal> {
        let namespace = made.namespace().unwrap_or_default();
        let api: Api<CredentialLease> = Api::namespaced(self.client.clone(), &namespace);
        let mut views = std::pin::pin!(watch_object(api, &made.name_any()));
        let start = Instant::now();
        let mut waits: Option<(Reason, String)> = None;
        loop {
            let no_engine = waits
                .as_ref()
                .is_some_and(|(reason, _)| *reason == Reason::WaitingForEngine);
            let patience = if no_engine { ENGINE_PATIENCE } else { PATIENCE };
            match tokio::time::timeout_at(start + patience, views.next()).await {
                Err(_) | Ok(None) => return Err(too_late(waits)),
                Ok(Some(Err(error))) => tracing::debug!(%error, "the watch of a lease was interrupted"),
                Ok(Some(Ok(None))) => return Err(gone(waits)),
                Ok(Some(Ok(Some(lease)))) => {
                    let status = lease.status.clone().unwrap_or_default();
                    if lease.metadata.deletion_timestamp.is_some() {
                        return Err(gone(said(&lease).or(waits)));
                    }
                    if status.phase == Some(Phase::Issued) && status.issued_at.is_some() {
                        return Ok(lease);
                    }
                    waits = said(&lease).or(waits);
                    if let Some((reason, message)) = waits.clone().filter(|(reason, _)| is_final(*reason)) {
                        return Err(refusal(reason, &message));
                    }
                }
            }
        }
    }

    async fn credential(&self, issued: &CredentialLease, password: &Password) -> Result<Map<String, Value>, Refusal> {
        // Where the account is, which the base secret may not say any more.
        let record = issued.claim().map(|claim| claim.server.clone()).unwrap_or_default();
        let Some(login) = server_record::login(&self.client, &self.settings.home, &record).await? else {
            let message = "the record of the account's server went while it was made; read again";
            return Err(Refusal::new(409, message));
        };
        let status = issued.status.clone().unwrap_or_default();
        let username = status.username.unwrap_or_default();
        let shown = ["username", "password", "host", "port", "database", "uri"];
        let login = Login {
            username: &username,
            password: password.reveal(),
            server: &login,
        };
        let pairs = shape::usual(login).into_iter();
        let mut data: Map<String, Value> = pairs
            .filter(|(key, _)| shown.contains(key))
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        if let Some(end) = status.expires_at {
            let left = end.0.duration_since(time::now()).as_secs().max(0);
            data.insert("ttl".into(), json!(left.to_string()));
            data.insert("expiresAt".into(), json!(whole_seconds(end.0)));
        }
        Ok(data)
    }
}

fn compose(object: &DynamicSecret, namespace: &str, verifier: &Verifier) -> CredentialLease {
    let mut stem = object.name_any();
    stem.truncate(LONGEST_STEM);
    // A name of our own choice, so that a lease whose answer was lost can be deleted.
    let name = format!("{stem}-{}", base32(&rand::random::<[u8; 10]>()));
    let spec = CredentialLeaseSpec {
        dynamic_secret: object.name_any(),
        verifier: Some(verifier.as_str().to_owned()),
        target: None,
        ttl: None,
        bound_to: None,
        claim: None,
    };
    let mut lease = CredentialLease::new(&name, spec);
    lease.metadata.namespace = Some(namespace.to_owned());
    lease
}

/// Why the lease does not go on, where it says so.
fn said(lease: &CredentialLease) -> Option<(Reason, String)> {
    let condition = conditions::find(&lease.status.as_ref()?.conditions, READY)?;
    let reason = Reason::EVERY
        .iter()
        .find(|reason| reason.as_str() == condition.reason)?;
    (reason.kind() != ReasonKind::Good).then(|| (*reason, condition.message.clone()))
}

/// Whether waiting some seconds more makes no sense.
fn is_final(reason: Reason) -> bool {
    reason.kind() == ReasonKind::Refused
        || matches!(
            reason,
            Reason::TooManyLeases
                | Reason::Suspended
                | Reason::DatabaseUnreachable
                | Reason::DatabaseReadOnly
                | Reason::DatabaseError
                | Reason::Deleting
        )
}

fn too_late(waits: Option<(Reason, String)>) -> Refusal {
    match waits {
        Some((Reason::WaitingForEngine, message)) => refusal(Reason::WaitingForEngine, &message),
        Some((reason, message)) => {
            let message = format!(
                "no account after {} seconds; {}: {message}",
                PATIENCE.as_secs(),
                reason.as_str()
            );
            Refusal::new(504, message).with("reason", reason.as_str())
        }
        None => Refusal::new(
            504,
            format!(
                "no account after {} seconds, and the operator has not looked at the lease; does one lead?",
                PATIENCE.as_secs()
            ),
        ),
    }
}

fn gone(waits: Option<(Reason, String)>) -> Refusal {
    match waits {
        Some((reason, message)) => refusal(reason, &message),
        None => Refusal::new(
            502,
            "the lease was ended before an account was issued; the operator's log says why",
        ),
    }
}

/// The status that a reason is told with.
pub fn status_of(reason: Reason) -> u16 {
    match reason {
        Reason::WaitingForEngine => 503,
        Reason::TooManyLeases => 429,
        Reason::AccessDenied => 403,
        Reason::PoolMissing
        | Reason::PoolDeleting
        | Reason::BaseSecretMissing
        | Reason::BaseSecretInvalid
        | Reason::InvalidSpec
        | Reason::NotOnDemand
        | Reason::DynamicSecretMissing
        | Reason::Suspended
        | Reason::Deleting => 409,
        _ => 502,
    }
}

fn refusal(reason: Reason, message: &str) -> Refusal {
    let refusal = Refusal::new(status_of(reason), format!("{}: {message}", reason.as_str()));
    let refusal = refusal.with("reason", reason.as_str());
    match sqlstate(message) {
        Some(code) => refusal.with("sqlstate", code),
        None => refusal,
    }
}

/// PostgreSQL's code, where an engine's message names one.
fn sqlstate(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("SQLSTATE ")?;
    let code = rest.get(..5)?;
    code.bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        .then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_status_that_their_cause_asks_for() {
        for (reason, status) in [
            (Reason::WaitingForEngine, 503),
            (Reason::TooManyLeases, 429),
            (Reason::LoginRefused, 502),
            (Reason::DatabaseUnreachable, 502),
            (Reason::AccessDenied, 403),
            (Reason::Suspended, 409),
        ] {
            assert_eq!(refusal(reason, "because").code, status);
        }
        let late = too_late(Some((Reason::WaitingForClock, "soon".into())));
        assert_eq!(
            (late.code, late.errors["reason"].as_slice()),
            (504, ["WaitingForClock".to_owned()].as_slice())
        );
        assert_eq!(too_late(None).code, 504);
        assert_eq!(too_late(Some((Reason::WaitingForEngine, "none".into()))).code, 503);
    }

    #[test]
    fn the_databases_code_is_shown() {
        let refused = refusal(
            Reason::LoginRefused,
            "login refused (SQLSTATE 28P01); mend the password",
        );
        assert_eq!(refused.errors["sqlstate"], ["28P01"]);
        assert!(!refusal(Reason::LoginRefused, "no").errors.contains_key("sqlstate"));
    }
}
