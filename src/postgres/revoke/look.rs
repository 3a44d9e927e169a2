//! Finding the roles of leases, and judging whose they are.

use crate::channel::frames::{AccountState, Failure, FailureClass, Revocation};
use crate::postgres::barrier::Target;
use crate::postgres::connect::Session;
use crate::postgres::failure::{Trouble, failure};
use crate::postgres::names;
use crate::postgres::proof::Proof;
use crate::postgres::sql::{Literal, oid_array, text_array};
use std::collections::BTreeMap;

/// A role that is ours by its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Role {
    pub(in crate::postgres) oid: u32,
    pub(in crate::postgres) name: String,
    /// As it was judged; nothing is changed if it is another one by then.
    pub(in crate::postgres) comment: String,
    /// Something depends on it, so DROP would be refused.
    resists: bool,
    can_log_in: bool,
}

/// One account with what was found of it: usually one role, or none.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Its place in the task.
    pub(super) at: usize,
    pub(super) roles: Vec<Role>,
    /// OIDs of roles that look like it and are not ours.
    pub(super) foreign: Vec<u32>,
    /// The recorded OID, if no role has it any more. One that a role has is that role's: a forged record must not aim at
    /// the sessions of others.
    bygone: Option<u32>,
}

impl Case {
    /// Whether it must be locked before it is dropped.
    pub(super) fn needs_care(&self, asked: &Revocation) -> bool {
        let quick = |role: &Role| !role.resists && asked.role_oid == Some(role.oid);
        !self.roles.iter().all(quick)
    }

    /// Whose sessions are to end.
    pub(super) fn targets(&self) -> impl Iterator<Item = Target> {
        let bygone = self.bygone.map(|oid| Target { oid, was_shut: true });
        let target = |role: &Role| Target {
            oid: role.oid,
            was_shut: !role.can_log_in,
        };
        self.roles.iter().map(target).chain(bygone)
    }
}

/// The columns of a role, in the order in which [`read`] takes them.
const COLUMNS: &str = "r.oid, r.rolname, shobj_description(r.oid, 'pg_authid'), r.rolcanlogin, \
    EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid) \
    OR r.rolname IN (SELECT p.owner FROM pg_prepared_xacts p)";

/// How far a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By indexes: the recorded name and OID. Enough to begin with, and no proof: a role that was renamed before its OID
    /// was recorded is not seen.
    Recorded,
    /// Every role, by the end of its name, which no index serves.
    Every,
}

/// SQL for the roles that may be those of these leases.
pub(super) fn sql<'a>(columns: &str, reach: Reach, wanted: impl Iterator<Item = &'a Revocation> + Clone) -> String {
    let oids: Vec<u32> = wanted.clone().filter_map(|one| one.role_oid).collect();
    let named = match reach {
        Reach::Recorded => {
            // A name that cannot be written as SQL is no role's.
            let roles: Vec<Literal> = wanted.filter_map(|one| Literal::new(&one.role).ok()).collect();
            format!("r.rolname = ANY ({}::name[])", text_array(&roles))
        }
        Reach::Every => {
            // Base32 of a UUID; a lease whose UID is none has no suffix and was refused before.
            let suffixes: Vec<String> = wanted.filter_map(|one| names::suffix(&one.lease_uid)).collect();
            let (chars, suffixes) = (names::SUFFIX_CHARS, suffixes.join(","));
            format!("right(r.rolname, {chars}) = ANY ('{{{suffixes}}}'::text[])")
        }
    };
    format!(
        "SELECT {columns} FROM pg_roles r WHERE {named} OR r.oid = ANY ({})",
        oid_array(&oids)
    )
}

