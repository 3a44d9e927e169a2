//! The controller of leases: brings an account about, and takes it back, step by step as `plan::lease` says.

use super::context::Context;
use super::hold::{Error, Hold};
use super::report;
use super::servers;
use super::takeon;
use super::tasks::{Answer, ask};
use crate::api::CredentialLease;
use crate::api::conditions::{Reason, ReasonKind};
use crate::api::dynamic_secret::AccountOptions;
use crate::api::lease::{Claim, Phase};
use crate::api::names::{LEASE_FINALIZER, role_name};
use crate::api::ttl::Span;
use crate::channel::frames::{Account, AccountSettings, AccountState, Done, Revocation, Task};
use crate::cluster::credential_secret::{self, Credential, LeaseIdentity};
use crate::cluster::{objects, server_record};
use crate::keys::{RoleComment, RoleKind};
use crate::plan::backoff;
use crate::plan::lease::{End, Now, Observed, SecretSeen, Step, end, next};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use kube::runtime::controller::Action;
use std::sync::Arc;
use std::time::Duration;

/// How long an engine may take to issue.
const ISSUE_PATIENCE: Duration = Duration::from_secs(10);
/// Until the next look at an outcome that is not known.
const SOON: Duration = Duration::from_secs(1);
/// Until the next look where an event is what is really waited for.
const BY_EVENT: Duration = Duration::from_secs(30);

/// One pass over one lease.
pub async fn reconcile(lease: Arc<CredentialLease>, ctx: Arc<Context>) -> Result<Action, Error> {
    let mut pass = Pass::new(&ctx, &lease);
    let action = loop {
        if let Some(action) = pass.step().await? {
            break action;
        }
    };
    Ok(action)
}

struct Pass<'a> {
    ctx: &'a Context,
    lease: CredentialLease,
    /// The Secret as looked at live in this pass: outer None = not looked yet.
    secret: Option<Option<PartialObjectMeta<Secret>>>,
    /// The account's OID and the engine that issued it in this pass.
    account: Option<(u32, String)>,
    gone: bool,
}

impl<'a> Pass<'a> {
    fn new(ctx: &'a Context, lease: &CredentialLease) -> Self {
        Self {
            ctx,
            lease: lease.clone(),
            secret: None,
            account: None,
            gone: false,
        }
    }

    fn now(&self, claim: Option<&Claim>) -> Now {
        let operator = self.ctx.now();
        let database = claim.and_then(|claim| self.ctx.servers.database_time(&claim.server, operator));
        Now { operator, database }
    }

    fn reported(&self) -> bool {
        self.lease
            .status
            .as_ref()
            .is_some_and(|status| status.issued_at.is_some())
    }

    /// One step; an action ends the pass.
    async fn step(&mut self) -> Result<Option<Action>, Error> {
        let claim = self.lease.claim().cloned();
        let now = self.now(claim.as_ref());
        let steady = self.reported()
            && self.lease.metadata.deletion_timestamp.is_none()
            && claim.as_ref().is_some_and(|claim| now.operator < claim.expires_at.0);
        if !steady && self.secret.is_none() {
            self.look(claim.as_ref()).await?;
        }
        let observed = self.observed(claim.as_ref(), steady);
        let step = next(&observed, now);
        let why = claim.as_ref().and_then(|claim| end(&observed, claim, now));
        tracing::debug!(lease = %self.name(), ?step, ?why, "step");
        match (step, claim) {
            (Step::Wait(until), _) => {
                self.ctx.wake_owner(&self.lease);
                Ok(Some(Action::requeue(until_then(now.operator, until))))
            }
            (Step::Nothing, _) => Ok(Some(Action::await_change())),
            (Step::TakeOn, _) => self.take_on().await.map(Some),
            (Step::Release, _) => self.release().await.map(Some),
            (Step::Delete, _) => self.delete().await,
            (_, None) => Ok(Some(Action::await_change())),
            (Step::Issue, Some(claim)) => self.issue(&claim).await,
            (Step::Deliver, Some(claim)) => self.deliver(&claim).await,
            (Step::Report, Some(claim)) => self.report(&claim).await,
            (Step::DeleteSecret, Some(claim)) => self.delete_secret(&claim).await,
            (Step::Revoke, Some(claim)) => self.revoke(&claim).await,
            (Step::RecordEnd, Some(claim)) => self.record_end(&claim, why).await.map(|()| None),
        }
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
            dynamic_secret_uid: claim.dynamic_secret_uid.clone(),
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
        let namespace = self.lease.namespace().unwrap_or_default();
        self.secret = Some(match claim.and_then(|claim| claim.target.as_deref()) {
            Some(target) => credential_secret::look(&self.ctx.client, &namespace, target).await?,
            None => None,
        });
        Ok(())
    }

