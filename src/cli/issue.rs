//! `kubectl dsv issue`: a lease of one's own.
//!
//! The password is made here; the cluster, the engine and the database see only its verifier. A lease that is not printed
//! is deleted again, so that nobody's account is left behind when somebody stops waiting.

use super::bound::{self, Named};
use super::connect::Cluster;
use super::credential::{Credential, Form, Place};
use super::error::Intention;
use super::follow::{Ended, follow, interrupt};
use super::rotate::existing;
use super::{Error, advice, show};
use crate::api::conditions::{self, READY, ReasonKind};
use crate::api::dynamic_secret::Mode;
use crate::api::lease::{BoundTo, CredentialLeaseSpec, Phase};
use crate::api::names::base32;
use crate::api::ttl::Span;
use crate::api::{CredentialLease, DynamicSecret, EnginePool};
use crate::keys::{Password, Verifier};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use std::time::Duration;

/// Longest name of a Kubernetes object, less a dash and the random part of a lease's name.
const LONGEST_STEM: usize = 253 - 1 - 16;

/// What is asked for.
#[derive(Debug, Args)]
pub struct IssueArguments {
    /// Name of the DynamicSecret
    name: String,
    /// A shorter life than the DynamicSecret's ttl: seconds, or a duration such as 15m
    #[arg(long, value_parser = length)]
    ttl: Option<Span>,
    /// End the account with a Pod, Job or ServiceAccount of the namespace
    #[arg(long, value_parser = bound::named, value_name = "KIND/NAME")]
    bound_to: Option<Named>,
    /// How long to wait for the account, in seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// How the credential is shown
    #[arg(long, short, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Stay until Ctrl-C or the end, and take the account back then
    #[arg(long)]
    hold: bool,
}

pub(super) fn length(text: &str) -> Result<Span, String> {
    let span = Span::Text(text.to_owned());
    match span.length() {
        Some(length) if !length.is_zero() => Ok(span),
        _ => Err("write seconds, or a duration such as 15m or 1h30m".to_owned()),
    }
}

/// A lease that was issued, with its credential. Whoever has it sees to its end.
pub struct Obtained {
    leases: Api<CredentialLease>,
    made: CredentialLease,
    /// What to log in with.
    pub credential: Credential,
}

impl Obtained {
    /// Has the account taken back.
    pub async fn take_back(&self) -> Result<(), Error> {
        take_back(&self.leases, &self.made).await
    }
}

impl IssueArguments {
    /// For other commands that need a lease.
    pub fn of(name: String, ttl: Option<Span>, timeout: u64) -> Self {
        Self {
            name,
            ttl,
            bound_to: None,
            timeout,
            output: Form::default(),
            hold: false,
        }
    }

    /// The same, for an account that ends with something else.
    pub fn bound_to(self, bound_to: Option<Named>) -> Self {
        Self { bound_to, ..self }
    }
}

/// Runs the command.
pub async fn run(cluster: &Cluster, asked: IssueArguments) -> Result<(), Error> {
    let obtained = Box::pin(obtain(cluster, &asked)).await?;
    if let Err(error) = obtained.credential.print(asked.output, Timestamp::now()) {
        obtained.take_back().await?;
        return Err(error);
    }
    after(&obtained.leases, &obtained.made, &obtained.credential, asked.hold).await
}

/// Has an account issued.
pub async fn obtain(cluster: &Cluster, asked: &IssueArguments) -> Result<Obtained, Error> {
    let namespace = &cluster.namespace;
    let secrets: Api<DynamicSecret> = Api::namespaced(cluster.client.clone(), namespace);
    let owner = existing(&secrets, namespace, &asked.name).await?;
    if owner.spec.mode() != Mode::OnDemand {
        return Err(Error::Refused(format!(
            "DynamicSecret {namespace}/{} is in mode {:?} and delivers to a Secret by itself; leases can be asked for only \
             in mode OnDemand (spec.issuance.mode)",
            asked.name,
            owner.spec.mode()
        )));
    }
    let leases: Api<CredentialLease> = Api::namespaced(cluster.client.clone(), namespace);
    let bound_to = match &asked.bound_to {
        Some(named) => Some(bound::find(cluster, named).await?),
        None => None,
    };
    let password = Password::generate();
    let lease = compose(asked, bound_to, &Verifier::of(&password));
    let name = lease.name_any();
    let made = leases.create(&PostParams::default(), &lease).await;
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            // The request may have arrived although its answer did not.
            let _ = leases.delete(&name, &DeleteParams::default()).await;
            return Err(error).to(|| format!("create CredentialLease {namespace}/{name}"));
        }
    };
    match wait(&leases, &name, asked).await {
        Ok(issued) => Ok(Obtained {
            credential: complete(cluster, &owner, &issued, password).await,
            leases,
            made,
        }),
        Err(error) => {
            take_back(&leases, &made).await?;
            Err(error)
        }
    }
}

