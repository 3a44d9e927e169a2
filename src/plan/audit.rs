//! What to do about the difference between the roles in a database and the leases on the books.
//!
//! The order of looking makes it safe: first the roles, then, at the source, the leases. A lease exists before its account
//! and goes after it, so a role that was seen must have its lease in a list that was made later, or the books have lost it.
//! The other way round, only a lease that was known as issued before the roles were read can miss its role.
//!
//! Foreign roles do not get this far: [`ours`] lets only those through whose comment an own key signed for this
//! installation.

mod brake;
mod judge;

pub use brake::{Brake, MOST_AT_ONCE, brake};
pub use judge::{Findings, judge};

use crate::channel::frames::InventoryRole;
use crate::keys::{CommentError, RoleComment, RoleKind, SigningPublicKey};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A role of this installation, with what its comment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSeen {
    /// As found; of an account without its comment, which has said what it says. With ten thousand accounts their comments are
    /// most of what a look holds.
    pub role: InventoryRole,
    /// What its comment says; signed by us.
    pub said: RoleComment,
}

/// Roles that look like ours and are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strangers {
    /// Of another installation, or with a comment that nobody of ours signed.
    pub foreign: usize,
    /// Their comment names this installation, but it is signed by a key that is not known here: names.
    pub unverified: Vec<String>,
}

impl Strangers {
    /// Takes in those of another page of roles.
    pub fn join(&mut self, others: Self) {
        self.foreign += others.foreign;
        self.unverified.extend(others.unverified);
    }
}

/// The roles that are provably of this installation, and what else looks like it.
pub fn ours(roles: Vec<InventoryRole>, signers: &[SigningPublicKey], installation: &str) -> (Vec<RoleSeen>, Strangers) {
    let mut seen = Vec::new();
    let mut strangers = Strangers::default();
    for mut role in roles {
        match RoleComment::verify(&role.comment, signers) {
            Ok(said) if said.installation == installation => {
                if said.kind == RoleKind::Lease {
                    role.comment = String::new();
                    role.member_of.shrink_to_fit();
                }
                seen.push(RoleSeen { role, said });
            }
            Err(CommentError::UnknownKey { .. }) if names(&role.comment, installation) => {
                strangers.unverified.push(role.name);
            }
            _ => strangers.foreign += 1,
        }
    }
    (seen, strangers)
}

fn names(comment: &str, installation: &str) -> bool {
    let word = format!("inst={installation}");
    comment.split(' ').any(|part| part == word)
}

/// Where a lease stands, as far as its account is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its account may or may not exist yet.
    Pending,
    /// Its account should exist as it was issued.
    Live,
    /// Its account is being taken back.
    Ending,
    /// Its account resists and should be locked.
    Locked,
}

/// An open lease, from a list that was made after the roles were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSeen {
    /// UID.
    pub uid: String,
    /// Namespace and name.
    pub name: (String, String),
    /// Server record; one text for all leases of a server.
    pub server: Arc<str>,
    /// Account name.
    pub role: String,
    /// Group role; one text for all leases of a group.
    pub group: Arc<str>,
    /// OID of the account, where one was recorded.
    pub role_oid: Option<u32>,
    /// VALID UNTIL.
    pub valid_until: Timestamp,
    /// Where it stands.
    pub stage: Stage,
    /// It was known as issued before the roles were read.
    pub known_before: bool,
}

/// Everything that is known of one server.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Its server record.
    pub server: &'a str,
    /// Its roles of this installation.
    pub roles: &'a [RoleSeen],
    /// All open leases of this installation, of this and other servers.
    pub leases: &'a [LeaseSeen],
    /// Names of the group roles on the books of dynamic secrets, on any server.
    pub groups: &'a BTreeSet<String>,
    /// UIDs of leases that are gone without the proof that their account is.
    pub lost: &'a BTreeSet<String>,
    /// UIDs of leases that were released lately: their accounts are proven gone, whatever was seen a moment before.
    pub released: &'a BTreeSet<String>,
    /// The server writes another history than when its books were last in order: failover, restore, another server.
    pub history_changed: bool,
    /// The database's clock.
    pub now: Timestamp,
}

/// Why an account without a lease is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// It is past the end that its comment names.
    Expired,
    /// Its lease was seen to be deleted without proof.
    LeaseDeleted,
    /// The server's history changed, so it came back.
    HistoryChanged,
}

/// An account of ours without a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// UID of the lease that it was issued for.
    pub lease_uid: String,
    /// Role name as it is now.
    pub role: String,
    /// OID.
    pub oid: u32,
    /// When it was claimed, in the database's clock.
    pub claimed_at: Timestamp,
    /// Why it goes.
    pub because: Because,
}

/// An account of ours that nobody knows, with its end ahead: it is left to that end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Role name.
    pub role: String,
    /// The end that its comment names, in the database's clock.
    pub until: Timestamp,
}

/// Why a live lease is ended and, in mode Rotate, replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Its role is gone.
    Missing,
    /// Its role was changed by hand.
    Altered(Vec<Change>),
}

/// A live lease whose account is not as it was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// UID.
    pub lease_uid: String,
    /// Namespace and name.
    pub lease: (String, String),
    /// Account name, as issued.
    pub role: String,
    /// What is wrong.
    pub fault: Fault,
}

/// A group role that no dynamic secret and no account needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanGroup {
    /// Role name.
    pub name: String,
    /// UID of the dynamic secret that it was made for.
    pub dynamic_secret: String,
    /// Its comment.
    pub comment: String,
}

/// What was changed on a role by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another name.
    Renamed(String),
    /// NOLOGIN.
    NoLogin,
    /// Another VALID UNTIL; none where there is no end.
    OtherEnd(Option<Timestamp>),
    /// An attribute that we never give.
    Privileged,
    /// It does not inherit what it is granted.
    NoInherit,
    /// It left its group.
    NotInGroup,
    /// It became a member of other roles.
    MemberOf(Vec<String>),
    /// Others became members of it.
    Members(Vec<String>),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Renamed(name) => write!(f, "it was renamed to {name}"),
            Self::NoLogin => f.write_str("it may not log in"),
            Self::OtherEnd(Some(at)) => write!(f, "its VALID UNTIL is {at}"),
            Self::OtherEnd(None) => f.write_str("its VALID UNTIL is no time"),
            Self::Privileged => f.write_str("it has an attribute that accounts are never given"),
            Self::NoInherit => f.write_str("it does not inherit from its group role"),
            Self::NotInGroup => f.write_str("it is not in its group role"),
            Self::MemberOf(names) => write!(f, "it is a member of {}", names.join(", ")),
            Self::Members(names) => write!(f, "{} may act as it", names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests;
