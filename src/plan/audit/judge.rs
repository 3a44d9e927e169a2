//! The verdict on every role and every lease of one server.

use super::{Because, Broken, Change, Fault, LeaseSeen, Observed, Orphan, OrphanGroup, RoleSeen, Stage, Unknown};
use crate::keys::RoleKind;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be done, and what is only to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Accounts of ours on the server.
    pub accounts: usize,
    /// Accounts to revoke.
    pub orphans: Vec<Orphan>,
    /// Accounts that are left to their end.
    pub unknown: Vec<Unknown>,
    /// Leases to end, and to replace in mode Rotate.
    pub broken: Vec<Broken>,
    /// Leases whose locked account was unlocked by hand: to be revoked again at once.
    pub unlocked: Vec<LeaseSeen>,
    /// Group roles to drop.
    pub orphan_groups: Vec<OrphanGroup>,
    /// Group roles of dynamic secrets that were seen.
    pub groups: BTreeSet<String>,
    /// Group roles with members that are no accounts of ours.
    pub joined: Vec<(String, Vec<String>)>,
    /// Names of roles that carry another role's comment; never touched.
    pub copies: Vec<String>,
}

impl Findings {
    /// When the first account that is left to its end has reached it.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.unknown.iter().map(|one| one.until).min()
    }

    /// Whether the server has any role of ours.
    pub fn is_empty_server(&self) -> bool {
        self.accounts == 0 && self.groups.is_empty() && self.orphan_groups.is_empty()
    }
}

/// Compares roles and leases of one server.
pub fn judge(seen: &Observed<'_>) -> Findings {
    let mut findings = Findings::default();
    let leases: BTreeMap<&str, &LeaseSeen> = seen.leases.iter().map(|lease| (lease.uid.as_str(), lease)).collect();
    let copies = copies(seen, &leases);
    let mut with_role = BTreeSet::new();
    for found in seen.roles {
        if copies.contains(&found.role.oid) {
            findings.copies.push(found.role.name.clone());
            continue;
        }
        match found.said.kind {
            RoleKind::Lease => {
                findings.accounts += 1;
                with_role.insert(found.said.subject.as_str());
                match leases.get(found.said.subject.as_str()) {
                    Some(lease) => of_lease(found, lease, &mut findings),
                    None => without_lease(seen, found, &mut findings),
                }
            }
            RoleKind::Group => group(seen, found, &mut findings),
            RoleKind::Keeper => {}
        }
    }
    let missing = seen.leases.iter().filter(|lease| {
        *lease.server == *seen.server
            && lease.stage == Stage::Live
            && lease.known_before
            && !with_role.contains(lease.uid.as_str())
    });
    findings
        .broken
        .extend(missing.map(|lease| broken(lease, Fault::Missing)));
    findings
}

/// A signed comment can be copied to another role by whoever may comment on that. Of several roles with one subject only
/// the recorded one, or else the one that the comment was made for, is ours.
fn copies(seen: &Observed<'_>, leases: &BTreeMap<&str, &LeaseSeen>) -> BTreeSet<u32> {
    let mut copies = BTreeSet::new();
    for found in seen.roles {
        let same = |other: &&RoleSeen| other.said == found.said && other.role.oid != found.role.oid;
        let recorded = leases
            .get(found.said.subject.as_str())
            .filter(|_| found.said.kind == RoleKind::Lease)
            .and_then(|lease| lease.role_oid);
        let is_copy = match (recorded, found.said.kind) {
            (Some(oid), _) => oid != found.role.oid,
            // Groups and keepers are never renamed by us, and a group that was is of no use to anybody.
            (None, RoleKind::Group | RoleKind::Keeper) => found.role.name != found.said.role,
            (None, RoleKind::Lease) => {
                found.role.name != found.said.role && seen.roles.iter().any(|other| same(&other))
            }
        };
        if is_copy {
            copies.insert(found.role.oid);
        }
    }
    copies
}

fn of_lease(found: &RoleSeen, lease: &LeaseSeen, findings: &mut Findings) {
    match lease.stage {
        Stage::Live => {
            let changes = changes(found, lease);
            if !changes.is_empty() {
                findings.broken.push(broken(lease, Fault::Altered(changes)));
            }
        }
        Stage::Locked if found.role.can_log_in => findings.unlocked.push(lease.clone()),
        Stage::Pending | Stage::Ending | Stage::Locked => {}
    }
}

fn broken(lease: &LeaseSeen, fault: Fault) -> Broken {
    Broken {
        lease_uid: lease.uid.clone(),
        lease: lease.name.clone(),
        role: lease.role.clone(),
        fault,
    }
}

/// How a live account differs from what was issued.
fn changes(found: &RoleSeen, lease: &LeaseSeen) -> Vec<Change> {
    let role = &found.role;
    let mut changes = Vec::new();
    if role.name != lease.role {
        changes.push(Change::Renamed(role.name.clone()));
    }
    if !role.can_log_in {
        changes.push(Change::NoLogin);
    }
    if role.valid_until != Some(lease.valid_until) {
        changes.push(Change::OtherEnd(role.valid_until));
    }
    if role.privileged {
        changes.push(Change::Privileged);
    }
    if !role.inherits {
        changes.push(Change::NoInherit);
    }
    if !role.member_of.iter().any(|name| **name == *lease.group) {
        changes.push(Change::NotInGroup);
    }
    let others: Vec<String> = role
        .member_of
        .iter()
        .filter(|name| ***name != *lease.group)
        .cloned()
        .collect();
    if !others.is_empty() {
        changes.push(Change::MemberOf(others));
    }
    if !role.members.is_empty() {
        changes.push(Change::Members(role.members.clone()));
    }
    changes
}

fn without_lease(seen: &Observed<'_>, found: &RoleSeen, findings: &mut Findings) {
    let uid = &found.said.subject;
    if seen.released.contains(uid) {
        return; // it went between the two looks
    }
    // Every account of ours carries its end; one without could only wait for ever.
    let until = found.said.expires_at.unwrap_or(Timestamp::UNIX_EPOCH);
    let because = if until <= seen.now {
        Because::Expired
    } else if seen.lost.contains(uid) {
        Because::LeaseDeleted
    } else if seen.history_changed {
        Because::HistoryChanged
    } else {
        findings.unknown.push(Unknown {
            role: found.role.name.clone(),
            until,
        });
        return;
    };
    findings.orphans.push(Orphan {
        lease_uid: uid.clone(),
        role: found.role.name.clone(),
        oid: found.role.oid,
        claimed_at: found.said.claimed_at,
        because,
    });
}

fn group(seen: &Observed<'_>, found: &RoleSeen, findings: &mut Findings) {
    let name = &found.role.name;
    if !found.role.members.is_empty() {
        findings.joined.push((name.clone(), found.role.members.clone()));
    }
    let in_it = |one: &RoleSeen| one.said.kind == RoleKind::Lease && one.role.member_of.contains(name);
    let needed = seen.groups.contains(name)
        || seen.leases.iter().any(|lease| *lease.group == **name)
        || seen.roles.iter().any(in_it)
        || !found.role.members.is_empty();
    if needed {
        findings.groups.insert(name.clone());
        return;
    }
    findings.orphan_groups.push(OrphanGroup {
        name: name.clone(),
        dynamic_secret: found.said.subject.clone(),
        comment: found.role.comment.clone(),
    });
}
