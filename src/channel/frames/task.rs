//! What an operator asks of an engine. Each task says all that it needs, and may be repeated.

use crate::keys::SecretText;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
        /// At most [`MAX_REVOKE_BATCH`](super::MAX_REVOKE_BATCH).
        accounts: Vec<Revocation>,
        /// At most [`MAX_KEEPERS`](super::MAX_KEEPERS); empty at first, since only the engine finds out which are needed.
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
        /// At most [`MAX_KEEPERS`](super::MAX_KEEPERS); as in [`Task::Revoke`](super::Task::Revoke).
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
    /// Count the sessions of an account. Changes nothing.
    Sessions {
        /// The server.
        server: ServerLogin,
        /// Role name of the account.
        role: String,
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
    /// Every kind that this build can do, as listed in [`ToOperator::Hello`](super::ToOperator::Hello).
    pub const KINDS: [&str; 10] = [
        "echo",
        "probe",
        "ensureGroup",
        "issue",
        "revoke",
        "dropGroup",
        "inventory",
        "sessions",
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
            Self::Sessions { .. } => "sessions",
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
