//! Faults of the API server, by the proxies in front of it.

use std::time::Duration;

use anyhow::Result;

use super::api_proxy::Line;
use super::api_rules::{Answer, Rule};
use super::blows::Moment;
use super::lane::Lane;

/// What happens to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Conflict,
    TooMany,
    Internal,
    Unavailable,
    /// The write takes effect and nobody learns of it.
    AnswerLost,
    RequestLost,
    Slow,
    /// Watches are told that their version is too old, and begin anew.
    Gone,
    Cut,
    Down,
    Stale,
}

const fn refuse(code: u16, retry_after: Option<u32>) -> Answer {
    Answer::Refuse { code, retry_after }
}

impl Api {
    pub const ALL: [Self; 11] = [
        Self::Conflict,
        Self::TooMany,
        Self::Internal,
        Self::Unavailable,
        Self::AnswerLost,
        Self::RequestLost,
        Self::Slow,
        Self::Gone,
        Self::Cut,
        Self::Down,
        Self::Stale,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "API 409, each write once",
            Self::TooMany => "API 429, each write twice",
            Self::Internal => "API 500, each write twice",
            Self::Unavailable => "API 503, each write twice",
            Self::AnswerLost => "API answer lost, each write once",
            Self::RequestLost => "API request lost, each write once",
            Self::Slow => "API slow (1 s), each write once",
            Self::Gone => "API watches 410",
            Self::Cut => "API connections cut",
            Self::Down => "API server down 60 s",
            Self::Stale => "API cache 10 s behind",
        }
    }

    pub fn moment(self) -> Moment {
        match self {
            Self::Gone | Self::Cut | Self::Down => Moment::Held,
            _ => Moment::Throughout,
        }
    }

    pub fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::Cut => 0,
            Self::Gone => 3,
            Self::Down => 60,
            Self::Stale => 12,
            _ => 8,
        })
    }

    fn rule(self) -> Option<Rule> {
        Some(match self {
            Self::Conflict => Rule::writes(refuse(409, None), 1),
            Self::TooMany => Rule::writes(refuse(429, Some(1)), 2),
            Self::Internal => Rule::writes(refuse(500, None), 2),
            Self::Unavailable => Rule::writes(refuse(503, None), 2),
            Self::AnswerLost => Rule::writes(Answer::Lost, 1),
            Self::RequestLost => Rule::writes(Answer::Cut, 1),
            Self::Slow => Rule::writes(Answer::Late(Duration::from_secs(1)), 1),
            Self::Gone => Rule::watches(refuse(410, None), 2),
            Self::Cut | Self::Down | Self::Stale => return None,
        })
    }

    pub fn strike(self, lane: &Lane<'_>) -> Result<()> {
        for proxy in lane.wiring()?.api() {
            self.rule().into_iter().for_each(|rule| proxy.rule(rule));
            match self {
                Self::Gone | Self::Cut => proxy.cut(),
                Self::Down => proxy.behave(Line::Down),
                Self::Stale => proxy.behave(Line::Stale(Duration::from_secs(10))),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn heal(lane: &Lane<'_>) -> Result<()> {
        for proxy in lane.wiring()?.api() {
            proxy.clear();
        }
        Ok(())
    }
}