    fn observed<'c>(&self, claim: Option<&'c Claim>, steady: bool) -> Observed<'c> {
        let secret = match claim {
            Some(claim) if claim.target.is_some() && steady => SecretSeen::Ours,
            Some(claim) if claim.target.is_some() => {
                let meta = self
                    .secret
                    .as_ref()
                    .and_then(|found| found.as_ref())
                    .map(|found| &found.metadata);
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
            end_recorded: report::end_is_recorded(self.ctx, &self.lease),
        }
    }

    async fn take_on(&mut self) -> Result<Action, Error> {
        takeon::take_on(self.ctx, &self.lease).await
    }

    async fn issue(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        let home = &self.ctx.settings.home;
        let Some(server) = server_record::login(&self.ctx.client, home, &claim.server).await? else {
            return self
                .hold(Hold::new(
                    Reason::BaseSecretMissing,
                    format!(
                        "server record {home}/{} is gone; it comes back from the base secret",
                        claim.server
                    ),
                ))
                .await;
        };
        let group = servers::claimed_group(self.ctx, claim)?;
        let account = self.account_to_issue(claim)?;
        let task = Task::Issue { server, group, account };
        match ask(self.ctx, &claim.pool.uid, &claim.server, task, ISSUE_PATIENCE).await {
            Answer::Done(engine, Done::Issued { role_oid, adopted }) => {
                tracing::info!(lease = %self.name(), engine = engine.name, adopted, "account issued");
                self.account = Some((role_oid, engine.name));
                Ok(None)
            }
            Answer::Failed(failure) => {
                self.ctx.servers.group_lost(&claim.server, &claim.group.name);
                let hold = Hold::from(&failure);
                // No other lease follows one that somebody asked for, so it is tried until its deadline.
                if claim.serial == 0 && hold.reason.kind() == ReasonKind::Waiting {
                    return self.hold(hold).await;
                }
                self.give_up(hold).await
            }
            other => self.hold(other.hold()).await,
        }
    }

    fn account_to_issue(&self, claim: &Claim) -> Result<Account, Error> {
        let role = self.role(claim);
        let lease_uid = self.lease.uid().unwrap_or_default();
        let comment = RoleComment {
            kind: RoleKind::Lease,
            installation: self.ctx.installation.id.clone(),
            subject: lease_uid.clone(),
            role: role.clone(),
            claimed_at: claim.claimed_at.0,
            expires_at: Some(claim.valid_until.0),
        };
        Ok(Account {
            lease_uid,
            role,
            verifier: self.lease.verifier().unwrap_or_default().to_owned(),
            comment: comment.sign(&self.ctx.installation.signing)?,
            valid_until: claim.valid_until.0,
            issue_deadline: claim.issue_deadline.0,
            settings: claim.account.as_ref().map(settings).unwrap_or_default(),
        })
    }

    /// The engine's answer was no: this lease will not come about. Its dynamic secret says why and makes the next one.
    async fn give_up(&mut self, hold: Hold) -> Result<Option<Action>, Error> {
        report::failed(self.ctx, &self.lease, &hold).await?;
        if let Some(verifier) = self.lease.verifier() {
            self.ctx.passwords.forget(verifier);
        }
        self.delete().await
    }

    async fn hold(&mut self, hold: Hold) -> Result<Option<Action>, Error> {
        let wait = if hold.reason == Reason::WaitingForEngine {
            BY_EVENT
        } else {
            SOON
        };
        let left = self
            .lease
            .claim()
            .map(|claim| until_then(self.ctx.now(), claim.expires_at.0));
        report::lease_waits(self.ctx, &self.lease, Phase::Pending, &hold).await?;
        Ok(Some(Action::requeue(left.map_or(wait, |left| left.min(wait)))))
    }

    async fn deliver(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        let (Some(target), Some(verifier)) = (claim.target.clone(), self.lease.verifier()) else {
            return Ok(Some(Action::await_change()));
        };
        let Some(password) = self.ctx.passwords.of(verifier) else {
            return Ok(Some(Action::requeue(SOON)));
        };
        let identity = self.identity(claim);
        let older = self.secret.clone().flatten();
        let meta = older.as_ref().map(|found| &found.metadata);
        if !matches!(
            credential_secret::whose(meta, &identity),
            SecretSeen::Absent | SecretSeen::Older
        ) {
            let message = format!(
                "Secret {}/{target} exists and is not ours; rename or delete it, or choose another name",
                identity.namespace
            );
            return self.give_up(Hold::new(Reason::TargetNotOurs, message)).await;
        }
        let home = &self.ctx.settings.home;
        let Some(server) = server_record::login(&self.ctx.client, home, &claim.server).await? else {
            return Ok(Some(Action::requeue(SOON)));
        };
        let owner = self.ctx.owner(&self.lease);
        let wanted = owner
            .as_ref()
            .and_then(|owner| owner.spec.target.as_ref())
            .filter(|_| claim.serial > 0);
        let credential = Credential {
            lease: &identity,
            username: &self.role(claim),
            password: &password,
            server: &server,
            expires_at: claim.expires_at.0,
            target: wanted,
        };
        self.ctx.still_leading()?;
        let key = &self.ctx.installation.hash_key;
        match credential_secret::deliver(&self.ctx.client, &target, meta, &credential, key).await {
            // What was written, or what came of a write without an answer, is looked at before it is believed.
            Ok(_) => {}
            Err(error) if error.is_unknown() || error.is_conflict() => {
                tracing::info!(lease = %self.name(), %error, "looking again")
            }
            Err(error) if error.is_refused() => {
                let answer = error.status().map(|s| s.message.clone()).unwrap_or_default();
                let message = format!(
                    "the API server refused Secret {}/{target}: {answer}",
                    identity.namespace
                );
                return self.give_up(Hold::new(Reason::TargetRefused, message)).await;
            }
            Err(error) => return Err(error.into()),
        }
        self.look(Some(claim)).await?;
        Ok(None)
    }

    async fn report(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        let role = self.role(claim);
        let version = self
            .secret
            .as_ref()
            .and_then(|found| found.as_ref())
            .and_then(|found| found.resource_version());
        let issued = report::Issued {
            role: &role,
            account: self.account.as_ref(),
            secret_version: version,
        };
        let written = report::issued(self.ctx, &self.lease, claim, &issued).await?;
        if let Some(verifier) = self.lease.verifier() {
            self.ctx.passwords.forget(verifier);
        }
        match written {
            Some(lease) => self.lease = lease,
            None => return Ok(Some(Action::await_change())),
        }
        Ok(None)
    }

    async fn delete_secret(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        let (Some(target), Some(Some(found))) = (claim.target.clone(), self.secret.clone()) else {
            return Ok(None);
        };
        self.ctx.still_leading()?;
        let namespace = self.lease.namespace().unwrap_or_default();
        match credential_secret::delete(&self.ctx.client, &namespace, &target, &found.metadata).await {
            Ok(()) => {}
            Err(error) if error.is_conflict() => {
                tracing::info!(lease = %self.name(), "the Secret changed; looking again")
            }
            Err(error) => return Err(error.into()),
        }
        self.look(Some(claim)).await?;
        Ok(None)
    }

    async fn revoke(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        let revocation = Revocation {
            lease_uid: self.lease.uid().unwrap_or_default(),
            role: self.role(claim),
            issue_deadline: claim.issue_deadline.0,
            role_oid: self
                .lease
                .status
                .as_ref()
                .and_then(|s| s.role_oid)
                .and_then(|oid| u32::try_from(oid).ok()),
            owned_objects: claim.owned_objects.into(),
        };
        let state = self
            .ctx
            .revocations
            .revoke(self.ctx, &claim.pool.uid, &claim.server, revocation)
            .await;
        match state {
            Ok(AccountState::Gone { proven: true, .. }) => {
                self.gone = true;
                Ok(None)
            }
            // Absent, but a CREATE that is still under way may land until the deadline: asked again then.
            Ok(AccountState::Gone { proven: false, .. }) => {
                let now = self.ctx.now();
                let there = self.ctx.servers.database_time(&claim.server, now).unwrap_or(now);
                let wait = until_then(there, claim.issue_deadline.0).max(Duration::from_millis(100));
                Ok(Some(Action::requeue(wait)))
            }
            Ok(AccountState::Blocked { locked, by, sql }) => self.blocked(locked, &by, sql.as_deref()).await.map(Some),
            Ok(AccountState::Foreign { role }) => {
                let message = format!(
                    "role {role} has this lease's name, but its comment is not ours; it was not touched. Drop or rename it by hand"
                );
                self.retry(Phase::Blocked, Hold::new(Reason::ForeignRole, message))
                    .await
                    .map(Some)
            }
            Ok(AccountState::Failed(failure)) => self.retry(Phase::Revoking, Hold::from(&failure)).await.map(Some),
            Err(hold) => self.retry(Phase::Revoking, hold).await.map(Some),
        }
    }

    async fn blocked(&mut self, locked: bool, by: &str, sql: Option<&str>) -> Result<Action, Error> {
        let login = if locked { "login is cut" } else { "login is not cut yet" };
        let free = sql.map(|sql| format!("; to free it run: {sql}")).unwrap_or_default();
        self.retry(
            Phase::Blocked,
            Hold::new(Reason::Blocked, format!("{login}; held by {by}{free}")),
        )
        .await
    }

    /// Taking back is never given up: it waits longer each time, five minutes at most, and an engine's connect wakes it.
    async fn retry(&mut self, phase: Phase, hold: Hold) -> Result<Action, Error> {
        let uid = self.lease.uid().unwrap_or_default();
        let count = self.ctx.attempts.count(&uid);
        report::lease_waits(self.ctx, &self.lease, phase, &hold).await?;
        let pause = backoff::pause(count);
        Ok(Action::requeue(Duration::try_from(pause).unwrap_or(BY_EVENT)))
    }

    async fn record_end(&mut self, claim: &Claim, why: Option<End>) -> Result<(), Error> {
        self.ctx.still_leading()?;
        report::ended(self.ctx, &self.lease, claim, &self.role(claim), why).await
    }

    async fn delete(&mut self) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        objects::delete(&self.ctx.client, &self.lease).await?;
        let namespace = self.lease.namespace().unwrap_or_default();
        let fresh: Option<CredentialLease> =
            objects::read(&self.ctx.client, &namespace, &self.lease.name_any()).await?;
        match fresh.filter(|fresh| fresh.uid() == self.lease.uid()) {
            Some(fresh) => {
                self.lease = fresh;
                self.ctx.wake_owner(&self.lease);
                Ok(None)
            }
            None => Ok(Some(Action::await_change())),
        }
    }

    async fn release(&mut self) -> Result<Action, Error> {
        self.ctx.still_leading()?;
        let uid = self.lease.uid().unwrap_or_default();
        match objects::remove_finalizer(&self.ctx.client, &self.lease, LEASE_FINALIZER).await {
            // Somebody wrote in between; the next view shows it.
            Err(error) if error.is_conflict() => return Ok(Action::requeue(Duration::from_millis(200))),
            other => other?,
        }
        if let Some(verifier) = self.lease.verifier() {
            self.ctx.passwords.forget(verifier);
        }
        self.ctx.endings.forget(&uid);
        self.ctx.attempts.reset(&uid);
        self.ctx.told_no_more(&uid);
        self.ctx.wake_owner(&self.lease);
        Ok(Action::await_change())
    }
}

fn settings(options: &AccountOptions) -> AccountSettings {
    let ms = |span: &Option<Span>| {
        span.as_ref()
            .and_then(Span::length)
            .and_then(|l| i64::try_from(l.as_millis()).ok())
    };
    AccountSettings {
        connection_limit: options.connection_limit,
        statement_timeout_ms: ms(&options.statement_timeout),
        idle_in_transaction_timeout_ms: ms(&options.idle_in_transaction_timeout),
        search_path: options.search_path.clone(),
    }
}

/// How long from one time to another; nothing where it is past.
pub fn until_then(now: Timestamp, then: Timestamp) -> Duration {
    let left = then.duration_since(now).max(SignedDuration::ZERO);
    Duration::try_from(left).unwrap_or_default()
}
