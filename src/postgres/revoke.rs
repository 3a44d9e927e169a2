//! Revoking accounts: gone, without a session, and proven so.
//!
//! An account whose OID a lease recorded goes the quick way: DROP first, since from then on nobody can log in and every
//! group right is gone, then its sessions, found by the OID. An account without a recorded OID is locked first: if we
//! crashed between DROP and terminate, nothing would lead to its sessions any more. One that owns something is locked as
//! well, leaves its groups, loses its sessions, and is dropped if those were all that kept it. Otherwise what it has is
//! taken from it in each database ([`resist`]), and then it is dropped. Each of these steps may be repeated, and an attempt
//! after a crash begins with the first.
//!
//! Every change is made under the lock on the lease's UID and only if name, OID and comment are still those that were
//! judged. Absence is proof once it was seen under that lock after the issue deadline.

mod drop;
mod joint;
mod look;
mod report;
mod resist;

use super::barrier::{self, Cleared};
use super::blockers::Blocked;
use super::failure::{Trouble, failure};
use super::keeper;
use super::pool::{Checkout, Server};
use super::proof::Proof;
use super::standby;
use crate::channel::frames::{
    AccountState, DatabaseClock, Done, Failure, FailureClass, Keeper, Outcome, Revocation, RevokedAccount,
};
pub(super) use joint::{Joint, revoke as revoke_with_others};
pub(super) use look::Role;
pub(super) use resist::{Keepers, Places, Refusals, holdings};

use drop::{Absence, Settled};
use look::{Case, Reach};
use resist::Emptied;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a task waits for a session.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often roles that change under our hands are looked up again.
const PASSES: usize = 4;

/// Revokes at most a batch. See [`super::Servers::revoke`].
pub(super) async fn revoke(server: &Server, proof: &dyn Proof, accounts: &[Revocation], keepers: &[Keeper]) -> Outcome {
    match server.session(Instant::now() + PATIENCE).await {
        Ok(session) => work(server, session, proof, accounts, keepers)
            .await
            .map_or_else(|outcome| outcome, Worked::outcome),
        Err(failure) => Outcome::Failed(failure),
    }
}

/// What came of some accounts, in their order.
struct Worked {
    accounts: Vec<RevokedAccount>,
    keepers_wanted: Vec<String>,
    clock: Option<DatabaseClock>,
}

impl Worked {
    fn outcome(self) -> Outcome {
        Outcome::Done {
            done: Done::Revoked {
                accounts: report::fit(self.accounts),
                keepers_wanted: self.keepers_wanted,
            },
            clock: self.clock,
        }
    }
}

async fn work(
    server: &Server,
    session: Checkout<'_>,
    proof: &dyn Proof,
    accounts: &[Revocation],
    keepers: &[Keeper],
) -> Result<Worked, Outcome> {
    let mut work = Work {
        server,
        session,
        proof,
        accounts,
        keepers: Keepers::new(keepers),
        places: Places::default(),
        states: BTreeMap::new(),
        clock: None,
    };
    work.run().await?;
    let worked = Worked {
        accounts: work.report(),
        keepers_wanted: std::mem::take(&mut work.keepers.wanted).into_iter().collect(),
        clock: work.clock,
    };
    work.session.keep();
    Ok(worked)
}

struct Work<'a> {
    server: &'a Server,
    session: Checkout<'a>,
    proof: &'a dyn Proof,
    accounts: &'a [Revocation],
    keepers: Keepers<'a>,
    places: Places,
    /// What is known, by place in `accounts`.
    states: BTreeMap<usize, AccountState>,
    clock: Option<DatabaseClock>,
}

