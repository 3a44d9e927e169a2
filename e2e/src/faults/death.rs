//! Process death: `kill -9`, in the middle of each step.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::lane::Lane;
use super::relay::Manner;

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Leader,
    Engines,
    LeaderAndEngines,
    Everybody,
    /// The statement was sent and done, and its answer was not read.
    EnginesBeforeReply,
}

/// By then everybody who was held has sent his statement.
const SENT: Duration = Duration::from_secs(1);

impl Death {
    pub const ALL: [Self; 5] = [
        Self::Leader,
        Self::Engines,
        Self::LeaderAndEngines,
        Self::Everybody,
        Self::EnginesBeforeReply,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "kill -9 leader",
            Self::Engines => "kill -9 engines",
            Self::LeaderAndEngines => "kill -9 leader+engines",
            Self::Everybody => "kill -9 everybody",
            Self::EnginesBeforeReply => "kill -9 engines between SQL and reply",
        }
    }

    pub async fn strike(self, lane: &Lane<'_>) -> Result<()> {
        if matches!(self, Self::Leader | Self::LeaderAndEngines) {
            lane.leader().await?.kill9();
        }
        if self == Self::Everybody {
            lane.stack.operators().iter().for_each(|operator| operator.kill9());
        }
        if self == Self::EnginesBeforeReply {
            lane.wiring()?.database().behave(Manner::NoReplies);
            lane.wiring()?.failpoints.clear()?;
            sleep(SENT).await;
        }
        if self != Self::Leader {
            let runner = lane.stack.runner().context("a lane has engines")?;
            runner.signal(Signal::SIGKILL)?;
        }
        Ok(())
    }

    pub fn heal(lane: &Lane<'_>) -> Result<()> {
        lane.wiring()?.database().behave(Manner::Honest);
        Ok(())
    }
}
