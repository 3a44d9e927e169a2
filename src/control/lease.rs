//! The controller of leases: brings an account about, and takes it back, step by step as `plan::lease` says.

mod bring_about;
mod take_back;

use super::context::Context;
use super::crowd::Place;
use super::hold::{Error, Hold};
use super::own_writes::Stage;
use super::report;
use super::servers;
use super::takeon::{self, TakenOn};
use crate::api::CredentialLease;
use crate::api::conditions::Reason;
use crate::api::lease::Claim;
use crate::api::names::{LEASE_FINALIZER, role_name};
use crate::channel::frames::ServerLogin;
use crate::cluster::credential_secret::{self, LeaseIdentity};
use crate::cluster::objects;
use crate::plan::lease::{Now, Observed, SecretSeen, Step, end, next};
use crate::telemetry::ledger::Deed;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Until the next look at an outcome that is not known.
const SOON: Duration = Duration::from_secs(1);
/// Until the next look where an event is what is really waited for.
const BY_EVENT: Duration = Duration::from_secs(30);

/// One pass over one lease.
pub async fn reconcile(lease: Arc<CredentialLease>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(lease) = up_to_date(&ctx, &lease).await? else {
        return Ok(Action::await_change());
    };
    let mut pass = Pass::new(&ctx, lease);
    let action = loop {
        if let Some(action) = pass.step().await? {
            break action;
        }
    };
    Ok(action)
}

/// The lease as the cache shows it, or as it is, where the cache does not show yet what we wrote; none where it is gone.
async fn up_to_date(ctx: &Context, seen: &CredentialLease) -> Result<Option<CredentialLease>, Error> {
    if !ctx
        .own_writes
        .is_behind(&seen.uid().unwrap_or_default(), Stage::of(seen))
    {
        return Ok(Some(seen.clone()));
    }
    live(ctx, seen).await
}

/// The lease as it is now; none where it is gone.
async fn live(ctx: &Context, seen: &CredentialLease) -> Result<Option<CredentialLease>, Error> {
    let namespace = seen.namespace().unwrap_or_default();
    let found: Option<CredentialLease> = objects::read(&ctx.client, &namespace, &seen.name_any()).await?;
    Ok(found.filter(|found| found.uid() == seen.uid()))
}

struct Pass<'a> {
    ctx: &'a Context,
    lease: CredentialLease,
    /// Whether the Secret was looked at live in this pass, and what was found.
    looked: bool,
    secret: Option<PartialObjectMeta<Secret>>,
    /// The login of the lease's server, once it was read in this pass.
    login: Option<ServerLogin>,
    /// The account's OID and the engine that issued it in this pass.
    account: Option<(u32, String)>,
    gone: bool,
    /// It was let go of: nobody knows whether the account is gone.
    abandoned: bool,
    /// From which the books are closed on an account that is gone.
    closing: Option<Place<'a>>,
}

impl<'a> Pass<'a> {
    fn new(ctx: &'a Context, lease: CredentialLease) -> Self {
        Self {
            ctx,
            lease,
            looked: false,
            secret: None,
            login: None,
            account: None,
            gone: false,
            abandoned: false,
            closing: None,
        }
    }

    fn now(&self, claim: Option<&Claim>) -> Now {
        let operator = self.ctx.now();
        let database = claim.and_then(|claim| self.ctx.servers.database_time(&claim.server));
        Now { operator, database }
    }

    fn reported(&self) -> bool {
        self.lease
            .status
            .as_ref()
            .is_some_and(|status| status.issued_at.is_some())
    }

    fn proven_earlier(&self) -> bool {
        let uid = self.lease.metadata.uid.as_deref();
        uid.is_some_and(|uid| self.ctx.closing.is_proven(uid))
    }

