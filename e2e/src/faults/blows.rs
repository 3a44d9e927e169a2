//! The faults, and how each is struck and healed. The files beside this one have them by section.

use std::time::Duration;

use anyhow::Result;

use super::api_server::Api;
use super::database::Database;
use super::death::Death;
use super::hang::Hang;
use super::lane::Lane;
use super::relay::Manner;
use super::wires::Wire;

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
    Hang(Hang),
    Wire(Wire),
    Api(Api),
    Database(Database),
}

impl Blow {
    /// All of them, in the order of the matrix.
    pub fn all() -> Vec<Self> {
        let deaths = Death::ALL.map(Self::Death).into_iter();
        deaths
            .chain(Hang::ALL.map(Self::Hang))
            .chain(Wire::ALL.map(Self::Wire))
            .chain(Api::ALL.map(Self::Api))
            .chain(Database::ALL.map(Self::Database))
            .collect()
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Death(death) => death.name(),
            Self::Hang(hang) => hang.name(),
            Self::Wire(wire) => wire.name(),
            Self::Api(api) => api.name(),
            Self::Database(database) => database.name(),
        }
    }

    pub fn moment(&self) -> Moment {
        match self {
            Self::Death(_) | Self::Hang(_) => Moment::Held,
            Self::Wire(wire) => wire.moment(),
            Self::Api(api) => api.moment(),
            Self::Database(database) => database.moment(),
        }
    }

    /// How long the fault lasts after everybody was let go.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Death(_) | Self::Hang(_) => Duration::ZERO,
            Self::Wire(wire) => wire.lasts(),
            Self::Api(api) => api.lasts(),
            Self::Database(database) => database.lasts(),
        }
    }

    pub async fn strike(&self, lane: &Lane<'_>) -> Result<()> {
        match self {
            Self::Death(death) => death.strike(lane).await,
            Self::Hang(hang) => hang.strike(lane).await,
            Self::Wire(wire) => wire.strike(lane),
            Self::Api(api) => api.strike(lane),
            Self::Database(database) => database.strike(lane).await,
        }
    }

    /// Makes everything as it was, also after a strike that failed. What died is started by `Lane::ready`, as a kubelet would.
    pub async fn heal(&self, lane: &Lane<'_>) -> Result<()> {
        match self {
            Self::Death(_) => Death::heal(lane),
            Self::Hang(_) => Hang::heal(lane),
            Self::Wire(_) => Wire::heal(lane),
            Self::Api(_) => Api::heal(lane),
            Self::Database(database) => database.heal(lane).await,
        }
    }

    /// Takes back what stands between programs, whoever put it there.
    pub fn clear(lane: &Lane<'_>) -> Result<()> {
        lane.wiring()?.failpoints.clear()?;
        Hang::heal(lane)?;
        Wire::heal(lane)?;
        Api::heal(lane)?;
        lane.wiring()?.database().behave(Manner::Honest);
        Ok(())
    }
}
