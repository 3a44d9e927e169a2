//! Which engines guard which servers: every engine of a pool keeps the login of each server with open leases of that pool,
//! and of no other. So there is somebody to take accounts back if all operators are gone.

use super::context::Context;
use super::servers;
use super::watches::{ENGINES, LEASES, POOLS};
use crate::channel::frames::{Done, Outcome, Task};
use crate::channel::hub::{CallResult, SessionInfo};
use crate::cluster::Error;
use crate::cluster::server_record::{self, Record};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long an engine may take to note something.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes come in bunches.
const COLLECT: Duration = Duration::from_millis(500);
/// Until the next try after an engine did not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Versions of the server records as the watch shows them, and a way to have them looked at.
#[derive(Default)]
pub struct Guards {
    versions: Mutex<HashMap<String, String>>,
    changed: Notify,
}

/// Server records by name, with the version that is meant.
type Versions = BTreeMap<String, String>;

impl Guards {
    /// Leases or engines changed.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// A server record is of this version now; without one it is gone.
    pub fn record(&self, name: &str, version: Option<String>) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => versions.insert(name.to_owned(), version),
            None => versions.remove(name),
        };
        drop(versions);
        self.look();
    }

    /// Those of these records that exist.
    fn versions_of(&self, records: &BTreeSet<String>) -> Versions {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        records
            .iter()
            .filter_map(|record| Some((record.clone(), versions.get(record)?.clone())))
            .collect()
    }
}

/// What one session was told; None until it was told once which servers there are.
type Told = Option<Versions>;

/// Tells engines what to guard, for ever.
pub async fn guard_for_ever(ctx: Arc<Context>) {
    ctx.stores.filled.with(&[LEASES, POOLS, ENGINES]).await;
    let mut told: HashMap<String, Told> = HashMap::new();
    loop {
        let complete = round(&ctx, &mut told).await;
        let again = async {
            if complete {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(AGAIN).await;
        };
        tokio::select! {
            () = ctx.guards.changed.notified() => tokio::time::sleep(COLLECT).await,
            () = again => {}
        }
    }
}

/// Tells every session what it was not told yet. Returns whether all of them know.
async fn round(ctx: &Context, told: &mut HashMap<String, Told>) -> bool {
    if ctx.still_leading().is_err() {
        return true;
    }
    let wanted = wanted(ctx);
    let mut complete = true;
    let mut now = HashMap::new();
    let mut rounds = Vec::new();
    for pool in ctx.stores.pools.state() {
        let uid = pool.uid().unwrap_or_default();
        let records = wanted.get(&uid).cloned().unwrap_or_default();
        for session in ctx.hub.connected(&uid).into_iter().filter(can_guard) {
            let before = told.remove(&session.session).flatten();
            rounds.push(tell(ctx, session, records.clone(), before));
        }
    }
    for (session, known, knows_all) in futures::future::join_all(rounds).await {
        complete &= knows_all;
        now.insert(session, known);
    }
    *told = now;
    complete
}

fn can_guard(session: &SessionInfo) -> bool {
    !session.draining
        && ["guard", "forget"]
            .iter()
            .all(|kind| session.tasks.iter().any(|known| known == kind))
}

/// Records with open leases, by the UID of the pool whose engines reach them.
fn wanted(ctx: &Context) -> HashMap<String, Versions> {
    let mut records: HashMap<String, BTreeSet<String>> = HashMap::new();
    for lease in ctx.stores.leases.state() {
        let Some(claim) = lease.claim() else { continue };
        let pool = ctx.pool_uid(&claim.pool);
        records.entry(pool).or_default().insert(claim.server.to_string());
    }
    let known = |(pool, records): (String, BTreeSet<String>)| (pool, ctx.guards.versions_of(&records));
    records.into_iter().map(known).collect()
}

async fn tell(ctx: &Context, session: SessionInfo, wanted: Versions, before: Told) -> (String, Told, bool) {
    let first = before.is_none();
    let mut known = before.unwrap_or_default();
    let mut complete = true;
    for (name, version) in &wanted {
        if known.get(name) == Some(version) {
            continue;
        }
        match guard(ctx, &session, name).await {
            Ok(true) => {
                known.insert(name.clone(), version.clone());
            }
            Ok(false) => complete = false,
            Err(error) => {
                tracing::warn!(
                    record = name,
                    error = &error as &dyn std::error::Error,
                    "could not read a server record"
                );
                complete = false;
            }
        }
    }
    let surplus = known.keys().any(|name| !wanted.contains_key(name));
    if !first && !surplus {
        return (session.session, Some(known), complete);
    }
    let forget = Task::Forget {
        except: wanted.keys().cloned().collect(),
    };
    if noted(ctx, &session, forget).await {
        known.retain(|name, _| wanted.contains_key(name));
        return (session.session, Some(known), complete);
    }
    // What it guards is known only once it was told what not to guard.
    (session.session, (!first).then_some(known), false)
}

/// Whether the engine guards the server now. A record that is gone meanwhile is not guarded: the watch tells.
async fn guard(ctx: &Context, session: &SessionInfo, name: &str) -> Result<bool, Error> {
    let Some(record) = server_record::read(&ctx.client, &ctx.settings.home, name).await? else {
        return Ok(true);
    };
    Ok(noted(ctx, session, task(ctx, record)).await)
}

fn task(ctx: &Context, record: Record) -> Task {
    Task::Guard {
        installation: ctx.installation.id.clone(),
        signers: servers::signers_on(ctx, &record),
        server: record.login,
    }
}

async fn noted(ctx: &Context, session: &SessionInfo, task: Task) -> bool {
    let kind = task.kind();
    let answer = ctx.hub.call_engine(&session.engine.uid, task, PATIENCE).await;
    let done = matches!(
        &answer,
        CallResult::Answered {
            outcome: Outcome::Done { done: Done::Noted, .. },
            ..
        }
    );
    if !done {
        tracing::info!(
            engine = session.engine.name,
            task = kind,
            ?answer,
            "an engine did not note what it guards; told again"
        );
    }
    done
}