    /// One step; an action ends the pass.
    async fn step(&mut self) -> Result<Option<Action>, Error> {
        let claim = self.lease.claim().cloned();
        let now = self.now(claim.as_ref());
        if !self.gone && self.proven_earlier() {
            // The Secret went before the account did.
            (self.gone, self.looked) = (true, true);
        }
        if self.gone && !self.has_place_to_close() {
            return Ok(Some(Action::requeue(BY_EVENT)));
        }
        let steady = self.reported()
            && self.lease.metadata.deletion_timestamp.is_none()
            && claim.as_ref().is_some_and(|claim| now.operator < claim.expires_at.0);
        if !steady && !self.looked {
            self.look_first(claim.as_ref()).await?;
        }
        let mut observed = self.observed(claim.as_ref(), steady);
        // Only asked when it matters: after the account is gone.
        observed.end_recorded = self.gone && report::end_is_recorded(self.ctx, &self.lease).await?;
        let step = next(&observed, now);
        let why = claim.as_ref().and_then(|claim| end(&observed, claim, now));
        let reported = observed.reported;
        tracing::debug!(lease = %self.name(), ?step, ?why, "step");
        match (step, claim) {
            (Step::Wait(until), _) => {
                self.ctx.wake_owner(&self.lease);
                Ok(Some(Action::requeue(until_then(now.operator, until))))
            }
            (Step::TakeOn, _) => self.take_on().await,
            (Step::Release, _) => self.release().await.map(Some),
            (Step::Delete, _) => {
                if !reported {
                    self.count_failure().await?;
                }
                self.delete().await
            }
            (Step::Nothing, _) | (_, None) => Ok(Some(Action::await_change())),
            (Step::Issue, Some(claim)) => self.issue(&claim).await,
            (Step::Deliver, Some(claim)) => self.deliver(&claim).await,
            (Step::Report, Some(claim)) => self.report(&claim).await,
            (Step::DeleteSecret, Some(claim)) => self.delete_secret(&claim).await,
            (Step::Revoke, Some(claim)) => self.revoke(&claim).await,
            (Step::RecordEnd, Some(claim)) => self.record_end(&claim, why).await.map(|()| None),
        }
    }

    /// An account that is let go of is not known to be gone in the next pass, so its books are closed in this one.
    fn has_place_to_close(&mut self) -> bool {
        if self.closing.is_none() && !self.abandoned {
            let name = (self.lease.namespace().unwrap_or_default(), self.lease.name_any());
            self.closing = self.ctx.closing.enter(self.ctx, name);
            return self.closing.is_some();
        }
        true
    }

    fn wrote(&self, stage: Stage) {
        let uid = self.lease.uid().unwrap_or_default();
        self.ctx.own_writes.note(&uid, stage, Instant::now());
    }

    fn name(&self) -> String {
        format!(
            "{}/{}",
            self.lease.namespace().unwrap_or_default(),
            self.lease.name_any()
        )
    }

    fn identity(&self, claim: &Claim) -> LeaseIdentity {
        LeaseIdentity {
            namespace: self.lease.namespace().unwrap_or_default(),
            name: self.lease.name_any(),
            uid: self.lease.uid().unwrap_or_default(),
            dynamic_secret_uid: claim.dynamic_secret_uid.to_string(),
            serial: claim.serial,
        }
    }

    fn role(&self, claim: &Claim) -> String {
        role_name(
            &claim.user_prefix,
            &self.lease.spec.dynamic_secret,
            &self.lease.uid().unwrap_or_default(),
        )
        .unwrap_or_default()
    }

    async fn look(&mut self, claim: Option<&Claim>) -> Result<(), Error> {
        self.secret = self.found(claim).await?;
        self.looked = true;
        Ok(())
    }

    async fn found(&self, claim: Option<&Claim>) -> Result<Option<PartialObjectMeta<Secret>>, Error> {
        let namespace = self.lease.namespace().unwrap_or_default();
        match claim.and_then(|claim| claim.target.as_deref()) {
            // Out of our reach since the operator was told to serve other namespaces; the account is not.
            Some(_) if self.ctx.serves(&namespace).is_err() => Ok(None),
            Some(target) => Ok(credential_secret::look(&self.ctx.client, &namespace, target).await?),
            None => Ok(None),
        }
    }

    /// The lease's Secret, where the cache shows it as its own: whoever deletes it names that version, and looks again where it
    /// is another one by now.
    fn cached(&self, claim: Option<&Claim>) -> Option<PartialObjectMeta<Secret>> {
        let namespace = self.lease.namespace()?;
        self.ctx.serves(&namespace).ok()?;
        let target = claim?.target.as_deref()?;
        let seen = self
            .ctx
            .stores
            .credentials
            .get(&ObjectRef::new(target).within(&namespace))?;
        seen.of_lease(self.lease.metadata.uid.as_deref()?)
    }

    /// The first look of a pass. A lease that is not reported yet will need its server's login too: both are read at once.
    async fn look_first(&mut self, claim: Option<&Claim>) -> Result<(), Error> {
        let Some(claim) = claim.filter(|_| !self.reported() && self.lease.metadata.deletion_timestamp.is_none()) else {
            return match self.cached(claim) {
                Some(secret) => {
                    (self.looked, self.secret) = (true, Some(secret));
                    Ok(())
                }
                None => self.look(claim).await,
            };
        };
        let (secret, login) = tokio::join!(self.found(Some(claim)), servers::login(self.ctx, &claim.server));
        self.secret = secret?;
        self.looked = true;
        // One that cannot be read is asked for again by whoever needs it.
        self.login = login.ok().flatten();
        Ok(())
    }

