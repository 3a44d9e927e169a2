//! Revocations of several tasks, done as one. What a batch costs the server is mostly the same however many accounts are in
//! it: the proof reads the name of every role, ending sessions looks at all of them, and a commit is a flush. So what comes in
//! while others are at work is done together as soon as they are through.

use super::{Worked, work};
use crate::channel::frames::{MAX_REVOKE_BATCH, Outcome, Revocation, RevokedAccount};
use crate::postgres::pool::{Checkout, Server, lock};
use crate::postgres::proof::Signers;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// How many are at work at once on one server: while one waits for a flush or for sessions to end, the other drops.
const AT_ONCE: usize = 2;
/// How long the first waits for others.
const COLLECT: Duration = Duration::from_millis(2);
/// Most accounts at once. Each takes two locks until the commit, of a table of the server's that everybody shares.
const MOST: usize = 256;
/// How long whoever has a turn waits for a session.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a task waits for its turn. Twice what the operator waits for an answer: it has to see for itself that this server
/// answers nothing, and what it has given up must not keep one of the engine's few places from the tasks of other servers.
const TURN: Duration = Duration::from_secs(60);

/// Tasks that wait for their turn on one server.
pub(in crate::postgres) struct Joint {
    waiting: Mutex<Vec<Waiting>>,
    turns: Semaphore,
    /// Tells those who wait apart.
    next: AtomicU64,
}

impl Default for Joint {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            next: AtomicU64::new(0),
        }
    }
}

struct Waiting {
    id: u64,
    signers: Signers,
    accounts: Vec<Revocation>,
    answer: oneshot::Sender<Outcome>,
}

/// Revokes the accounts of a task, together with those of others that wait. No keepers: who brings some works alone.
pub(in crate::postgres) async fn revoke(server: &Server, signers: &Signers, accounts: &[Revocation]) -> Outcome {
    let (answer, mut answered) = oneshot::channel();
    let id = server.joint.next.fetch_add(1, Ordering::Relaxed);
    let until = Instant::now() + TURN;
    lock(&server.joint.waiting).push(Waiting {
        id,
        signers: signers.clone(),
        accounts: accounts.to_vec(),
        answer,
    });
    tokio::time::sleep(COLLECT).await;
    // Whoever comes first takes everybody's along; the others find their answer waiting.
    loop {
        tokio::select! {
            biased;
            outcome = &mut answered => return outcome.unwrap_or_else(|_| lost()),
            turn = server.joint.turns.acquire() => {
                let Ok(turn) = turn else { return lost() };
                if !take_turn(server).await {
                    // Somebody else has ours at work, and whoever comes next must not wait for that.
                    drop(turn);
                    return (&mut answered).await.unwrap_or_else(|_| lost());
                }
            }
            () = tokio::time::sleep_until(until.into()) => {
                let given_up = lock(&server.joint.waiting).extract_if(.., |one| one.id == id).next().is_some();
                if given_up {
                    return Outcome::Failed(server.crowded());
                }
                return (&mut answered).await.unwrap_or_else(|_| lost());
            }
        }
    }
}

/// Works through what waits, as much as goes together. False where nothing waited.
async fn take_turn(server: &Server) -> bool {
    if lock(&server.joint.waiting).is_empty() {
        return false;
    }
    // Before anything is taken: while we wait for a session, more may come.
    let session = server.session(Instant::now() + PATIENCE).await;
    let most = session.as_ref().map_or(MOST, most_at_once);
    let taken = take(&mut lock(&server.joint.waiting), most);
    let Some(signers) = taken.first().map(|one| one.signers.clone()) else {
        if let Ok(session) = session {
            session.keep();
        }
        return false;
    };
    let begun = Instant::now();
    let all: Vec<Revocation> = taken.iter().flat_map(|one| one.accounts.iter().cloned()).collect();
    let worked = match session {
        Ok(session) => work(server, session, &signers, &all, &[]).await,
        Err(failure) => Err(Outcome::Failed(failure)),
    };
    tracing::debug!(tasks = taken.len(), accounts = all.len(), took = ?begun.elapsed(), "revocations were done as one");
    answer(taken, worked);
    true
}

/// From PostgreSQL 16 on a DROP without the functions takes the longer the more accounts live, and a batch must stay within
/// its statement's time.
fn most_at_once(session: &Checkout<'_>) -> usize {
    if session.has_grant_options() && session.functions().is_none() {
        MAX_REVOKE_BATCH
    } else {
        MOST
    }
}