fn compose(asked: &IssueArguments, bound_to: Option<BoundTo>, verifier: &Verifier) -> CredentialLease {
    let mut stem = asked.name.clone();
    stem.truncate(LONGEST_STEM);
    // A name of our own choice, so that a lease whose answer was lost can be found and deleted.
    let name = format!("{stem}-{}", base32(&rand::random::<[u8; 10]>()));
    CredentialLease {
        metadata: ObjectMeta {
            name: Some(name),
            ..ObjectMeta::default()
        },
        spec: CredentialLeaseSpec {
            dynamic_secret: asked.name.clone(),
            verifier: Some(verifier.as_str().to_owned()),
            target: None,
            ttl: asked.ttl.clone(),
            bound_to,
            claim: None,
        },
        status: None,
    }
}

async fn wait(leases: &Api<CredentialLease>, name: &str, asked: &IssueArguments) -> Result<CredentialLease, Error> {
    let mut seen = false;
    let mut last = String::new();
    let judge = |state: Option<&CredentialLease>| {
        let Some(lease) = state else {
            let gone = seen.then(|| gone(&last));
            return gone.map(Err);
        };
        seen = true;
        judge(lease, &mut last)
    };
    match follow(leases.clone(), name, Duration::from_secs(asked.timeout), judge).await? {
        Ended::Seen(outcome) => outcome,
        Ended::TimedOut => {
            let why = if last.is_empty() {
                "the operator has not looked at the lease; is it running?".to_owned()
            } else {
                last
            };
            Err(Error::TooSlow(format!(
                "no account after {} seconds ({why}); nothing was issued",
                asked.timeout
            )))
        }
        Ended::Interrupted => Err(Error::Interrupted("stopped waiting; nothing was issued".to_owned())),
    }
}

fn gone(last: &str) -> Error {
    let why = if last.is_empty() {
        "its engine's log and the operator's say why"
    } else {
        last
    };
    Error::Refused(format!("the lease was ended before an account was issued: {why}"))
}

/// An answer as soon as the lease is issued, or refused in a way that waiting does not mend. Each new message is shown.
fn judge(lease: &CredentialLease, last: &mut String) -> Option<Result<CredentialLease, Error>> {
    let status = lease.status.as_ref()?;
    if status.phase == Some(Phase::Issued) && status.issued_at.is_some() {
        return Some(Ok(lease.clone()));
    }
    let condition = conditions::find(&status.conditions, READY)?;
    let text = format!("{}: {}", condition.reason, condition.message);
    let hopeless = advice::reason(&condition.reason).is_some_and(|reason| reason.kind() == ReasonKind::Refused);
    if hopeless {
        return Some(Err(Error::Refused(text)));
    }
    if *last != text {
        show::remark(&format!("waiting: {text}"));
        *last = text;
    }
    lease.metadata.deletion_timestamp.is_some().then(|| Err(gone(last)))
}

