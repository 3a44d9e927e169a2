//! Hangs: a process is stopped in the middle of each step, others take over and finish, and then it wakes up with all its old
//! intentions. Nothing it still does may change an outcome.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::lane::Lane;

/// How long a takeover may take.
const TAKEOVER: Duration = Duration::from_secs(20);
/// How long whoever took over works before the old one wakes up.
const WORKS: Duration = Duration::from_secs(4);
/// Longer than the hub waits for a silent engine.
const BEYOND_SILENCE: Duration = Duration::from_secs(12);

/// Who stops and wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    Leader,
    OneEngine,
    AllEngines,
    LeaderAndEngines,
}

impl Hang {
    pub const ALL: [Self; 4] = [Self::Leader, Self::OneEngine, Self::AllEngines, Self::LeaderAndEngines];

    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader frozen past its term",
            Self::OneEngine => "one engine frozen",
            Self::AllEngines => "engines frozen",
            Self::LeaderAndEngines => "leader+engines frozen",
        }
    }

    pub async fn strike(self, lane: &Lane<'_>) -> Result<()> {
        let runner = lane.stack.runner().context("a lane has engines")?;
        let signal = |signal| match self {
            Self::Leader => Ok(()),
            Self::OneEngine => runner.signal_one(signal),
            Self::AllEngines | Self::LeaderAndEngines => runner.signal(signal),
        };
        signal(Signal::SIGSTOP)?;
        if matches!(self, Self::Leader | Self::LeaderAndEngines) {
            let leader = lane.leader().await?;
            leader.signal(Signal::SIGSTOP)?;
            let next = lane.next_leader(leader.name(), TAKEOVER).await;
            sleep(WORKS).await;
            // Whoever was held wakes up in the middle of what it was about to do.
            lane.wiring()?.failpoints.clear()?;
            leader.signal(Signal::SIGCONT)?;
            signal(Signal::SIGCONT)?;
            next?;
        } else {
            sleep(BEYOND_SILENCE).await;
            lane.wiring()?.failpoints.clear()?;
            signal(Signal::SIGCONT)?;
        }
        Ok(())
    }

    /// Wakes everybody up, whatever happened.
    pub fn heal(lane: &Lane<'_>) -> Result<()> {
        for operator in lane.stack.operators().iter().filter(|operator| operator.is_running()) {
            operator.signal(Signal::SIGCONT)?;
        }
        lane.stack
            .runner()
            .context("a lane has engines")?
            .signal(Signal::SIGCONT)
    }
}
