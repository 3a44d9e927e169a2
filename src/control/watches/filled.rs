//! Whether the caches can be believed to be complete.

use std::collections::BTreeSet;

/// The cache of leases, for [`Filled::with`].
pub const LEASES: &str = "leases";
/// The cache of dynamic secrets.
pub const DYNAMIC_SECRETS: &str = "dynamic secrets";
/// The cache of pools.
pub const POOLS: &str = "pools";
/// The cache of engines.
pub const ENGINES: &str = "engines";
/// The cache of DSV tenants.
pub const DSV_TENANTS: &str = "DSV tenants";
/// The cache of syncs.
pub const SECRET_SYNCS: &str = "syncs";
/// The cache of credential Secrets.
pub const CREDENTIALS: &str = "credential secrets";
/// The cache of base secrets.
pub const BASES: &str = "base secrets";

/// Which caches were complete at least once.
#[derive(Clone)]
pub struct Filled(pub(super) tokio::sync::watch::Sender<BTreeSet<&'static str>>);

impl Filled {
    pub(super) fn new() -> Self {
        Self(tokio::sync::watch::Sender::new(BTreeSet::new()))
    }

    /// Waits until each of these caches was complete once. Ask only for what is needed: without its definition a kind has
    /// no cache, and accounts are taken back all the same.
    pub async fn with(&self, caches: &[&'static str]) {
        let mut complete = self.0.subscribe();
        // The sender is in `self`, so the channel is open.
        let _ = complete
            .wait_for(|complete| caches.iter().all(|cache| complete.contains(cache)))
            .await;
    }

    /// Whether this cache was complete once.
    pub fn has(&self, cache: &str) -> bool {
        self.0.borrow().contains(cache)
    }
}