/// Adds where to log in. The pool may be in a namespace that the asker cannot read; then that part stays open.
async fn complete(
    cluster: &Cluster,
    owner: &DynamicSecret,
    issued: &CredentialLease,
    password: Password,
) -> Credential {
    let namespace = cluster.namespace.clone();
    let reference = &owner.spec.pool;
    let pools = reference.namespace.clone().unwrap_or_else(|| namespace.clone());
    let api: Api<EnginePool> = Api::namespaced(cluster.client.clone(), &pools);
    let pool = api.get_opt(&reference.name).await.ok().flatten();
    let linked = &owner.spec.link_config.linked_secret;
    let server = pool
        .iter()
        .filter_map(|pool| pool.status.as_ref())
        .flat_map(|status| &status.servers)
        .find(|server| server.linked_secret == *linked);
    let place = issued.claim().map(|claim| Place::of(server, claim)).unwrap_or_default();
    if place.host.is_none() {
        show::remark(&format!(
            "host and port are not known here: EnginePool {pools}/{} does not show them to you; ask its owner",
            reference.name
        ));
    }
    let status = issued.status.clone().unwrap_or_default();
    Credential {
        lease: (namespace, issued.name_any()),
        username: status.username.unwrap_or_default(),
        password,
        expires_at: status.expires_at.map_or_else(Timestamp::now, |at| at.0),
        place,
    }
}

async fn after(
    leases: &Api<CredentialLease>,
    made: &CredentialLease,
    credential: &Credential,
    hold: bool,
) -> Result<(), Error> {
    let (namespace, name) = &credential.lease;
    let now = Timestamp::now();
    let left = show::distance(now, credential.expires_at);
    if !hold {
        show::remark(&format!(
            "the account ends in {left}; sooner with: kubectl delete credentiallease -n {namespace} {name}"
        ));
        return Ok(());
    }
    show::remark(&format!("the account ends in {left}, or when you press Ctrl-C"));
    let rest = credential.expires_at.duration_since(now);
    tokio::select! {
        () = interrupt()? => {
            take_back(leases, made).await?;
            show::remark("the account is being taken back");
        }
        () = tokio::time::sleep(Duration::try_from(rest).unwrap_or_default()) => show::remark("the account has ended"),
    }
    Ok(())
}

/// Deletes exactly the lease that was made here; the operator then takes the account back, if there is one.
async fn take_back(leases: &Api<CredentialLease>, made: &CredentialLease) -> Result<(), Error> {
    let name = made.name_any();
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: made.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match leases.delete(&name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.code == 409 => Ok(()),
        other => other
            .map(|_| ())
            .to(|| format!("delete CredentialLease {name}, which ends by itself at its ttl")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;

    fn lease(phase: Phase, reason: Reason) -> CredentialLease {
        let arguments = IssueArguments {
            name: "app".into(),
            ttl: None,
            bound_to: None,
            timeout: 1,
            output: Form::Table,
            hold: false,
        };
        let mut lease = compose(&arguments, None, &Verifier::of(&Password::generate()));
        let status = lease.status.get_or_insert_default();
        status.phase = Some(phase);
        conditions::set_ready(&mut status.conditions, reason, "because", None, Timestamp::UNIX_EPOCH);
        lease
    }

    #[test]
    fn waiting_goes_on_and_a_refusal_ends_it() {
        let mut last = String::new();
        assert!(judge(&lease(Phase::Refused, Reason::TooManyLeases), &mut last).is_none());
        assert_eq!(last, "TooManyLeases: because");
        let refused = judge(&lease(Phase::Refused, Reason::AccessDenied), &mut last);
        assert!(matches!(refused, Some(Err(Error::Refused(text))) if text == "AccessDenied: because"));
    }

    #[test]
    fn a_lease_that_is_taken_back_is_no_credential() {
        let mut ending = lease(Phase::Pending, Reason::DatabaseUnreachable);
        ending.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            Timestamp::UNIX_EPOCH,
        ));
        let outcome = judge(&ending, &mut String::new());
        assert!(matches!(outcome, Some(Err(Error::Refused(text))) if text.contains("DatabaseUnreachable: because")));
    }

    #[test]
    fn names_fit_and_differ() {
        let arguments = IssueArguments {
            name: "n".repeat(253),
            ttl: None,
            bound_to: None,
            timeout: 1,
            output: Form::Table,
            hold: false,
        };
        let verifier = Verifier::of(&Password::generate());
        let (one, two) = (
            compose(&arguments, None, &verifier),
            compose(&arguments, None, &verifier),
        );
        assert_eq!(one.name_any().len(), 253);
        assert_ne!(one.name_any(), two.name_any());
    }

    #[test]
    fn a_ttl_is_a_length_of_time() {
        assert_eq!(length("15m").unwrap().length(), Some(Duration::from_mins(15)));
        assert!(length("soon").is_err() && length("0").is_err());
    }
}