impl Work<'_> {
    async fn run(&mut self) -> Result<(), Trouble> {
        // The proof under the lock sees every role; one that the first look missed comes back for another.
        let mut reach = Reach::Recorded;
        for _ in 0..PASSES {
            let cases = look::up(&self.session, self.proof, reach, self.accounts, &mut self.states).await?;
            if cases.is_empty() {
                break;
            }
            self.pass(cases).await?;
            reach = Reach::Every;
        }
        if self.keepers.used {
            keeper::drop_empty(&self.session, self.proof).await?;
        }
        Ok(())
    }

    async fn pass(&mut self, cases: Vec<Case>) -> Result<(), Trouble> {
        let mut targets = BTreeSet::new();
        let (careful, quick): (Vec<Case>, Vec<Case>) = cases
            .into_iter()
            .partition(|case| self.accounts.get(case.at).is_some_and(|asked| case.needs_care(asked)));
        let (mut dropped, mut resisting) = (Vec::new(), careful);
        for (case, settled) in drop::settle(&self.session, self.accounts, quick).await? {
            match settled {
                Settled::Absent(absence) => {
                    targets.extend(case.targets());
                    dropped.push((self.absent(&case, absence), case));
                }
                Settled::Changed => {}
                Settled::Resists(_) => resisting.push(case),
                Settled::Failed(failure) => self.set(case.at, AccountState::Failed(failure)),
            }
        }
        let mut locked = Vec::new();
        for (case, settled) in drop::lock_out(&self.session, self.accounts, resisting).await? {
            match settled {
                Settled::Absent(_) => {
                    targets.extend(case.targets());
                    drop::leave_groups(&self.session, &case).await?;
                    locked.push(case);
                }
                Settled::Changed => {}
                Settled::Resists(failure) | Settled::Failed(failure) => {
                    self.set(case.at, AccountState::Failed(failure));
                }
            }
        }
        let cleared = barrier::clear(self.server, &self.session, &targets).await?;
        let oids: Vec<u32> = targets.iter().map(|target| target.oid).collect();
        let elsewhere = standby::clear(self.server, &self.session, &oids).await?;
        for (state, case) in dropped {
            let held = held(&self.session, &cleared, &case).or_else(|| on_standby(elsewhere.as_deref(), &case));
            self.set(case.at, held.unwrap_or(state));
        }
        self.drop_locked(locked, &cleared, elsewhere.as_deref()).await
    }

    /// The state of an account whose role was seen to be absent, given that its sessions are gone as well.
    fn absent(&mut self, case: &Case, absence: Absence) -> AccountState {
        self.clock = Some(absence.clock);
        let deadline = self.accounts.get(case.at).map(|asked| asked.issue_deadline);
        AccountState::Gone {
            proven: deadline.is_some_and(|deadline| absence.clock.now > deadline),
            dropped: !case.roles.is_empty(),
        }
    }

    /// Second try for locked accounts: a temporary table goes with its session.
    async fn drop_locked(
        &mut self,
        locked: Vec<Case>,
        cleared: &Cleared,
        elsewhere: Option<&str>,
    ) -> Result<(), Trouble> {
        let mut free = Vec::new();
        for case in locked {
            match held(&self.session, cleared, &case).or_else(|| on_standby(elsewhere, &case)) {
                Some(state) => self.set(case.at, state),
                None => free.push(case),
            }
        }
        for (case, refused) in self.drop_free(free).await? {
            match self.empty(&case).await? {
                Emptied::NeedsKeeper => self.set(case.at, AccountState::NeedsKeeper),
                Emptied::Later(failure) => self.set(case.at, AccountState::Failed(failure)),
                Emptied::Nothing => self.blocked(&case, &Refusals::default(), &refused).await?,
                Emptied::As(refusals) => {
                    for (case, refused) in self.drop_free(vec![case]).await? {
                        self.blocked(&case, &refusals, &refused).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Drops locked accounts without sessions. Gives those that resist, with the server's words.
    async fn drop_free(&mut self, free: Vec<Case>) -> Result<Vec<(Case, Failure)>, Trouble> {
        let mut resisting = Vec::new();
        for (case, settled) in drop::settle(&self.session, self.accounts, free).await? {
            match settled {
                Settled::Absent(absence) => {
                    // No barrier: since NOLOGIN nobody came in, and whoever was in is out.
                    let state = self.absent(&case, absence);
                    self.set(case.at, state);
                }
                Settled::Changed => {}
                Settled::Resists(failure) | Settled::Failed(failure) => resisting.push((case, failure)),
            }
        }
        Ok(resisting)
    }

    /// Says what holds an account from which all was taken that could be.
    async fn blocked(&mut self, case: &Case, refusals: &Refusals, refused: &Failure) -> Result<(), Trouble> {
        let blocked = Blocked {
            server: self.server,
            session: &self.session,
            roles: &case.roles,
            refusals,
            keepers: &self.keepers,
            refused,
        };
        let state = blocked.state(&mut self.places).await?;
        self.set(case.at, state);
        Ok(())
    }

    fn set(&mut self, at: usize, state: AccountState) {
        self.states.insert(at, state);
    }

    fn report(&mut self) -> Vec<RevokedAccount> {
        let mut report = Vec::new();
        for (at, asked) in self.accounts.iter().enumerate() {
            let state = self.states.remove(&at).unwrap_or_else(|| {
                let message = format!("role {} changes while it is revoked; it is tried again", asked.role);
                AccountState::Failed(failure(FailureClass::Busy, message))
            });
            report.push(RevokedAccount {
                lease_uid: asked.lease_uid.clone(),
                state,
            });
        }
        report
    }
}

/// Why roles that can no longer log in are not yet free of sessions; None if they are.
fn held(session: &Checkout<'_>, cleared: &Cleared, case: &Case) -> Option<AccountState> {
    let oids = || case.targets().map(|target| target.oid);
    let alive: usize = oids().filter_map(|oid| cleared.alive.get(&oid)).sum();
    if alive > 0 && cleared.forbidden {
        return Some(AccountState::Blocked {
            locked: false,
            by: format!("{alive} open session(s) of the account, which this login may not end; new logins are refused"),
            sql: session.me().ok().map(|me| format!("GRANT pg_signal_backend TO {me};")),
        });
    }
    if alive > 0 {
        return Some(AccountState::Blocked {
            locked: false,
            by: format!("{alive} open session(s) that were told to end and have not; new logins are refused"),
            sql: None,
        });
    }
    oids().any(|oid| cleared.starting.contains(&oid)).then(|| AccountState::Blocked {
        locked: true,
        by: "a connection that has not finished logging in, perhaps as this account; it ends within authentication_timeout"
            .to_owned(),
        sql: None,
    })
}

/// Why an account is not yet known to be free of sessions on the standbys. One of which neither a role nor an OID is known
/// has none that could be looked for.
fn on_standby(elsewhere: Option<&str>, case: &Case) -> Option<AccountState> {
    case.targets().next()?;
    elsewhere.map(|by| AccountState::Blocked {
        locked: true,
        by: by.to_owned(),
        sql: None,
    })
}