/// The first that waits, and those after it with which it goes: the same signers, and no account twice, since nothing can be
/// dropped twice in one statement.
fn take(waiting: &mut Vec<Waiting>, most: usize) -> Vec<Waiting> {
    let mut taken: Vec<Waiting> = Vec::new();
    let (mut count, mut seen) = (0, HashSet::new());
    let mut left = Vec::with_capacity(waiting.len());
    for one in waiting.drain(..) {
        let first = taken.is_empty();
        let fits = count + one.accounts.len() <= most && taken.first().is_none_or(|with| with.signers == one.signers);
        let fresh = one.accounts.iter().all(|account| !seen.contains(&account.lease_uid));
        if first || (fits && fresh) {
            count += one.accounts.len();
            seen.extend(one.accounts.iter().map(|account| account.lease_uid.clone()));
            taken.push(one);
        } else {
            left.push(one);
        }
    }
    *waiting = left;
    taken
}

/// Tells each its part. One that does not wait any more is left out: whoever asked asks again.
fn answer(taken: Vec<Waiting>, worked: Result<Worked, Outcome>) {
    let Worked {
        mut accounts,
        keepers_wanted,
        clock,
    } = match worked {
        Ok(worked) => worked,
        Err(outcome) => {
            for one in taken {
                let _ = one.answer.send(outcome.clone());
            }
            return;
        }
    };
    for one in taken {
        let rest = accounts.split_off(one.accounts.len().min(accounts.len()));
        let part: Vec<RevokedAccount> = std::mem::replace(&mut accounts, rest);
        let worked = Worked {
            accounts: part,
            keepers_wanted: keepers_wanted.clone(),
            clock,
        };
        let _ = one.answer.send(worked.outcome());
    }
}

fn lost() -> Outcome {
    Outcome::Unknown {
        message: "the revocation was interrupted; it is repeated".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::frames::{AccountState, Done, OwnedObjects};

    fn waiting(installation: &str, uids: std::ops::Range<usize>) -> (Waiting, oneshot::Receiver<Outcome>) {
        let (answer, answered) = oneshot::channel();
        let revocation = |uid: usize| Revocation {
            lease_uid: uid.to_string(),
            role: format!("role-{uid}"),
            issue_deadline: jiff::Timestamp::UNIX_EPOCH,
            role_oid: None,
            owned_objects: OwnedObjects::Reassign,
        };
        let one = Waiting {
            id: 0,
            signers: Signers::new(installation, &[]),
            accounts: uids.map(revocation).collect(),
            answer,
        };
        (one, answered)
    }

    #[test]
    fn together_go_those_of_one_installation_as_many_as_fit_and_no_account_twice() {
        let all = [
            waiting("a", 0..64),
            waiting("b", 64..65),
            waiting("a", 60..70),
            waiting("a", 100..164),
            waiting("a", 200..260),
            waiting("a", 300..301),
        ];
        let (mut queue, _answers): (Vec<Waiting>, Vec<_>) = all.into_iter().unzip();
        let sizes = |taken: &[Waiting]| taken.iter().map(|one| one.accounts.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&take(&mut queue, 130)), [64, 64, 1]);
        assert_eq!(sizes(&take(&mut queue, 130)), [1]);
        assert_eq!(sizes(&take(&mut queue, 130)), [10, 60]);
        assert!(take(&mut queue, 130).is_empty() && queue.is_empty());
    }

    #[test]
    fn one_that_is_larger_than_most_still_goes() {
        let (mut queue, _answers): (Vec<Waiting>, Vec<_>) =
            [waiting("a", 0..64), waiting("a", 64..65)].into_iter().unzip();
        assert_eq!(take(&mut queue, 10).len(), 1);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn each_is_told_of_its_own_accounts() {
        let (taken, answers): (Vec<Waiting>, Vec<_>) = [waiting("a", 0..2), waiting("a", 2..5)].into_iter().unzip();
        let state = |uid: usize| RevokedAccount {
            lease_uid: uid.to_string(),
            state: AccountState::NeedsKeeper,
        };
        let worked = Worked {
            accounts: (0..5).map(state).collect(),
            keepers_wanted: vec!["orders".to_owned()],
            clock: None,
        };
        answer(taken, Ok(worked));
        let told: Vec<Vec<String>> = answers
            .into_iter()
            .map(|mut answered| match answered.try_recv().unwrap() {
                Outcome::Done {
                    done: Done::Revoked { accounts, .. },
                    ..
                } => accounts.into_iter().map(|account| account.lease_uid).collect(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [vec!["0", "1"], vec!["2", "3", "4"]]);
    }
}