    /// The login of the lease's server, read once a pass; none where its record is gone.
    async fn login(&mut self, claim: &Claim) -> Result<Option<ServerLogin>, Error> {
        if self.login.is_none() {
            self.login = servers::login(self.ctx, &claim.server).await?;
        }
        Ok(self.login.clone())
    }

    fn observed<'c>(&self, claim: Option<&'c Claim>, steady: bool) -> Observed<'c> {
        let secret = match claim {
            Some(claim) if claim.target.is_some() && steady => SecretSeen::Ours,
            Some(claim) if claim.target.is_some() => {
                let meta = self.secret.as_ref().map(|found| &found.metadata);
                credential_secret::whose(meta, &self.identity(claim))
            }
            _ => SecretSeen::NotWanted,
        };
        let verifier = self.lease.verifier();
        Observed {
            deleting: self.lease.metadata.deletion_timestamp.is_some(),
            finalizer: self.lease.finalizers().iter().any(|f| f == LEASE_FINALIZER),
            claim,
            reported: self.reported(),
            account: self.account.is_some(),
            secret,
            password: verifier.is_some_and(|v| self.ctx.passwords.of(v).is_some()),
            gone: self.gone,
            end_recorded: false,
        }
    }

    async fn take_on(&mut self) -> Result<Option<Action>, Error> {
        // On the heap: the passes of leases that are not taken on need not carry it.
        match Box::pin(takeon::take_on(self.ctx, &self.lease)).await? {
            TakenOn::Later(action) => Ok(Some(action)),
            TakenOn::Now(lease) => {
                self.lease = *lease;
                self.wrote(Stage::Claimed);
                // Whose claim we just wrote, its target we found absent; who came in between is met when it is delivered. With a
                // claim of somebody else's, which has a password that is not here, the Secret may be there already.
                let is_new = self
                    .lease
                    .verifier()
                    .is_some_and(|v| self.ctx.passwords.of(v).is_some());
                (self.looked, self.secret) = (is_new, None);
                Ok(None)
            }
        }
    }

    /// A lease that did not come about: its dynamic secret waits a little longer before the next one.
    async fn count_failure(&self) -> Result<(), Error> {
        let message = "the credential could not be delivered in time; another one is issued";
        report::failed(self.ctx, &self.lease, &Hold::new(Reason::NotDelivered, message)).await
    }

    async fn delete(&mut self) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        failpoint!("close.before", self.name());
        let mut left = objects::delete(&self.ctx.client, &self.lease).await?;
        failpoint!("close.deleted", self.name());
        if left.is_none() {
            // Gone, or the answer was a conflict: one that is still there must not wait for a change that never comes.
            left = live(self.ctx, &self.lease).await?;
        }
        match left {
            Some(left) => {
                self.lease = left;
                self.ctx.wake_owner(&self.lease);
                Ok(None)
            }
            None => Ok(Some(Action::await_change())),
        }
    }

    async fn release(&mut self) -> Result<Action, Error> {
        self.ctx.still_leading()?;
        let uid = self.lease.uid().unwrap_or_default();
        failpoint!("release.before", self.name());
        if self.gone {
            self.ctx.audit.released(&uid);
            let deed = if self.abandoned { Deed::Abandon } else { Deed::Revoke };
            if let Some(claim) = self.lease.claim() {
                self.ctx.note(&self.lease, deed, &self.role(claim));
            }
        }
        // Before: the cache may have lost sight of it by the time that the answer is here.
        self.ctx.admission.ended(&self.lease);
        let released = objects::remove_finalizer(&self.ctx.client, &self.lease, LEASE_FINALIZER).await;
        failpoint!("release.done", self.name());
        match released {
            // Somebody wrote in between; the next view shows it.
            Err(error) if error.is_conflict() => return Ok(Action::requeue(Duration::from_millis(200))),
            other => other?,
        }
        self.wrote(Stage::Released);
        if let Some(verifier) = self.lease.verifier() {
            self.ctx.passwords.forget(verifier);
        }
        self.ctx.endings.forget(&uid);
        self.ctx.attempts.reset(&uid);
        self.ctx.told_no_more(&uid);
        self.ctx.noted.forget(&uid);
        self.ctx.wake_owner(&self.lease);
        Ok(Action::await_change())
    }
}

/// How long from one time to another; nothing where it is past.
pub fn until_then(now: Timestamp, then: Timestamp) -> Duration {
    let left = then.duration_since(now).max(SignedDuration::ZERO);
    Duration::try_from(left).unwrap_or_default()
}
