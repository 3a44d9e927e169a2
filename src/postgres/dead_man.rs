//! Taking accounts back without an operator: those of one installation whose signed end is past, found by their comments.
//!
//! Only for an engine that has no session with an operator. Everything is as when the operator asks: the same proof, lock and
//! barrier. What the operator alone knows is not assumed: nothing that an account owns is ever dropped from here.

use super::failure::{Trouble, failure};
use super::pool::Server;
use super::{Proof, Signers, clock, names, revoke};
use crate::channel::frames::{
    AccountState, Done, Failure, FailureClass, MAX_REVOKE_BATCH, Outcome, OwnedObjects, Revocation, ServerLogin,
};
use crate::keys::{RoleComment, RoleKind};
use crate::plan::dead_man;
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;

/// Servers that are looked at in parallel: each may take long to say that it cannot be reached.
pub(super) const AT_ONCE: usize = 8;
/// How long a look waits for a session.
const PATIENCE: Duration = Duration::from_secs(15);
/// Roles that are read at once; a comment has at most a kilobyte.
const PAGE: i64 = 1000;

/// A login that is kept because its server has open leases.
#[derive(Clone)]
pub(super) struct Guarded {
    pub(super) login: ServerLogin,
    pub(super) signers: Signers,
    /// Since when no account was there, as far as was looked.
    empty_since: Option<Instant>,
}

impl Guarded {
    pub(super) fn new(login: ServerLogin, signers: Signers) -> Self {
        Self {
            login,
            signers,
            empty_since: None,
        }
    }

    /// Notes what a look found, and says whether the login is still to be kept.
    pub(super) fn seen(&mut self, round: &Round) -> bool {
        if round.is_empty() {
            let since = *self.empty_since.get_or_insert_with(Instant::now);
            return SignedDuration::try_from(since.elapsed()).is_ok_and(|since| since < dead_man::EMPTY);
        }
        self.empty_since = None;
        true
    }
}

/// What came of one look at one server.
#[derive(Debug, Clone)]
pub(super) struct Round {
    /// Accounts that were found; None where the server could not be asked.
    found: Option<usize>,
    revoked: usize,
    resisting: usize,
    pause: SignedDuration,
}

impl Round {
    fn is_empty(&self) -> bool {
        self.found == Some(0)
    }
}

/// What came of a look at all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Accounts that were made gone.
    pub revoked: usize,
    /// Accounts that are past their end and still there.
    pub resisting: usize,
    /// Until the next look; none where there is nothing to look at.
    pub pause: Option<SignedDuration>,
}

impl Swept {
    pub(super) fn add(&mut self, round: &Round) {
        self.revoked += round.revoked;
        self.resisting += round.resisting;
        self.pause = Some(self.pause.map_or(round.pause, |pause| pause.min(round.pause)));
    }
}

/// An account of ours.
struct Found {
    oid: u32,
    role: String,
    said: RoleComment,
}

/// Looks at one server, and makes gone what is due.
pub(super) async fn round(server: &Server, signers: &Signers) -> Round {
    let nothing = Round {
        found: None,
        revoked: 0,
        resisting: 0,
        pause: dead_man::pause([], Timestamp::UNIX_EPOCH),
    };
    let (accounts, now) = match look(server, signers).await {
        Ok(Some(seen)) => seen,
        Ok(None) => {
            return Round {
                found: Some(0),
                ..nothing
            };
        }
        Err(error) => {
            let (server, error) = (&server.login.record, error.message);
            tracing::warn!(
                server,
                error,
                "without an operator, and this server could not be looked at"
            );
            return nothing;
        }
    };
    let due: Vec<Revocation> = accounts
        .iter()
        .filter(|account| dead_man::is_due(account.said.expires_at, now))
        .map(|account| revocation(account, now))
        .collect();
    let pause = dead_man::pause(accounts.iter().map(|account| account.said.expires_at), now);
    let mut revoked = 0;
    for batch in due.chunks(MAX_REVOKE_BATCH) {
        revoked += take_back(server, signers, batch).await;
    }
    Round {
        found: Some(accounts.len()),
        revoked,
        resisting: due.len() - revoked,
        pause,
    }
}

