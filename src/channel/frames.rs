//! What operator and engine say to each other: JSON, tagged, versioned, at most [`MAX_FRAME`] bytes each.
//!
//! Every message may arrive twice, late, or never. So a task says everything that it needs, is idempotent, and carries a
//! deadline; an outcome names its task. Variants and optional fields are only ever added: `tests/wire/` holds the frames
//! of every released version, and those files never change. Nothing here sends, waits or decides.

mod inventory;
mod outcome;
mod task;

use serde::{Deserialize, Serialize};

pub use inventory::{InventoryPage, InventoryRole};
pub use outcome::{AccountState, DatabaseClock, Done, Failure, FailureClass, Outcome, ProbeReport, RevokedAccount};
pub use task::{
    Account, AccountSettings, GrantText, Group, Keeper, OwnedObjects, Revocation, ServerLogin, SslMode, Task,
};

/// Oldest protocol version that this build speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// Newest protocol version that this build speaks.
pub const PROTOCOL_MAX: u16 = 1;
/// Largest frame in bytes, before encryption. Noise allows 65,535 bytes with its tag; the rest is room for later.
pub const MAX_FRAME: usize = 60 * 1024;
/// Most accounts in one [`Task::Revoke`]: DROP takes a lock per role, and PostgreSQL's lock table is finite.
pub const MAX_REVOKE_BATCH: usize = 64;
/// Most keeper roles in one task, and most that one answer asks for: their names and comments must fit a frame.
pub const MAX_KEEPERS: usize = 24;

/// The newest protocol version in both ranges, each given as oldest and newest; none where they have none in common. So an
/// operator and an engine of another release talk as the older of the two does.
pub fn agreed(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let newest = ours.1.min(theirs.1);
    (newest >= ours.0.max(theirs.0)).then_some(newest)
}

/// Operator to engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ToEngine {
    /// The answer to a hello that was accepted.
    Welcome {
        /// The version both sides use from here on.
        protocol: u16,
        /// Name of this session in both sides' logs.
        session: String,
        /// The installation that the operator belongs to; part of every role comment.
        installation: String,
    },
    /// Do this and report.
    Task {
        /// Names the task in its outcome; unique within the session.
        id: u64,
        /// How long the operator waits for the outcome, in milliseconds. Later the engine need not start.
        patience_ms: u64,
        /// What to do.
        task: Box<Task>,
    },
    /// Are you there?
    Ping {
        /// Comes back in the pong.
        n: u64,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's number.
        n: u64,
    },
    /// No new tasks will come on this session; finish what runs.
    Drain {
        /// Why, for the engine's log.
        reason: String,
    },
    /// The session ends.
    Close {
        /// Why.
        code: CloseCode,
        /// The same as a sentence, with the next step.
        reason: String,
    },
    /// Something that a newer operator says; ignored.
    #[serde(other)]
    Unknown,
}

/// Engine to operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ToOperator {
    /// First frame after the handshake.
    Hello {
        /// Oldest protocol version the engine speaks.
        min: u16,
        /// Newest protocol version the engine speaks.
        max: u16,
        /// Random name of this start of the process: a reconnect keeps it, a restart changes it.
        boot: String,
        /// Program version, for people.
        version: String,
        /// Kinds of tasks that the engine can do, as in [`Task::kind`].
        tasks: Vec<String>,
    },
    /// What became of a task.
    Outcome {
        /// The task's id.
        id: u64,
        /// The result.
        outcome: Outcome,
    },
    /// Are you there?
    Ping {
        /// Comes back in the pong.
        n: u64,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's number.
        n: u64,
    },
    /// The engine stops: no new tasks please, outcomes of running ones follow.
    Leaving {
        /// Why, for the operator's log.
        reason: String,
    },
    /// Something that a newer engine says; ignored.
    #[serde(other)]
    Unknown,
}

/// Why a session was ended or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CloseCode {
    /// No version is spoken by both sides.
    Protocol,
    /// A frame was too large, not JSON, or out of order.
    BadFrame,
    /// Key, namespace and name do not match one Engine.
    NotRegistered,
    /// The Engine is disabled or gone.
    Disabled,
    /// A newer session of the same engine took over.
    Replaced,
    /// Nothing was heard for too long.
    Silent,
    /// This operator no longer leads; another one does.
    NotLeading,
    /// The other side stops.
    Stopping,
    /// A newer side's code.
    #[serde(other)]
    Other,
}
