//! One account from issue to the proof that it is gone, asked for as any client would: what `helm test` runs. Nobody ever
//! has the password, and the ttl is so short that an account ends soon even if this is killed on the way.

use crate::api::CredentialLease;
use crate::api::conditions::{self, READY, STALLED};
use crate::api::lease::{CredentialLeaseSpec, Phase};
use crate::api::names::base32;
use crate::api::ttl::Span;
use crate::cluster::{Error, objects};
use crate::keys::{Password, Verifier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{Client, ResourceExt};
use std::time::{Duration, Instant};

/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// Life of the account, in seconds. An account that never came about is proven gone only when nothing can come any more,
/// which takes this long at most.
const TTL_SECONDS: i64 = 30;

/// Why the trial did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The API server.
    #[error("could not ask the API server")]
    Cluster(#[from] Error),
    /// Nothing was issued.
    #[error("no account was issued within {} s: {said}; see `kubectl dsv why {dynamic_secret} -n {namespace}`", .after.as_secs())]
    NotIssued {
        /// The DynamicSecret's namespace.
        namespace: String,
        /// Its name.
        dynamic_secret: String,
        /// How long it was waited for.
        after: Duration,
        /// What the lease said last.
        said: String,
    },
    /// An account was issued and is not proven gone.
    #[error("account {username} is not proven gone after {} s: {said}; it is tried on, see `kubectl get credentialleases -n {namespace} -o wide`", .after.as_secs())]
    NotGone {
        /// The lease's namespace.
        namespace: String,
        /// The account.
        username: String,
        /// How long it was waited for.
        after: Duration,
        /// What the lease said last.
        said: String,
    },
}

/// One trial.
pub struct Trial {
    client: Client,
    namespace: String,
    dynamic_secret: String,
    limit: Duration,
}

impl Trial {
    /// Of the DynamicSecret, which is in mode OnDemand; each of the two halves may take `limit`.
    pub fn new(client: Client, namespace: String, dynamic_secret: String, limit: Duration) -> Self {
        Self {
            client,
            namespace,
            dynamic_secret,
            limit,
        }
    }

    /// Returns when an account was issued and is proven gone.
    pub async fn run(&self) -> Result<(), TrialError> {
        let lease = objects::make(&self.client, &self.namespace, &self.compose()).await?;
        let name = lease.name_any();
        tracing::info!(
            lease = name,
            dynamic_secret = self.dynamic_secret,
            "asked for an account"
        );
        let issued = self.issued(&name).await;
        // Whatever came of it: what was asked for is taken back.
        objects::delete(&self.client, &lease).await?;
        let username = issued?;
        tracing::info!(username, "the account was issued, and is being taken back");
        self.gone(&name, &username).await?;
        tracing::info!(username, "the account is proven gone");
        Ok(())
    }

    fn compose(&self) -> CredentialLease {
        CredentialLease {
            metadata: ObjectMeta {
                name: Some(format!("dsv-trial-{}", base32(&rand::random::<[u8; 10]>()))),
                ..ObjectMeta::default()
            },
            spec: CredentialLeaseSpec {
                dynamic_secret: self.dynamic_secret.clone(),
                verifier: Some(Verifier::of(&Password::generate()).as_str().to_owned()),
                target: None,
                ttl: Some(Span::Seconds(TTL_SECONDS)),
                bound_to: None,
                claim: None,
            },
            status: None,
        }
    }

    /// The name of the account, as soon as it exists.
    async fn issued(&self, name: &str) -> Result<String, TrialError> {
        let start = Instant::now();
        let mut said = "the operator has not looked at the lease; is it running?".to_owned();
        loop {
            let Some(lease) = self.look(name).await? else {
                return Err(self.not_issued(start, format!("the lease is gone, and said at last: {said}")));
            };
            let status = lease.status.unwrap_or_default();
            if let (Some(Phase::Issued), Some(username)) = (status.phase, status.username) {
                return Ok(username);
            }
            said = told(&status.conditions).unwrap_or(said);
            // A lease that waits for an engine goes on by itself; one that is stalled does not.
            let hopeless = conditions::find(&status.conditions, STALLED).is_some();
            if hopeless || start.elapsed() >= self.limit {
                return Err(self.not_issued(start, said));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn not_issued(&self, start: Instant, said: String) -> TrialError {
        TrialError::NotIssued {
            namespace: self.namespace.clone(),
            dynamic_secret: self.dynamic_secret.clone(),
            after: start.elapsed(),
            said,
        }
    }

    /// Until the lease has gone, which is the proof.
    async fn gone(&self, name: &str, username: &str) -> Result<(), TrialError> {
        let start = Instant::now();
        while let Some(lease) = self.look(name).await? {
            if start.elapsed() >= self.limit {
                let status = lease.status.unwrap_or_default();
                return Err(TrialError::NotGone {
                    namespace: self.namespace.clone(),
                    username: username.to_owned(),
                    after: start.elapsed(),
                    said: told(&status.conditions).unwrap_or_default(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn look(&self, name: &str) -> Result<Option<CredentialLease>, Error> {
        objects::read(&self.client, &self.namespace, name).await
    }
}

fn told(conditions: &[Condition]) -> Option<String> {
    let ready = conditions::find(conditions, READY)?;
    Some(format!("{}: {}", ready.reason, ready.message))
}
