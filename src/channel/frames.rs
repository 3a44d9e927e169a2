//! What operator and engine say to each other: JSON, tagged, versioned, at most [`MAX_FRAME`] bytes each.
//!
//! Every message may arrive twice, late, or never. So a task says everything that it needs, is idempotent, and carries a
//! deadline; an outcome names its task. Variants and optional fields are only ever added: `tests/wire/` holds the frames
//! of every released version, and those files never change. Nothing here sends, waits or decides.

mod inventory;

use crate::keys::SecretText;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use inventory::{InventoryPage, InventoryRole};

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

/// What an engine is asked to do. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Task {
    /// Answer; touches no database.
    Echo,
    /// Look at a server: version, TLS, privileges, clock. Changes nothing.
    Probe {
        /// The server.
        server: ServerLogin,
    },
    /// Make a group role and give it its grants, or check that it has them.
    EnsureGroup {
        /// The server.
        server: ServerLogin,
        /// The group role.
        group: Group,
    },
    /// Bring an account into being, or adopt it if it is already this one.
    Issue {
        /// The server.
        server: ServerLogin,
        /// The group role that carries the grants; made first where it is missing.
        group: Group,
        /// The account.
        account: Account,
    },
    /// Make accounts gone, and prove it.
    Revoke {
        /// The server.
        server: ServerLogin,
        /// The installation that the accounts' comments must name: a clone of it has the same keys and other accounts.
        installation: String,
        /// Public halves (base64url) of the keys that may have signed the accounts' comments.
        signers: Vec<String>,
        /// At most [`MAX_REVOKE_BATCH`].
        accounts: Vec<Revocation>,
        /// At most [`MAX_KEEPERS`]; empty at first, since only the engine finds out which are needed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keepers: Vec<Keeper>,
    },
    /// Remove a group role that has no members left.
    DropGroup {
        /// The server.
        server: ServerLogin,
        /// The installation that the group's comment must name.
        installation: String,
        /// Public halves (base64url) of the keys that may have signed the group's comment.
        signers: Vec<String>,
        /// Which group; its grants name the databases to clean.
        group: Group,
        /// At most [`MAX_KEEPERS`]; as in [`Task::Revoke`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keepers: Vec<Keeper>,
    },
    /// List the roles whose comment looks like ours, page by page. Changes nothing.
    Inventory {
        /// The server.
        server: ServerLogin,
        /// Begin after this OID; absent: at the beginning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u32>,
    },
    /// This server has open leases: keep its login in memory and, should there be no operator, make accounts gone whose end
    /// is past.
    Guard {
        /// The server.
        server: ServerLogin,
        /// The installation whose accounts these are.
        installation: String,
        /// Public halves (base64url) of the keys that may have signed the accounts' comments.
        signers: Vec<String>,
    },
    /// Forget the logins of all servers but these: the others have no open leases.
    Forget {
        /// Names of server records.
        except: Vec<String>,
    },
    /// A kind that this build does not know: answered [`Outcome::Unsupported`].
    #[serde(other)]
    Unknown,
}

impl Task {
    /// Every kind that this build can do, as listed in [`ToOperator::Hello`].
    pub const KINDS: [&str; 9] = [
        "echo",
        "probe",
        "ensureGroup",
        "issue",
        "revoke",
        "dropGroup",
        "inventory",
        "guard",
        "forget",
    ];

    /// The kind's name, as on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Probe { .. } => "probe",
            Self::EnsureGroup { .. } => "ensureGroup",
            Self::Issue { .. } => "issue",
            Self::Revoke { .. } => "revoke",
            Self::DropGroup { .. } => "dropGroup",
            Self::Inventory { .. } => "inventory",
            Self::Guard { .. } => "guard",
            Self::Forget { .. } => "forget",
            Self::Unknown => "unknown",
        }
    }
}

/// How to reach and log in to a database server: a server record on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerLogin {
    /// Name of the server record; stands for the server in logs.
    pub record: String,
    /// Name or address; several of one replicated server separated by commas.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TCP ports of the hosts one by one, where they differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// The administrative login.
    pub username: String,
    /// Its password.
    pub password: SecretText,
    /// The maintenance database. Advisory locks are per database, so all engines must use the same one.
    pub database: String,
    /// Transport security.
    pub sslmode: SslMode,
    /// PEM bundle to verify the server with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// PEM client certificate chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// PEM client key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<SecretText>,
}

