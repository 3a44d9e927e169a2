//! What was done with accounts, told to whoever keeps a stream of it.

use std::fmt;
use std::sync::Arc;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    /// The account is there and its credential was handed over.
    Issue,
    /// It is proven gone.
    Revoke,
    /// It was let go of: nobody knows whether it is gone.
    Abandon,
}

impl Deed {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Issue => "ISSUE",
            Self::Revoke => "REVOKE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// One account, and what was done with it. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was done.
    pub deed: Deed,
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the dynamic secret.
    pub dynamic_secret: String,
    /// Name of the lease.
    pub lease: String,
    /// Name of the account.
    pub account: String,
}

type Keeper = Arc<dyn Fn(&Entry) + Send + Sync>;

/// Where entries go; nowhere by default.
#[derive(Clone, Default)]
pub struct Ledger(Option<Keeper>);

impl Ledger {
    /// To a keeper. It is called by controllers and must not wait for anything.
    pub fn new(keeper: impl Fn(&Entry) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(keeper)))
    }

    /// Notes an entry.
    pub fn note(&self, entry: &Entry) {
        if let Some(keeper) = &self.0 {
            keeper(entry);
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({})", if self.0.is_some() { "kept" } else { "nowhere" })
    }
}
