//! The faults, and how each is struck and healed. The files beside this one have them by section.

use std::time::Duration;

use anyhow::Result;

use super::death::Death;
use super::lane::Lane;

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// While each step's subject stands still at its place.
    Held,
    /// From before the first step until all have been tried.
    Throughout,
}

/// A row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    Death(Death),
}

impl Blow {
    /// All of them, in the order of the matrix.
    pub fn all() -> Vec<Self> {
        Death::ALL.map(Self::Death).to_vec()
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Death(death) => death.name(),
        }
    }

    pub fn moment(&self) -> Moment {
        match self {
            Self::Death(_) => Moment::Held,
        }
    }

    /// Whether those who are held go on while the fault lasts, and not only when it is healed.
    pub fn lets_go(&self) -> bool {
        match self {
            Self::Death(_) => true,
        }
    }

    /// How long the fault lasts after everybody was let go.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Death(_) => Duration::ZERO,
        }
    }

    pub async fn strike(&self, lane: &Lane<'_>) -> Result<()> {
        match self {
            Self::Death(death) => death.strike(lane).await,
        }
    }

    /// Makes everything as it was. Also after a strike that failed.
    pub async fn heal(&self, lane: &Lane<'_>) -> Result<()> {
        match self {
            // What died is started by `Lane::ready`, as a kubelet would.
            Self::Death(_) => lane.ready().await,
        }
    }
}