/// All accounts of the installation with a genuine comment, and the database's clock; None where there is none.
async fn look(server: &Server, signers: &Signers) -> Result<Option<(Vec<Found>, Timestamp)>, Failure> {
    let session = server.session(Instant::now() + PATIENCE).await?;
    let beginning = format!("dsv/1 kind=lease inst={} ", signers.installation());
    let sql = format!(
        "SELECT r.oid, r.rolname::text, d.description, {}::text FROM pg_shdescription d \
         JOIN pg_roles r ON r.oid = d.objoid WHERE d.classoid = 'pg_authid'::regclass \
         AND starts_with(d.description, $1) AND r.oid > $2 ORDER BY r.oid LIMIT {PAGE}",
        clock::SQL
    );
    let (mut found, mut now, mut after) = (Vec::new(), None, 0_u32);
    loop {
        let rows = session
            .query(
                "list our accounts",
                &sql,
                &[(&beginning, Type::TEXT), (&after, Type::OID)],
            )
            .await
            .map_err(|trouble: Trouble| Failure::from(trouble))?;
        let Some(last) = rows.last() else { break };
        now = clock::read(last.try_get(3).ok()).map(|clock| clock.now);
        after = last.try_get(0).unwrap_or(u32::MAX);
        found.extend(rows.iter().filter_map(|row| {
            let comment: String = row.try_get(2).ok()?;
            let said = signers.read(&comment).filter(|said| said.kind == RoleKind::Lease)?;
            Some(Found {
                oid: row.try_get(0).ok()?,
                role: row.try_get(1).ok()?,
                said,
            })
        }));
    }
    session.keep();
    match (found.is_empty(), now) {
        (true, _) => Ok(None),
        (false, Some(now)) => Ok(Some((found, now))),
        (false, None) => Err(failure(FailureClass::Server, "the server's clock cannot be read")),
    }
}

fn revocation(account: &Found, now: Timestamp) -> Revocation {
    // With a recorded OID a role is dropped before its sessions are ended, which is safe only where a lease keeps that OID. So
    // it is named only where the role was renamed by hand and cannot be found otherwise.
    let by_name = names::suffix(&account.said.subject).is_some_and(|suffix| account.role.ends_with(&suffix));
    Revocation {
        lease_uid: account.said.subject.clone(),
        role: account.role.clone(),
        issue_deadline: account.said.expires_at.unwrap_or(now),
        role_oid: (!by_name).then_some(account.oid),
        owned_objects: OwnedObjects::Reassign,
    }
}

/// How many are gone.
async fn take_back(server: &Server, signers: &Signers, batch: &[Revocation]) -> usize {
    let proof: &dyn Proof = signers;
    let record = &server.login.record;
    // Only the operator can sign keepers: what an account owns stays with it, locked and without sessions, until one is back.
    let accounts = match revoke::revoke(server, proof, batch, &[]).await {
        Outcome::Done {
            done: Done::Revoked { accounts, .. },
            ..
        } => accounts,
        other => {
            tracing::warn!(server = record, outcome = ?other, "without an operator, and accounts past their end could not be revoked");
            return 0;
        }
    };
    let mut gone = 0;
    for account in accounts {
        let lease = account.lease_uid;
        match account.state {
            AccountState::Gone { dropped, .. } => {
                gone += 1;
                tracing::info!(
                    server = record,
                    lease,
                    dropped,
                    "without an operator: an account past its end is gone"
                );
            }
            state => tracing::warn!(
                server = record,
                lease,
                ?state,
                "without an operator: an account past its end resists"
            ),
        }
    }
    gone
}
