//! Collects revocations of one server into batches: a DROP costs a hash-free moment, a transaction costs a flush, and
//! ending sessions costs a scan of all of them. So many in one go are many times cheaper than one by one.

use super::context::Context;
use super::hold::Hold;
use super::servers;
use super::tasks::{Answer, ask};
use crate::api::conditions::Reason;
use crate::channel::frames::{AccountState, Done, Keeper, MAX_REVOKE_BATCH, Revocation, Task};
use crate::cluster::server_record;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How long an engine may take for a batch: the slow way ends sessions and waits for them.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first of a batch waits for others. Short against the flush that it saves.
const COLLECT: Duration = Duration::from_millis(2);
/// Batches of one server that are out at once. The engine does as one what comes in while it is at work, so there are some
/// more than it has at work.
const AT_ONCE: usize = 8;

/// Waiting revocations, by pool and server record.
#[derive(Default)]
pub struct Revocations {
    queues: Mutex<HashMap<(String, String), Vec<Waiting>>>,
    running: Mutex<HashMap<String, std::sync::Arc<Semaphore>>>,
}

struct Waiting {
    revocation: Revocation,
    answer: oneshot::Sender<Result<AccountState, Hold>>,
}

impl Revocations {
    /// Revokes one account, together with others of its server. `Err` is why nobody could be asked, or that the outcome is
    /// not known; the same again is right.
    pub async fn revoke(
        &self,
        ctx: &Context,
        pool_uid: &str,
        record: &str,
        revocation: Revocation,
    ) -> Result<AccountState, Hold> {
        let key = (pool_uid.to_owned(), record.to_owned());
        let (answer, mut answered) = oneshot::channel();
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key.clone())
            .or_default()
            .push(Waiting { revocation, answer });
        tokio::time::sleep(COLLECT).await;
        let permits = self.permits(record);
        // Whoever comes first takes everybody's along; the others find their answer waiting.
        loop {
            tokio::select! {
                biased;
                result = &mut answered => return result.unwrap_or_else(|_| Err(lost())),
                permit = permits.acquire() => {
                    let Ok(permit) = permit else { return Err(lost()) };
                    let batch = self.take(&key);
                    if batch.is_empty() {
                        // Ours is at work already, and the next batch must not wait for that.
                        drop(permit);
                        return (&mut answered).await.unwrap_or_else(|_| Err(lost()));
                    }
                    run(ctx, &key.0, record, batch).await;
                }
            }
        }
    }

    fn permits(&self, record: &str) -> std::sync::Arc<Semaphore> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .entry(record.to_owned())
            .or_insert_with(|| std::sync::Arc::new(Semaphore::new(AT_ONCE)))
            .clone()
    }

    fn take(&self, key: &(String, String)) -> Vec<Waiting> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get_mut(key) else {
            return Vec::new();
        };
        let most = queue.len().min(MAX_REVOKE_BATCH);
        queue.drain(..most).collect()
    }
}

fn lost() -> Hold {
    Hold::new(Reason::OutcomeUnknown, "the attempt was interrupted; it is repeated")
}

async fn run(ctx: &Context, pool_uid: &str, record: &str, batch: Vec<Waiting>) {
    let accounts: Vec<Revocation> = batch.iter().map(|waiting| waiting.revocation.clone()).collect();
    match ask_engine(ctx, pool_uid, record, accounts).await {
        Ok(states) => {
            for waiting in batch {
                let state = states.get(&waiting.revocation.lease_uid).cloned();
                let answer = state
                    .ok_or_else(|| Hold::new(Reason::OutcomeUnknown, "the engine left this account out of its answer"));
                // The asker may be gone with its leadership; then nobody needs the answer.
                let _ = waiting.answer.send(answer);
            }
        }
        Err(hold) => {
            for waiting in batch {
                let _ = waiting.answer.send(Err(hold.clone()));
            }
        }
    }
}

async fn ask_engine(
    ctx: &Context,
    pool_uid: &str,
    record: &str,
    accounts: Vec<Revocation>,
) -> Result<HashMap<String, AccountState>, Hold> {
    let home = &ctx.settings.home;
    let found = servers::recent(ctx, record)
        .await
        .map_err(|error| Hold::new(Reason::ClusterError, format!("could not {error}")))?
        .ok_or_else(|| Hold::new(Reason::BaseSecretMissing, format!("server record {home}/{record} is gone; restore it, or create a base secret with the same host, port, database and username beside the pool")))?;
    let (mut states, mut pending, mut keepers) = (HashMap::new(), accounts, Vec::new());
    for _ in 0..=servers::KEEPER_ROUNDS {
        let (answered, wanted) = ask_once(ctx, pool_uid, &found, pending.clone(), keepers).await?;
        pending.retain(|asked| answered.get(&asked.lease_uid) == Some(&AccountState::NeedsKeeper));
        states.extend(answered);
        if pending.is_empty() || wanted.is_empty() {
            break;
        }
        keepers = servers::keepers(ctx, record, &wanted)?;
    }
    Ok(states)
}

async fn ask_once(
    ctx: &Context,
    pool_uid: &str,
    found: &server_record::Record,
    accounts: Vec<Revocation>,
    keepers: Vec<Keeper>,
) -> Result<(HashMap<String, AccountState>, Vec<String>), Hold> {
    let task = Task::Revoke {
        server: found.login.clone(),
        installation: ctx.installation.id.clone(),
        signers: servers::signers_on(ctx, found),
        accounts,
        keepers,
    };
    match ask(ctx, pool_uid, &found.login.record, task, PATIENCE).await {
        Answer::Done(
            _,
            Done::Revoked {
                accounts,
                keepers_wanted,
            },
        ) => {
            let states = accounts.into_iter().map(|account| (account.lease_uid, account.state));
            Ok((states.collect(), keepers_wanted))
        }
        other => Err(other.hold()),
    }
}