impl ServerLogin {
    /// Every host with its port, in the order in which they were written.
    pub fn addresses(&self) -> Vec<(String, u16)> {
        let hosts = self.host.split(',').map(str::trim).enumerate();
        hosts
            .filter(|(_, host)| !host.is_empty())
            .map(|(at, host)| (host.to_owned(), self.ports.get(at).copied().unwrap_or(self.port)))
            .collect()
    }

    /// The port, or the ports separated by commas, as libpq reads them.
    pub fn port_text(&self) -> String {
        if self.ports.is_empty() {
            return self.port.to_string();
        }
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        ports.join(",")
    }
}

/// libpq's words for transport security, without the two that fall back to plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Plain text; only when written out.
    Disable,
    /// Encrypted; the chain is verified only where a CA is given, as libpq does.
    Require,
    /// Certificate chain verified.
    VerifyCa,
    /// Certificate chain and host name verified.
    VerifyFull,
}

/// A group role: carries the grants of a dynamic secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Role name.
    pub name: String,
    /// Signed role comment.
    pub comment: String,
    /// Public halves (base64url) of the installation's signing keys: a group role that is there already, with a comment
    /// that says the same and was signed by one of these, is this group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// What it carries, completed: every `where` names its database.
    pub grants: Vec<GrantText>,
}

/// One pair of privileges and objects, as canonical text (see `api::grants`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantText {
    /// Privilege words, comma separated.
    pub what: String,
    /// `database.schema.object`.
    #[serde(rename = "where")]
    pub target: String,
}

/// A keeper role: gets what revoked accounts and dropped groups own in one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keeper {
    /// The database that it keeps things of.
    pub database: String,
    /// Role name.
    pub name: String,
    /// Signed role comment. An existing role is used only if its own comment is ours and names it as a keeper.
    pub comment: String,
}

/// An account to issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// UID of the lease; the lock is on it.
    pub lease_uid: String,
    /// Role name.
    pub role: String,
    /// `SCRAM-SHA-256$4096:...`; fixed for the lease's life, so issuing twice changes nothing.
    pub verifier: String,
    /// Signed role comment; an existing role is adopted only if its comment equals this byte for byte.
    pub comment: String,
    /// VALID UNTIL, in the database's clock.
    pub valid_until: Timestamp,
    /// In the database's clock: the statement itself refuses to run later.
    pub issue_deadline: Timestamp,
    /// Settings of the role.
    #[serde(default)]
    pub settings: AccountSettings,
}

/// Settings that an account starts with. It may change those that PostgreSQL lets any role change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountSettings {
    /// CONNECTION LIMIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i32>,
    /// `statement_timeout` in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<i64>,
    /// `idle_in_transaction_session_timeout` in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction_timeout_ms: Option<i64>,
    /// `search_path`: schema names, unquoted here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search_path: Vec<String>,
}

/// An account to make gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// UID of the lease. The role is found by it (the suffix of its name, and the signed comment), never by a status.
    pub lease_uid: String,
    /// The role's name if it was never renamed; a hint for messages.
    pub role: String,
    /// In the database's clock: before this, a late CREATE may still land, so absence proves nothing yet.
    pub issue_deadline: Timestamp,
    /// OID of the account, if known: sessions of a role that is already gone are found by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_oid: Option<u32>,
    /// What becomes of what the account owns.
    pub owned_objects: OwnedObjects,
}

/// What becomes of objects that a revoked account owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OwnedObjects {
    /// They go to the keeper role of their database.
    #[default]
    Reassign,
    /// They are dropped, but for those that somebody else's objects depend on; these go to the keeper role.
    Drop,
}

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
    /// Answer to [`Task::Revoke`]: one entry per account that was asked for.
    Revoked {
        /// In no particular order.
        accounts: Vec<RevokedAccount>,
        /// Databases of accounts that are [`AccountState::NeedsKeeper`]: the same task with keepers for these goes on. At
        /// most [`MAX_KEEPERS`]; further ones are asked for next time.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keepers_wanted: Vec<String>,
    },
    /// Answer to [`Task::EnsureGroup`]: it exists and has what it should carry.
    GroupReady,
    /// Answer to [`Task::DropGroup`]: it is gone.
    GroupDropped,
    /// Answer to [`Task::Inventory`].
    Inventory(InventoryPage),
    /// Answer to [`Task::DropGroup`]: the group owns something in these databases; the same task with keepers for them
    /// goes on. At most [`MAX_KEEPERS`].
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
