//! Taking an account back: Secret, account, books.

use super::{BY_EVENT, Pass, until_then};
use crate::api::conditions::Reason;
use crate::api::lease::{Claim, Phase};
use crate::channel::frames::{AccountState, Revocation};
use crate::cluster::credential_secret;
use crate::control::abandon::{self, Verdict};
use crate::control::hold::{Error, Hold};
use crate::control::{report, silence, tasks};
use crate::plan::backoff;
use crate::plan::lease::End;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use std::time::Duration;

/// A lease that waits until others of its server are done is woken; this is for a wake that is lost.
const OUTSIDE: Duration = Duration::from_secs(30);

impl Pass<'_> {
    pub(super) async fn delete_secret(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        let (Some(target), Some(found)) = (claim.target.clone(), self.secret.clone()) else {
            return Ok(None);
        };
        self.ctx.still_leading()?;
        let namespace = self.lease.namespace().unwrap_or_default();
        failpoint!("expire.before", self.name());
        let deleted = credential_secret::delete(&self.ctx.client, &namespace, &target, &found.metadata).await;
        failpoint!("expire.deleted", self.name());
        match deleted {
            Ok(true) => {
                self.secret = None;
                return Ok(None);
            }
            Ok(false) => {}
            Err(error) if error.is_conflict() => {
                tracing::info!(lease = %self.name(), "the Secret changed; looking again");
            }
            Err(error) => return Err(error.into()),
        }
        self.look(Some(claim)).await?;
        Ok(None)
    }

    fn revocation(&self, claim: &Claim) -> Revocation {
        let role_oid = self.lease.status.as_ref().and_then(|s| s.role_oid);
        Revocation {
            lease_uid: self.lease.uid().unwrap_or_default(),
            role: self.role(claim),
            issue_deadline: claim.issue_deadline.0,
            role_oid: role_oid.and_then(|oid| u32::try_from(oid).ok()),
            owned_objects: claim.owned_objects.into(),
        }
    }

    pub(super) async fn revoke(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        if let Some(left) = self.ctx.attempts.left(&self.lease.uid().unwrap_or_default()) {
            return Ok(Some(Action::requeue(left)));
        }
        // A pool that was made anew, as from a backup, has another UID; its engines reach the same servers.
        let pool = self.ctx.pool_uid(&claim.pool);
        let asked = self.revocation(claim);
        failpoint!("revoke.before", self.name());
        let Some(state) = self.revoke_in_turn(&pool, &claim.server, asked).await else {
            return Ok(Some(Action::requeue(OUTSIDE)));
        };
        failpoint!("revoke.answered", self.name());
        match state {
            Ok(AccountState::Gone { proven: true, .. }) => {
                self.gone = true;
                self.ctx.closing.note_proven(&self.lease.uid().unwrap_or_default());
                let deleted = self.lease.metadata.deletion_timestamp.as_ref().map(|at| at.0);
                let ended = deleted.map_or(claim.expires_at.0, |at| at.min(claim.expires_at.0));
                self.ctx.metrics.revoked(until_then(ended, self.ctx.now()));
                Ok(None)
            }
            Ok(AccountState::Gone { proven: false, .. }) => self.unproven(claim).await.map(Some),
            Ok(AccountState::Blocked { locked, by, sql }) => self.blocked(claim, locked, &by, sql.as_deref()).await,
            Ok(AccountState::NeedsKeeper) => {
                let message = "login is cut; what the account owns goes to the keeper roles of many databases, and not \
                               all of them are done";
                self.retry(claim, Phase::Revoking, Hold::new(Reason::Revoking, message))
                    .await
            }
            Ok(AccountState::Foreign { role }) => {
                let message = format!(
                    "role {role} has this lease's name, but its comment is not ours; it was not touched. Drop or rename it by hand"
                );
                self.retry(claim, Phase::Blocked, Hold::new(Reason::ForeignRole, message))
                    .await
            }
            Ok(AccountState::Failed(failure)) => {
                let failure = tasks::named(self.ctx, &claim.server, failure);
                self.retry(claim, Phase::Revoking, Hold::from(&failure)).await
            }
            Err(hold) => self.retry(claim, Phase::Revoking, hold).await,
        }
    }

    /// None where too many wait for this server: the lease is woken when it can come.
    async fn revoke_in_turn(
        &self,
        pool_uid: &str,
        record: &str,
        asked: Revocation,
    ) -> Option<Result<AccountState, Hold>> {
        let ctx = self.ctx;
        if let Some(hold) = silence::hold(ctx, pool_uid, record) {
            ctx.crowds.call(ctx, record);
            return Some(Err(hold));
        }
        let name = (self.lease.namespace().unwrap_or_default(), self.lease.name_any());
        let _place = ctx.crowds.enter(ctx, record, name)?;
        Some(ctx.revocations.revoke(ctx, pool_uid, record, asked).await)
    }

    /// Absent, but a CREATE that is still under way may land until the deadline: asked again then.
    async fn unproven(&mut self, claim: &Claim) -> Result<Action, Error> {
        let message = format!(
            "the account is gone; the proof that it cannot come back is due at {}",
            credential_secret::whole_seconds(claim.issue_deadline.0)
        );
        report::lease_waits(
            self.ctx,
            &self.lease,
            Phase::Revoking,
            &Hold::new(Reason::Revoking, message),
        )
        .await?;
        let now = self.ctx.now();
        let there = self.ctx.servers.database_time(&claim.server).unwrap_or(now);
        let wait = until_then(there, claim.issue_deadline.0).max(Duration::from_millis(100));
        Ok(Action::requeue(wait))
    }

    async fn blocked(
        &mut self,
        claim: &Claim,
        locked: bool,
        by: &str,
        sql: Option<&str>,
    ) -> Result<Option<Action>, Error> {
        let login = if locked { "login is cut" } else { "login is not cut yet" };
        let free = sql.map(|sql| format!("; to free it run: {sql}")).unwrap_or_default();
        self.retry(
            claim,
            Phase::Blocked,
            Hold::new(Reason::Blocked, format!("{login}; held by {by}{free}")),
        )
        .await
    }

    /// Taking back is never given up: it waits longer each time, five minutes at most, and an engine's connect wakes it. Only
    /// who may change the pool can let go of it.
    async fn retry(&mut self, claim: &Claim, phase: Phase, hold: Hold) -> Result<Option<Action>, Error> {
        let verdict = abandon::lease(self.ctx, &self.lease, claim, &self.role(claim), &hold).await?;
        if verdict == Verdict::LetGo {
            (self.gone, self.abandoned) = (true, true);
            return Ok(None);
        }
        let uid = self.lease.uid().unwrap_or_default();
        let count = self.ctx.attempts.count(&uid);
        let mut pause = Duration::try_from(backoff::pause(count)).unwrap_or(BY_EVENT);
        if let Verdict::NotYet(then) = verdict {
            pause = pause.min(until_then(self.ctx.now(), then));
        }
        // Before the status is written: the write itself wakes this lease.
        self.ctx.attempts.pause(&uid, pause);
        report::lease_waits(self.ctx, &self.lease, phase, &hold).await?;
        Ok(Some(Action::requeue(pause)))
    }

    pub(super) async fn record_end(&mut self, claim: &Claim, why: Option<End>) -> Result<(), Error> {
        self.ctx.still_leading()?;
        failpoint!("end.before", self.name());
        report::ended(self.ctx, &self.lease, claim, &self.role(claim), (why, self.abandoned)).await?;
        failpoint!("end.recorded", self.name());
        Ok(())
    }
}
