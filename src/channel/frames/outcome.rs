//! What became of a task: done, failed, or unknown, which is neither.

use super::InventoryPage;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// It is done; doing it again changes nothing.
    Done {
        /// What was found or made.
        done: Done,
        /// The database's clock, where one was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clock: Option<DatabaseClock>,
    },
    /// It was not done, and will not happen later by itself.
    Failed(Failure),
    /// It may have happened or may still happen.
    Unknown {
        /// What was lost, as a sentence.
        message: String,
    },
    /// The engine does not know this kind of task.
    Unsupported,
}

/// The result of a task that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Done {
    /// Answer to [`Task::Echo`].
    Echo,
    /// Answer to [`Task::Probe`].
    Probe(ProbeReport),
    /// Answer to [`Task::Issue`].
    Issued {
        /// The account's OID.
        role_oid: u32,
        /// The role was already there, with our comment.
        adopted: bool,
    },
    /// Answer to [`Task::Revoke`](super::Task::Revoke): one entry per account that was asked for.
    Revoked {
        /// In no particular order.
        accounts: Vec<RevokedAccount>,
        /// Databases of accounts that are [`AccountState::NeedsKeeper`]: the same task with keepers for these goes on. At
        /// most [`MAX_KEEPERS`](super::MAX_KEEPERS); further ones are asked for next time.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keepers_wanted: Vec<String>,
    },
    /// Answer to [`Task::EnsureGroup`]: it exists and has what it should carry.
    GroupReady,
    /// Answer to [`Task::DropGroup`]: it is gone.
    GroupDropped,
    /// Answer to [`Task::Inventory`].
    Inventory(InventoryPage),
    /// Answer to [`Task::Sessions`](super::Task::Sessions).
    Sessions {
        /// How many there are now, on the writable host.
        count: u64,
    },
    /// Answer to [`Task::DropGroup`]: the group owns something in these databases; the same task with keepers for them
    /// goes on. At most [`MAX_KEEPERS`](super::MAX_KEEPERS).
    GroupNeedsKeepers {
        /// Names of the databases.
        databases: Vec<String>,
    },
    /// Answer to [`Task::Guard`] and [`Task::Forget`].
    Noted,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// `server_version`, such as `15.18`.
    pub version: String,
    /// Protocol version and cipher, or none for plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// What the login lacks, each as the SQL that gives it. Empty: ready to issue.
    pub missing: Vec<String>,
    /// What would be better, each as a sentence. Never stops anything.
    pub advice: Vec<String>,
    /// `system_identifier` of the server, where the login may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Timeline of the server, where the login may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
}

/// What became of one account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokedAccount {
    /// The lease.
    pub lease_uid: String,
    /// Its state.
    pub state: AccountState,
}

/// State of an account after an attempt to revoke it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AccountState {
    /// No role, no session, and none on the way.
    Gone {
        /// Absence was seen under the lock after the issue deadline: it can never appear again.
        proven: bool,
        /// This attempt dropped it (otherwise it was already absent).
        dropped: bool,
    },
    /// The role is still there.
    Blocked {
        /// Login is off and its sessions are ended.
        locked: bool,
        /// What holds it, as a sentence.
        by: String,
        /// SQL that would free it, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sql: Option<String>,
    },
    /// Login is off, sessions are ended, and it owns something that only a keeper role can take: see
    /// [`Done::Revoked`]'s `keepers_wanted`.
    NeedsKeeper,
    /// A role has this lease's name, but its comment is not ours: it was not touched.
    Foreign {
        /// Role name.
        role: String,
    },
    /// The attempt failed before it changed anything.
    Failed(Failure),
}

/// Why a task was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The class: decides what happens next.
    pub class: FailureClass,
    /// PostgreSQL's code, where the server answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// What failed and the next step, without any secret value.
    pub message: String,
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureClass {
    /// No connection: name not found, refused, timed out, server starting or stopping.
    Unreachable,
    /// The server refused the login.
    LoginRefused,
    /// No TLS where it is required, or the certificate does not verify.
    TlsRefused,
    /// The login lacks a privilege.
    MissingPrivilege,
    /// An object named by a grant does not exist.
    ObjectMissing,
    /// GRANT ran, but the group does not have what was granted.
    GrantIncomplete,
    /// The deadline had passed in the database's clock; nothing was made, and nothing will be.
    TooLate,
    /// A role of that name exists and is not ours.
    Foreign,
    /// The server is a standby or read-only.
    ReadOnly,
    /// Full, locked, or in conflict; the same again later is right.
    Busy,
    /// The task itself is malformed; the same again fails again.
    BadTask,
    /// Anything else that the server answered.
    Server,
    /// A newer engine's class.
    #[serde(other)]
    Other,
}

/// A reading of a database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseClock {
    /// `clock_timestamp()` of the server.
    pub now: Timestamp,
    /// Milliseconds between that reading and the sending of this outcome, by the engine's monotonic clock.
    pub age_ms: u64,
}
