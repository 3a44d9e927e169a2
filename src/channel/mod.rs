//! The channel between operator and engine: frames, handshake, the operator's hub and the engine's link.
//!
//! Nothing here knows Kubernetes or PostgreSQL: tasks and outcomes are carried, not understood.

pub mod frames;
pub mod hub;
pub mod link;
pub mod listener;
pub mod noise;
mod wire;

use std::time::Duration;

/// Where the operator accepts engines.
pub const CONNECT_PATH: &str = "/v1/engines/connect";
/// Tasks that an engine works on at once; more wait in its queue.
pub const MAX_RUNNING: usize = 64;
/// Tasks that wait for one engine on top of those that it works on; one more is an error to whoever asks.
pub const MAX_QUEUED: usize = 32;

/// How patient both sides are with each other. The defaults are the protocol's; others are for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the first byte to a session.
    pub handshake: Duration,
    /// Between two pings of an engine. The operator pings one that was quiet for two thirds of [`Timing::silence`].
    pub ping: Duration,
    /// Without any frame for this long, the session is dead.
    pub silence: Duration,
    /// How long a session that another one replaced may finish its tasks.
    pub drain: Duration,
    /// How long an engine that stops may finish its tasks.
    pub leave: Duration,
    /// How long the operator waits for an outcome beyond a task's patience, for the way there and back.
    pub grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            ping: Duration::from_millis(4500),
            silence: Duration::from_secs(9),
            drain: Duration::from_mins(1),
            leave: Duration::from_secs(10),
            grace: Duration::from_secs(1),
        }
    }
}
