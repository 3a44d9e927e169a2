//! Process death: `kill -9`, in the middle of each step.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::lane::Lane;

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Leader,
    Engines,
    LeaderAndEngines,
    Everybody,
}

impl Death {
    pub const ALL: [Self; 4] = [Self::Leader, Self::Engines, Self::LeaderAndEngines, Self::Everybody];

    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "kill -9 leader",
            Self::Engines => "kill -9 engines",
            Self::LeaderAndEngines => "kill -9 leader+engines",
            Self::Everybody => "kill -9 everybody",
        }
    }

    pub async fn strike(self, lane: &Lane<'_>) -> Result<()> {
        if matches!(self, Self::Leader | Self::LeaderAndEngines) {
            lane.leader().await?.kill9();
        }
        if self == Self::Everybody {
            lane.stack.operators().iter().for_each(|operator| operator.kill9());
        }
        if self != Self::Leader {
            let runner = lane.stack.runner().context("a lane has engines")?;
            runner.signal(Signal::SIGKILL)?;
        }
        Ok(())
    }
}
