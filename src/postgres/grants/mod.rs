//! Grants of a group role in one database: worked out, written, and compared with what the group then has.
//!
//! GRANT by a role that may not grant is an error for some objects and only a warning for others. So nothing is inferred
//! from GRANT's answer: what is wanted is computed from the catalogs, only what can be granted is granted, and the rest
//! is named.

mod catalog;
mod compare;
mod future;
mod wanted;

use super::connect::Session;
use super::failure::{Trouble, failure};
use super::group::GroupRole;
use super::sql::remark;
use crate::api::grants::Grant;
use crate::channel::frames::{Failure, FailureClass, Group};
use compare::Standing;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use wanted::{Kind, Wanted};

/// Most gaps that are written out in one message; frames are small.
const NAMED: usize = 20;
/// Most objects in one GRANT.
const OBJECTS: usize = 100;
/// One writer of grants per database: two GRANTs on one table at once end in "tuple concurrently updated".
const LOCK: &str = "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('dsv.dev/grants', 0))";

/// What stands between a group and its grants, over all its databases.
#[derive(Default)]
pub(super) struct Report {
    /// Objects that do not exist, as sentences.
    missing: Vec<String>,
    /// What the group does not have, as the SQL that an owner must run.
    gaps: Vec<String>,
}

impl Report {
    pub(super) fn into_result(self, group: &Group) -> Result<(), Failure> {
        let name = &group.name;
        if !self.missing.is_empty() {
            let what = listed(&self.missing);
            let message = format!("{what}; create it, or correct the grants (nothing was issued)");
            return Err(failure(FailureClass::ObjectMissing, message));
        }
        if !self.gaps.is_empty() {
            let sql = listed(&self.gaps);
            let message = format!("group role {name} lacks privileges that this login may not grant; run: {sql}");
            return Err(failure(FailureClass::GrantIncomplete, message));
        }
        Ok(())
    }
}

fn listed(items: &[String]) -> String {
    let named: Vec<&str> = items.iter().take(NAMED).map(String::as_str).collect();
    let mut text = named.join(" ");
    if items.len() > NAMED {
        let _ = write!(text, " (and {} more)", items.len() - NAMED);
    }
    text
}

/// Grants what is missing and can be granted in the session's database; what remains goes into the report.
pub(super) async fn write(
    session: &Session,
    role: &GroupRole,
    grants: &[Grant],
    report: &mut Report,
) -> Result<(), Trouble> {
    let (mut standing, missing) = look(session, role, grants).await?;
    report.missing.extend(missing);
    let ahead = !future::statements(session, role, grants).await?.is_empty();
    if ahead || standing.iter().any(|standing| standing.to_grant) {
        session.text("lock the grants of the database", LOCK).await?;
        // Once more under the lock: another engine may have granted, or dropped, in between.
        let (seen, _) = look(session, role, grants).await?;
        let sql = statements(role, &seen) + &future::statements(session, role, grants).await?;
        session.text("grant to the group role", &sql).await?;
        standing = look(session, role, grants).await?.0;
        session.text("commit the grants", "COMMIT").await?;
    }
    let database = &session.database;
    for gap in standing.iter().filter(|standing| standing.gap) {
        let (sql, owner) = (grant_text(role, gap.kind, &[gap.privilege], &[&gap.name]), &gap.owner);
        report.gaps.push(format!(
            "{sql} {}",
            remark(&format!("in database {database}, as {owner}"))
        ));
    }
    Ok(())
}

/// Names the objects that the grants mean and that do not exist. Changes nothing.
pub(super) async fn find_missing(session: &Session, grants: &[Grant], report: &mut Report) -> Result<(), Trouble> {
    report.missing.extend(wanted::resolve(session, grants).await?.missing);
    Ok(())
}

async fn look(session: &Session, role: &GroupRole, grants: &[Grant]) -> Result<(Vec<Standing>, Vec<String>), Trouble> {
    let Wanted { wants, missing } = wanted::resolve(session, grants).await?;
    Ok((compare::compare(session, role, wants).await?, missing))
}

/// The GRANTs that are possible and not yet there, as few statements as may be.
fn statements(role: &GroupRole, standing: &[Standing]) -> String {
    let mut by_object: BTreeMap<(Kind, &str), Vec<&'static str>> = BTreeMap::new();
    for one in standing.iter().filter(|standing| standing.to_grant) {
        by_object.entry((one.kind, &one.name)).or_default().push(one.privilege);
    }
    let mut by_words: BTreeMap<(Kind, Vec<&'static str>), Vec<&str>> = BTreeMap::new();
    for ((kind, name), words) in by_object {
        by_words.entry((kind, words)).or_default().push(name);
    }
    let mut sql = String::new();
    for ((kind, words), names) in by_words {
        for some in names.chunks(OBJECTS) {
            sql.push_str(&grant_text(role, kind, &words, some));
        }
    }
    sql
}

fn grant_text(role: &GroupRole, kind: Kind, words: &[&str], names: &[&str]) -> String {
    let (words, kind, names, group) = (words.join(", "), kind.word(), names.join(", "), &role.name);
    format!("GRANT {words} ON {kind} {names} TO {group};")
}