/// Looks up all accounts that have no state yet. Those with a foreign role, or that cannot be looked up, get one.
pub(super) async fn up(
    session: &Session,
    proof: &dyn Proof,
    reach: Reach,
    accounts: &[Revocation],
    states: &mut BTreeMap<usize, AccountState>,
) -> Result<Vec<Case>, Trouble> {
    for (at, asked) in accounts.iter().enumerate() {
        if names::suffix(&asked.lease_uid).is_none() {
            states.insert(at, AccountState::Failed(no_uid(asked)));
        }
    }
    let pending: Vec<(usize, &Revocation)> = accounts
        .iter()
        .enumerate()
        .filter(|(at, _)| !states.contains_key(at))
        .collect();
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session
        .text(
            "look up the accounts",
            &sql(COLUMNS, reach, pending.iter().map(|(_, asked)| *asked)),
        )
        .await?;
    let found: Vec<Role> = rows.iter().filter_map(|row| read(row)).collect();
    let mut cases = Vec::new();
    for ((at, asked), like_it) in pending.iter().zip(alike(proof, &pending, &found)) {
        match judge(*at, asked, &like_it) {
            Ok(case) => cases.push(case),
            Err(state) => {
                states.insert(*at, state);
            }
        }
    }
    Ok(cases)
}

fn no_uid(asked: &Revocation) -> Failure {
    let message = format!(
        "account {}: the lease's UID {:?} is not a UUID",
        asked.role, asked.lease_uid
    );
    failure(FailureClass::BadTask, message)
}

fn read(row: &[Option<String>]) -> Option<Role> {
    let column = |index: usize| row.get(index).and_then(Option::as_deref);
    Some(Role {
        oid: column(0)?.parse().ok()?,
        name: column(1)?.to_owned(),
        comment: column(2).unwrap_or_default().to_owned(),
        can_log_in: column(3)? == "t",
        resists: column(4)? == "t",
    })
}

/// A role that has the name or the recorded OID of an account.
struct Alike<'a> {
    role: &'a Role,
    by_name: bool,
    ours: bool,
}

/// For each account the roles that may be its. All comments are judged at once, which is most of the work.
fn alike<'a>(proof: &dyn Proof, pending: &[(usize, &Revocation)], found: &'a [Role]) -> Vec<Vec<Alike<'a>>> {
    let (mut by_suffix, mut by_oid) = (BTreeMap::<&str, Vec<&Role>>::new(), BTreeMap::new());
    for one in found {
        if let Some(suffix) = names::suffix_of(&one.name) {
            by_suffix.entry(suffix).or_default().push(one);
        }
        by_oid.insert(one.oid, one);
    }
    let mut all: Vec<Vec<Alike<'a>>> = Vec::with_capacity(pending.len());
    for (_, asked) in pending {
        let suffix = names::suffix(&asked.lease_uid).unwrap_or_default();
        let named = by_suffix.get(suffix.as_str()).into_iter().flatten().copied();
        let recorded = asked.role_oid.and_then(|oid| by_oid.get(&oid).copied());
        let recorded = recorded.filter(|one| names::suffix_of(&one.name) != Some(suffix.as_str()));
        let alike = |by_name| {
            move |role| Alike {
                role,
                by_name,
                ours: false,
            }
        };
        all.push(named.map(alike(true)).chain(recorded.map(alike(false))).collect());
    }
    let commented: Vec<(&str, &Revocation)> = all
        .iter()
        .zip(pending)
        .flat_map(|(some, (_, asked))| some.iter().map(move |one| (one.role.comment.as_str(), *asked)))
        .collect();
    let ours = proof.are_accounts(&commented);
    for (one, ours) in all.iter_mut().flatten().zip(ours) {
        one.ours = ours;
    }
    all
}

/// The roles of one account that are ours. A role of its name only that is not ours is a state of its own; one that
/// merely has a recorded OID (OIDs are used again) and is not ours has nothing to do with it.
fn judge(at: usize, asked: &Revocation, alike: &[Alike<'_>]) -> Result<Case, AccountState> {
    let ours = |one: &&Alike<'_>| one.ours;
    let roles: Vec<Role> = alike.iter().filter(ours).map(|one| one.role.clone()).collect();
    let strangers = || alike.iter().filter(|one| one.by_name && !one.ours);
    match strangers().next_back() {
        Some(stranger) if roles.is_empty() => Err(AccountState::Foreign {
            role: stranger.role.name.clone(),
        }),
        _ => {
            let is_taken = |oid: &u32| alike.iter().any(|one| one.role.oid == *oid);
            Ok(Case {
                at,
                roles,
                foreign: strangers().map(|one| one.role.oid).collect(),
                bygone: asked.role_oid.filter(|oid| !is_taken(oid)),
            })
        }
    }
}
