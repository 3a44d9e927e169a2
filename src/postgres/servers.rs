//! The way in: every login that this process has used, and the tasks it can do with one.

use super::failure::failure;
use super::pool::{Server, lock};
use super::zombies::{self, Recorded};
use super::{Proof, group, inventory, issue, probe, revoke, ungroup};
use crate::channel::frames::{
    Account, DatabaseClock, Failure, FailureClass, Group, InventoryPage, Keeper, MAX_REVOKE_BATCH, Outcome,
    ProbeReport, Revocation, ServerLogin, SslMode,
};
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
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers")
            .field("logins", &lock(&self.known).len())
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
        proof: &dyn Proof,
        accounts: &[Revocation],
        keepers: &[Keeper],
    ) -> Outcome {
        if accounts.len() > MAX_REVOKE_BATCH {
            let count = accounts.len();
            let message = format!("{count} accounts in one task; at most {MAX_REVOKE_BATCH} can be revoked at once");
            return Outcome::Failed(failure(FailureClass::BadTask, message));
        }
        self.recorded.note_revoked(&login.record, accounts);
        revoke::revoke(&self.server(login), proof, accounts, keepers).await
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

    /// Ends sessions of accounts that were issued or revoked here and whose role is gone. Returns how many it ended.
    /// Servers without such accounts see no traffic.
    pub async fn end_zombies(&self) -> usize {
        let mut ended = 0;
        for (record, oids) in self.recorded.all() {
            // With a rotated password there are two entries for a while; the one used last has the login that works.
            let newest = self.newest(&record);
            if let Some(server) = newest {
                ended += zombies::end(&server, &self.recorded, &oids).await;
            }
        }
        ended
    }

    /// Closes sessions that were idle for so long, and forgets logins that nobody used since and that no account needs.
    pub fn forget_idle(&self, older_than: Duration) {
        let needed: Vec<_> = self.recorded.all().into_keys().collect();
        let needed: Vec<_> = needed.iter().filter_map(|record| self.newest(record)).collect();
        lock(&self.known).retain(|_, server| {
            // Asked in any case, since it also closes idle sessions.
            let idle = server.is_idle(older_than);
            !idle || needed.iter().any(|needed| Arc::ptr_eq(needed, server))
        });
    }

    fn newest(&self, record: &str) -> Option<Arc<Server>> {
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
    let port = login.port.to_string();
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
