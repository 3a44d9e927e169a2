//! The way in: every login that this process has used, and the tasks it can do with one.

use super::dead_man::{self, Guarded, Swept};
use super::failure::failure;
use super::pool::{Server, lock};
use super::zombies::{self, Recorded};
use super::{Proof, Signers, group, inventory, issue, probe, revoke, sessions, ungroup};
use crate::channel::frames::{
    Account, DatabaseClock, Failure, FailureClass, Group, InventoryPage, Keeper, MAX_REVOKE_BATCH, Outcome,
    ProbeReport, Revocation, ServerLogin, SslMode,
};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The database servers that this process talks to. Clones share the sessions.
#[derive(Clone, Default)]
pub struct Servers {
    known: Arc<Mutex<HashMap<[u8; 32], Arc<Server>>>>,
    /// Accounts whose sessions are looked after.
    recorded: Arc<Recorded>,
    /// By server record.
    guarded: Arc<Mutex<HashMap<String, Guarded>>>,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers")
            .field("logins", &lock(&self.known).len())
            .field("guarded", &lock(&self.guarded).len())
            .finish_non_exhaustive()
    }
}

impl Servers {
    /// Knows no server yet; sessions are opened by the first task that needs one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at a server: version, TLS, clock, and what the login lacks. Changes nothing.
    pub async fn probe(&self, login: &ServerLogin) -> Result<(ProbeReport, DatabaseClock), Failure> {
        probe::probe(&self.server(login)).await
    }

    /// Brings an account into being, or adopts it if it is already this one. Its group role is made first where missing.
    ///
    /// `Failed` means: this task made nothing, and will not. `Unknown`: the account may exist, or may still appear until
    /// its issue deadline; issuing again is safe and settles it.
    pub async fn issue(&self, login: &ServerLogin, group: &Group, account: &Account, patience: Duration) -> Outcome {
        let until = Instant::now() + patience;
        let outcome = issue::issue(&self.server(login), group, account, until).await;
        self.recorded.note_issued(&login.record, account, &outcome);
        outcome
    }

    /// Makes at most [`MAX_REVOKE_BATCH`] accounts gone: `Done` with one entry for each. Every step may be repeated, by
    /// any engine; after `Unknown` simply ask again. Where accounts own something, the answer asks for the keepers of those
    /// databases, and the same again with these in `keepers` hands it over.
    pub async fn revoke(
        &self,
        login: &ServerLogin,
        signers: &Signers,
        accounts: &[Revocation],
        keepers: &[Keeper],
    ) -> Outcome {
        if accounts.len() > MAX_REVOKE_BATCH {
            let count = accounts.len();
            let message = format!("{count} accounts in one task; at most {MAX_REVOKE_BATCH} can be revoked at once");
            return Outcome::Failed(failure(FailureClass::BadTask, message));
        }
        self.recorded.note_revoked(&login.record, accounts);
        let server = self.server(login);
        if keepers.is_empty() {
            revoke::revoke_with_others(&server, signers, accounts).await
        } else {
            revoke::revoke(&server, signers, accounts, keepers).await
        }
    }

    /// Removes a group role that has no members left. Absent is success. What it owns goes to `keepers`, as for accounts.
    pub async fn drop_group(
        &self,
        login: &ServerLogin,
        proof: &dyn Proof,
        group: &Group,
        keepers: &[Keeper],
    ) -> Outcome {
        ungroup::drop_group(&self.server(login), proof, group, keepers).await
    }

    /// Makes sure that a group role exists and has what it should carry; [`Servers::issue`] does so by itself, but takes
    /// a group that was seen lately as seen.
    pub async fn ensure_group(&self, login: &ServerLogin, group: &Group, patience: Duration) -> Result<(), Failure> {
        let server = self.server(login);
        group::forget(&server, group);
        group::ensure(&server, group, Instant::now() + patience).await
    }

    /// One page of the roles whose comment looks like ours. Changes nothing.
    pub async fn inventory(
        &self,
        login: &ServerLogin,
        after: Option<u32>,
        patience: Duration,
    ) -> Result<(InventoryPage, DatabaseClock), Failure> {
        inventory::page(&self.server(login), after, Instant::now() + patience).await
    }

