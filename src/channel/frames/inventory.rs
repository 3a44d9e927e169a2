//! What a server's inventory looks like on the wire: facts only. Whose a role is, and what is to be done about it, is
//! decided by the operator.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One page of the roles whose comment looks like ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryPage {
    /// By ascending OID.
    pub roles: Vec<InventoryRole>,
    /// There is more: ask for the roles after this OID. Absent: this was the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
    /// `system_identifier` of the server, where the login may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The timeline that the server writes on, where the login may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
}

/// A role as found. Its password is not among this: only superusers can read verifiers.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each true or not")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryRole {
    /// OID.
    pub oid: u32,
    /// Name as it is now.
    pub name: String,
    /// The comment; cut where it is longer than any of ours.
    pub comment: String,
    /// LOGIN.
    pub can_log_in: bool,
    /// VALID UNTIL. Absent where there is none, or where it lies in no year that can be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// It has an attribute that we give to no role: SUPERUSER, CREATEROLE, CREATEDB, REPLICATION or BYPASSRLS.
    #[serde(default)]
    pub privileged: bool,
    /// It inherits from every role that it is a member of.
    pub inherits: bool,
    /// Roles that it is a member of; a few, if they are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<String>,
    /// Who may act as it or inherits from it, but for those who may make roles and roles with our kind of comment; a few,
    /// if they are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}
