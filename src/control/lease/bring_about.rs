//! Bringing an account about: issue, deliver, report.

use super::{BY_EVENT, Pass, SOON, until_then};
use crate::api::conditions::{Reason, ReasonKind};
use crate::api::dynamic_secret::AccountOptions;
use crate::api::lease::{Claim, Phase};
use crate::api::ttl::Span;
use crate::channel::frames::{Account, AccountSettings, Done, Task};
use crate::cluster::credential_secret::{self, Credential};
use crate::control::hold::{Error, Hold};
use crate::control::making::unfit_template;
use crate::control::own_writes::Stage;
use crate::control::tasks::{Answer, ask};
use crate::control::{report, servers};
use crate::keys::{RoleComment, RoleKind};
use crate::plan::lease::SecretSeen;
use crate::plan::shape::{self, Login};
use crate::telemetry::ledger::Deed;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use std::time::Duration;

/// How long an engine may take to issue.
const ISSUE_PATIENCE: Duration = Duration::from_secs(10);

impl Pass<'_> {
    pub(super) async fn issue(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        let Some(server) = self.login(claim).await? else {
            let home = &self.ctx.settings.home;
            let record = &claim.server;
            let message = format!("server record {home}/{record} is gone; it comes back from the base secret");
            return self.hold(Hold::new(Reason::BaseSecretMissing, message)).await;
        };
        let group = servers::claimed_group(self.ctx, claim)?;
        let account = self.account_to_issue(claim)?;
        let task = Task::Issue { server, group, account };
        failpoint!("issue.before", self.name());
        match ask(
            self.ctx,
            &self.ctx.pool_uid(&claim.pool),
            &claim.server,
            task,
            ISSUE_PATIENCE,
        )
        .await
        {
            Answer::Done(engine, Done::Issued { role_oid, adopted }) => {
                tracing::info!(lease = %self.name(), engine = engine.name, adopted, "account issued");
                self.account = Some((role_oid, engine.name));
                failpoint!("issue.answered", self.name());
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
            comment: comment.sign(&self.ctx.installation.signing())?,
            valid_until: claim.valid_until.0,
            issue_deadline: claim.issue_deadline.0,
            settings: claim.account.as_deref().map(settings).unwrap_or_default(),
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

    pub(super) async fn deliver(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        let (Some(target), Some(verifier)) = (claim.target.clone(), self.lease.verifier()) else {
            return Ok(Some(Action::await_change()));
        };
        let Some(password) = self.ctx.passwords.of(verifier) else {
            return Ok(Some(Action::requeue(SOON)));
        };
        let identity = self.identity(claim);
        let older = self.secret.clone();
        let meta = older.as_ref().map(|found| &found.metadata);
        let whose = credential_secret::whose(meta, &identity);
        if !matches!(whose, SecretSeen::Absent | SecretSeen::Older) {
            return self.give_up(not_ours(&identity.namespace, &target)).await;
        }
        let Some(server) = self.login(claim).await? else {
            return Ok(Some(Action::requeue(SOON)));
        };
        let owner = self.ctx.owner(&self.lease).await?;
        let wanted = owner
            .as_ref()
            .and_then(|owner| owner.spec.target.as_ref())
            .filter(|_| claim.serial > 0);
        let role = self.role(claim);
        let login = Login {
            username: &role,
            password: password.reveal(),
            server: &server,
        };
        // Checked before the lease was made; somebody may have changed it since.
        let keys = match shape::keys(login, wanted) {
            Ok(keys) => keys,
            Err(unfit) => return self.give_up(unfit_template(&unfit)).await,
        };
        let credential = Credential {
            lease: &identity,
            username: &role,
            keys,
            expires_at: claim.expires_at.0,
            target: wanted,
        };
        self.ctx.still_leading()?;
        failpoint!("deliver.before", self.name());
        let key = &self.ctx.installation.hash_key;
        let written = credential_secret::deliver(&self.ctx.client, &target, meta, &credential, key).await;
        failpoint!("deliver.written", self.name());
        match written {
            Err(error) if error.is_refused() => {
                self.give_up(target_refused(&identity.namespace, &target, &error)).await
            }
            Err(error) if !(error.is_unknown() || error.is_conflict()) => Err(error.into()),
            Ok(secret) => {
                self.secret = Some(secret);
                Ok(None)
            }
            // What came of a write without an answer is looked at before it is believed.
            Err(error) => {
                tracing::info!(lease = %self.name(), %error, "looking again");
                self.look(Some(claim)).await?;
                Ok(None)
            }
        }
    }

    pub(super) async fn report(&mut self, claim: &Claim) -> Result<Option<Action>, Error> {
        self.ctx.still_leading()?;
        let role = self.role(claim);
        let version = self.secret.as_ref().and_then(ResourceExt::resource_version);
        let issued = report::Issued {
            role: &role,
            account: self.account.as_ref(),
            secret_version: version,
        };
        self.ctx.note(&self.lease, Deed::Issue, &role);
        failpoint!("report.before", self.name());
        let written = report::issued(self.ctx, &self.lease, claim, &issued).await?;
        failpoint!("report.written", self.name());
        let took = self
            .lease
            .verifier()
            .and_then(|verifier| self.ctx.passwords.forget(verifier));
        if let Some(took) = took {
            self.ctx.metrics.issued(took);
        }
        match written {
            Some(lease) => self.lease = lease,
            None => return Ok(Some(Action::await_change())),
        }
        if self.reported() {
            self.wrote(Stage::Reported);
        }
        Ok(None)
    }
}

fn target_refused(namespace: &str, target: &str, error: &crate::cluster::Error) -> Hold {
    let answer = error.status().map(|s| s.message.clone()).unwrap_or_default();
    let message = format!("the API server refused Secret {namespace}/{target}: {answer}");
    Hold::new(Reason::TargetRefused, message)
}

fn not_ours(namespace: &str, target: &str) -> Hold {
    let message =
        format!("Secret {namespace}/{target} exists and is not ours; rename or delete it, or choose another name");
    Hold::new(Reason::TargetNotOurs, message)
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
