//! Faults of the channel between operator and engines.

use std::time::Duration;

use anyhow::Result;

use super::blows::Moment;
use super::lane::Lane;
use super::relay::Manner;

/// What happens to the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Cut,
    HalfOpen,
    Closed,
    Slow,
    EndsIdle,
    /// Every task reaches the engine twice.
    Twice,
    /// The first outcome of an issue and of a revocation never arrives.
    OutcomeLost,
    /// The same, but they arrive after everything else.
    OutcomeLate,
}

impl Wire {
    pub const ALL: [Self; 8] = [
        Self::Cut,
        Self::HalfOpen,
        Self::Closed,
        Self::Slow,
        Self::EndsIdle,
        Self::Twice,
        Self::OutcomeLost,
        Self::OutcomeLate,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Cut => "channel cut",
            Self::HalfOpen => "channel half-open 12 s",
            Self::Closed => "channel closed 8 s",
            Self::Slow => "channel slow (300 ms)",
            Self::EndsIdle => "channel ends idle after 2 s",
            Self::Twice => "tasks delivered twice",
            Self::OutcomeLost => "outcomes lost",
            Self::OutcomeLate => "outcomes out of order",
        }
    }

    pub fn moment(self) -> Moment {
        match self {
            Self::Cut | Self::HalfOpen | Self::Closed => Moment::Held,
            _ => Moment::Throughout,
        }
    }

    pub fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::Cut => 0,
            Self::HalfOpen => 12,
            Self::Closed => 8,
            _ => 6,
        })
    }

    pub fn strike(self, lane: &Lane<'_>) -> Result<()> {
        let wiring = lane.wiring()?;
        let points = &wiring.failpoints;
        let behave = |manner| wiring.channel().iter().for_each(|relay| relay.behave(manner));
        match self {
            Self::Cut => wiring.channel().iter().for_each(|relay| relay.cut()),
            Self::HalfOpen => behave(Manner::HalfOpen),
            Self::Closed => behave(Manner::Closed),
            Self::Slow => behave(Manner::Slow(Duration::from_millis(300))),
            Self::EndsIdle => behave(Manner::EndsIdle(Duration::from_secs(2))),
            Self::Twice => points.arm("link.delivered-twice", "always", "*")?,
            Self::OutcomeLost => {
                points.arm("link.outcome-lost", "break", "issue")?;
                points.arm("link.outcome-lost@2", "break", "revoke")?;
            }
            Self::OutcomeLate => {
                points.arm("link.outcome-held", "hold", "issue")?;
                points.arm("link.outcome-held@2", "hold", "revoke")?;
            }
        }
        Ok(())
    }

    pub fn heal(lane: &Lane<'_>) -> Result<()> {
        for relay in lane.wiring()?.channel() {
            relay.behave(Manner::Honest);
        }
        Ok(())
    }
}
