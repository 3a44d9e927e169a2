//! The database side of the engine: tasks on PostgreSQL servers.

use super::accounts::Accounts;
use crate::channel::frames::{
    Account, DatabaseClock, Failure, Group, InventoryPage, Keeper, Outcome, ProbeReport, Revocation, ServerLogin,
};
use crate::postgres::{Servers, Signers, Swept};
use std::time::Duration;

impl Accounts for Servers {
    async fn probe(&self, login: &ServerLogin) -> Result<(ProbeReport, DatabaseClock), Failure> {
        Servers::probe(self, login).await
    }

    async fn ensure_group(&self, login: &ServerLogin, group: &Group, patience: Duration) -> Result<(), Failure> {
        Servers::ensure_group(self, login, group, patience).await
    }

    async fn issue(&self, login: &ServerLogin, group: &Group, account: &Account, patience: Duration) -> Outcome {
        Servers::issue(self, login, group, account, patience).await
    }

    async fn revoke(
        &self,
        login: &ServerLogin,
        signers: &Signers,
        accounts: &[Revocation],
        keepers: &[Keeper],
    ) -> Outcome {
        Servers::revoke(self, login, signers, accounts, keepers).await
    }

    async fn drop_group(&self, login: &ServerLogin, signers: &Signers, group: &Group, keepers: &[Keeper]) -> Outcome {
        Servers::drop_group(self, login, signers, group, keepers).await
    }

    async fn inventory(
        &self,
        login: &ServerLogin,
        after: Option<u32>,
        patience: Duration,
    ) -> Result<(InventoryPage, DatabaseClock), Failure> {
        Servers::inventory(self, login, after, patience).await
    }

    async fn sessions(
        &self,
        login: &ServerLogin,
        role: &str,
        patience: Duration,
    ) -> Result<(u64, DatabaseClock), Failure> {
        Servers::sessions(self, login, role, patience).await
    }

    async fn end_zombies(&self) -> usize {
        Servers::end_zombies(self).await
    }

    fn guard(&self, login: &ServerLogin, signers: &Signers) {
        Servers::guard(self, login, signers);
    }

    fn forget_except(&self, records: &[String]) {
        Servers::forget_except(self, records);
    }

    fn guarded(&self) -> usize {
        Servers::guarded(self)
    }

    async fn revoke_expired(&self) -> Swept {
        Servers::revoke_expired(self).await
    }

    fn forget_idle(&self, older_than: Duration) {
        Servers::forget_idle(self, older_than);
    }
}
