//! What the engine needs from the database side.

use crate::channel::frames::{
    Account, DatabaseClock, Failure, Group, InventoryPage, Keeper, Outcome, ProbeReport, Revocation, ServerLogin,
};
use crate::postgres::{Signers, Swept};
use std::time::Duration;

/// Accounts on database servers. Every operation may be repeated, and be called for many servers at once.
pub trait Accounts: Send + Sync + 'static {
    /// Looks at a server and changes nothing.
    fn probe(&self, login: &ServerLogin) -> impl Future<Output = Result<(ProbeReport, DatabaseClock), Failure>> + Send;

    /// Makes a group role with its grants, or checks that it has them.
    fn ensure_group(
        &self,
        login: &ServerLogin,
        group: &Group,
        patience: Duration,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Brings an account into being, or adopts it if it is already this one.
    fn issue(
        &self,
        login: &ServerLogin,
        group: &Group,
        account: &Account,
        patience: Duration,
    ) -> impl Future<Output = Outcome> + Send;

    /// Makes accounts gone, and proves it. Only those whose comments `signers` recognise; `keepers` get what they own.
    fn revoke(
        &self,
        login: &ServerLogin,
        signers: &Signers,
        accounts: &[Revocation],
        keepers: &[Keeper],
    ) -> impl Future<Output = Outcome> + Send;

    /// Removes a group role without members; `keepers` get what it owns.
    fn drop_group(
        &self,
        login: &ServerLogin,
        signers: &Signers,
        group: &Group,
        keepers: &[Keeper],
    ) -> impl Future<Output = Outcome> + Send;

    /// One page of the roles whose comment looks like ours, from after that OID.
    fn inventory(
        &self,
        login: &ServerLogin,
        after: Option<u32>,
        patience: Duration,
    ) -> impl Future<Output = Result<(InventoryPage, DatabaseClock), Failure>> + Send;

    /// Counts the sessions of an account.
    fn sessions(
        &self,
        login: &ServerLogin,
        role: &str,
        patience: Duration,
    ) -> impl Future<Output = Result<(u64, DatabaseClock), Failure>> + Send;

    /// Ends sessions of accounts that this engine knows by OID and whose role is gone. Returns how many it ended.
    fn end_zombies(&self) -> impl Future<Output = usize> + Send;

    /// Keeps a login until it is told otherwise: its server has open leases.
    fn guard(&self, login: &ServerLogin, signers: &Signers);

    /// Forgets the logins that it was to keep, but for those of these server records.
    fn forget_except(&self, records: &[String]);

    /// How many logins it was told to keep.
    fn guarded(&self) -> usize;

    /// Makes accounts gone whose signed end is past, on the servers whose logins it was told to keep. For an engine that has
    /// no operator.
    fn revoke_expired(&self) -> impl Future<Output = Swept> + Send;

    /// Closes connections, and forgets logins, that were not used for that long.
    fn forget_idle(&self, older_than: Duration);
}