    /// Counts the sessions of a role on the writable host. Changes nothing.
    pub async fn sessions(
        &self,
        login: &ServerLogin,
        role: &str,
        patience: Duration,
    ) -> Result<(u64, DatabaseClock), Failure> {
        sessions::count(&self.server(login), role, Instant::now() + patience).await
    }

    /// Ends sessions of accounts that were issued or revoked here and whose role is gone. Returns how many it ended.
    /// Servers without such accounts, and those whose login it has no reason to keep any more, see no traffic.
    pub async fn end_zombies(&self) -> usize {
        let mut ended = 0;
        for (record, oids) in self.recorded.all() {
            if let Some(server) = self.of_record(&record) {
                ended += zombies::end(&server, &self.recorded, &oids).await;
            }
        }
        ended
    }

    /// Keeps this login until it is told otherwise: its server has open leases of this installation.
    pub fn guard(&self, login: &ServerLogin, signers: &Signers) {
        let guarded = Guarded::new(login.clone(), signers.clone());
        lock(&self.guarded).insert(login.record.clone(), guarded);
    }

    /// Forgets the logins that it was to keep, but for those of these server records.
    pub fn forget_except(&self, records: &[String]) {
        lock(&self.guarded).retain(|record, _| records.contains(record));
    }

    /// How many logins it was told to keep.
    pub fn guarded(&self) -> usize {
        lock(&self.guarded).len()
    }

    /// For an engine that has no operator: makes accounts gone whose signed end is [`dead_man::PATIENCE`] past in the
    /// database's clock, on all servers with open leases. A server without accounts is forgotten after a while: it has no
    /// open lease, and nobody is there to say so.
    pub async fn revoke_expired(&self) -> Swept {
        let all: Vec<Guarded> = lock(&self.guarded).values().cloned().collect();
        let rounds = all.into_iter().map(|guarded| async move {
            let round = dead_man::round(&self.server(&guarded.login), &guarded.signers).await;
            (guarded, round)
        });
        let mut rounds = futures::stream::iter(rounds).buffer_unordered(dead_man::AT_ONCE);
        let mut swept = Swept::default();
        while let Some((guarded, round)) = rounds.next().await {
            let mut all = lock(&self.guarded);
            let record = &guarded.login.record;
            if all.get_mut(record).is_some_and(|kept| kept.seen(&round)) {
                swept.add(&round);
            } else {
                all.remove(record);
            }
        }
        swept
    }

    /// Closes sessions that were idle for so long, and forgets logins that nobody used since; those that it was told to keep
    /// it can open again.
    pub fn forget_idle(&self, older_than: Duration) {
        lock(&self.known).retain(|_, server| !server.is_idle(older_than));
    }

    /// The login of a record that is most likely to work: the one that it was told to keep, or else the one used last. With a
    /// rotated password there are two for a while.
    fn of_record(&self, record: &str) -> Option<Arc<Server>> {
        let kept = lock(&self.guarded).get(record).map(|guarded| guarded.login.clone());
        if let Some(login) = kept {
            return Some(self.server(&login));
        }
        let known = lock(&self.known);
        let of_record = known.values().filter(|server| server.login.record == record);
        of_record.max_by_key(|server| server.used_at()).cloned()
    }

    fn server(&self, login: &ServerLogin) -> Arc<Server> {
        let server = Arc::clone(
            lock(&self.known)
                .entry(key(login))
                .or_insert_with(|| Arc::new(Server::new(login.clone()))),
        );
        server.touch();
        server
    }
}

/// The whole login as a key: a rotated password or certificate is another server entry, with sessions of its own.
fn key(login: &ServerLogin) -> [u8; 32] {
    let port = login.port_text();
    let sslmode = match login.sslmode {
        SslMode::Disable => "disable",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    };
    let parts = [
        Some(login.record.as_str()),
        Some(login.host.as_str()),
        Some(port.as_str()),
        Some(login.username.as_str()),
        Some(login.password.reveal()),
        Some(login.database.as_str()),
        Some(sslmode),
        login.ca.as_deref(),
        login.client_certificate.as_deref(),
        login.client_key.as_ref().map(crate::keys::SecretText::reveal),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        // With its length in front, no two logins run together.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}
