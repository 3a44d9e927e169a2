//! Group roles: NOLOGIN roles that carry a dynamic secret's grants, made once and remembered for a while.

use super::connect::Session;
use super::failure::{Trouble, failure};
use super::grants;
use super::pool::{Server, lock};
use super::proof::is_this_group;
use super::sql::{Ident, Literal, NotSql};
use crate::api::grants::{Grant, Part};
use crate::channel::frames::{Failure, FailureClass, Group};
use crate::keys::KeyTextError;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// How long a group that was seen complete is taken as complete. New tables under a `*` are granted after this long.
const REMEMBERED: Duration = Duration::from_mins(5);
/// How often a conflict with somebody else's GRANT is tried again.
const TRIES: u32 = 4;
/// Databases of cloud providers that list themselves as ordinary but let no customer in.
const PROVIDERS_OWN: [&str; 5] = [
    "rdsadmin",
    "cloudsqladmin",
    "azure_maintenance",
    "azure_sys",
    "alloydbadmin",
];

/// A group that was seen to carry its grants.
pub(super) struct Ensured {
    group: Group,
    at: Instant,
}

/// Makes sure that the group exists, is ours, and effectively has what its grants say.
pub(super) async fn ensure(server: &Server, group: &Group, until: Instant) -> Result<(), Failure> {
    if is_remembered(server, group) {
        return Ok(());
    }
    let work = async {
        let _one_at_a_time = server.grouping.lock().await;
        if is_remembered(server, group) {
            return Ok(());
        }
        ensure_with_retries(server, group, until).await?;
        let ensured = Ensured {
            group: group.clone(),
            at: Instant::now(),
        };
        lock(&server.groups).insert(group.name.clone(), ensured);
        Ok(())
    };
    let finished = tokio::time::timeout_at(until.into(), work).await;
    finished.unwrap_or_else(|_| {
        let message = format!("group role {} was not ready in time; it is tried again", group.name);
        Err(failure(FailureClass::Busy, message))
    })
}

/// Forgets what was seen, so that the next issue looks again.
pub(super) fn forget(server: &Server, group: &Group) {
    lock(&server.groups).remove(&group.name);
}

fn is_remembered(server: &Server, group: &Group) -> bool {
    let mut groups = lock(&server.groups);
    groups.retain(|_, ensured| ensured.at.elapsed() < REMEMBERED);
    groups.get(&group.name).is_some_and(|ensured| ensured.group == *group)
}

async fn ensure_with_retries(server: &Server, group: &Group, until: Instant) -> Result<(), Failure> {
    let mut tries = 1;
    loop {
        match ensure_now(server, group, until).await {
            Err(Trouble::Refused(failure)) if failure.class == FailureClass::Busy && tries < TRIES => {
                tokio::time::sleep(Duration::from_millis(rand::random_range(10..200))).await;
                tries += 1;
            }
            ended => return ended.map_err(Failure::from),
        }
    }
}

async fn ensure_now(server: &Server, group: &Group, until: Instant) -> Result<(), Trouble> {
    let wanted = parse(group)?;
    let session = server.session(until).await?;
    let databases = by_database(&session, wanted).await?;
    if look_up(&session, group).await?.is_none() {
        // A group for objects that do not exist would only be something more to take away again.
        all_exist(server, &session, group, &databases).await?;
    }
    let role = create(&session, group).await?;
    let mut report = grants::Report::default();
    for (database, wanted) in databases {
        if database == server.login.database {
            grants::write(&session, &role, &wanted, &mut report).await?;
        } else {
            let there = server.open(&database).await?;
            grants::write(&there, &role, &wanted, &mut report).await?;
        }
    }
    session.keep();
    report.into_result(group).map_err(Trouble::from)
}

async fn all_exist(
    server: &Server,
    session: &Session,
    group: &Group,
    databases: &BTreeMap<String, Vec<Grant>>,
) -> Result<(), Trouble> {
    let mut report = grants::Report::default();
    for (database, wanted) in databases {
        if *database == server.login.database {
            grants::find_missing(session, wanted, &mut report).await?;
        } else {
            let there = server.open(database).await?;
            grants::find_missing(&there, wanted, &mut report).await?;
        }
    }
    report.into_result(group).map_err(Trouble::from)
}

fn parse(group: &Group) -> Result<Vec<Grant>, Failure> {
    let mut grants = Vec::new();
    for pair in &group.grants {
        let grant = Grant::parse(&pair.what, &pair.target)
            .map_err(|error| failure(FailureClass::BadTask, format!("group role {}: {error}", group.name)))?;
        if grant.target.database.is_none() {
            let message = format!(
                "group role {}: `{}` does not name its database",
                group.name, pair.target
            );
            return Err(failure(FailureClass::BadTask, message));
        }
        grants.push(grant);
    }
    Ok(grants)
}

/// A group role that is there and ours.
pub(super) struct GroupRole {
    pub(super) oid: u32,
    pub(super) name: Ident,
}

async fn create(session: &Session, group: &Group) -> Result<GroupRole, Trouble> {
    let unfit = |error: NotSql| failure(FailureClass::BadTask, format!("group role {:?}: {error}", group.name));
    let name = Ident::new(&group.name).map_err(unfit)?;
    let lock = Literal::new(&group.name).map_err(unfit)?;
    let comment = Literal::new(&group.comment).map_err(unfit)?;
    let make = format!(
        "SELECT pg_advisory_xact_lock(hashtextextended({lock}, 0)); \
         CREATE ROLE {name} NOLOGIN; COMMENT ON ROLE {name} IS {comment}"
    );
    // Made and dropped by others in between: bounded, since nobody drops a group that is being issued to.
    for _ in 0..TRIES {
        if let Some(oid) = look_up(session, group).await? {
            return Ok(GroupRole { oid, name });
        }
        match session.text(&format!("create group role {name}"), &make).await {
            Err(trouble) if is_duplicate(&trouble) => {}
            Err(Trouble::Refused(failure)) if failure.class == FailureClass::MissingPrivilege => {
                return Err(needs_createrole(session, failure)?.into());
            }
            other => drop(other?),
        }
    }
    Err(failure(
        FailureClass::Busy,
        format!("group role {name} comes and goes; it is tried again"),
    )
    .into())
}

/// Whether a role of that name was already there.
pub(super) fn is_duplicate(trouble: &Trouble) -> bool {
    trouble.is(&SqlState::DUPLICATE_OBJECT) || trouble.is(&SqlState::UNIQUE_VIOLATION)
}

fn needs_createrole(session: &Session, mut failure: Failure) -> Result<Failure, Failure> {
    let me = session
        .me()
        .map_err(|error| super::failure::failure(FailureClass::Server, error.to_string()))?;
    failure.message = format!("{}; run: ALTER ROLE {me} CREATEROLE;", failure.message);
    Ok(failure)
}

/// The group's OID, if a role of its name exists; an error if that is not ours or was changed.
async fn look_up(session: &Session, group: &Group) -> Result<Option<u32>, Trouble> {
    let rows = session
        .query(
            "look up the group role",
            "SELECT oid, shobj_description(oid, 'pg_authid'), \
             rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls \
             FROM pg_roles WHERE rolname = $1",
            &[(&group.name, Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let foreign = |why: &str| failure(FailureClass::Foreign, format!("role {} {why}", group.name));
    let comment: Option<String> = row.try_get(1).ok().flatten();
    if !is_this_group(comment.as_deref().unwrap_or_default(), group).map_err(|error| no_key(group, &error))? {
        return Err(foreign("exists, but its comment is not ours; rename or drop it").into());
    }
    if row.try_get::<_, bool>(2).unwrap_or(true) {
        return Err(foreign("was changed by hand: a group role has neither LOGIN nor other attributes").into());
    }
    Ok(row.try_get(0).ok())
}

fn no_key(group: &Group, error: &KeyTextError) -> Failure {
    let message = format!(
        "group role {}: the task lists a signing key that is none: {error}",
        group.name
    );
    failure(FailureClass::BadTask, message)
}

/// The grants of each database; `*` means every database that takes connections and is no template.
async fn by_database(session: &Session, grants: Vec<Grant>) -> Result<BTreeMap<String, Vec<Grant>>, Trouble> {
    let mut everywhere = Vec::new();
    if grants.iter().any(|grant| grant.target.database == Some(Part::Any)) {
        let own: Vec<String> = PROVIDERS_OWN.iter().map(ToString::to_string).collect();
        let rows = session
            .query(
                "list the databases",
                "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate \
                 AND has_database_privilege(oid, 'CONNECT') AND datname <> ALL($1) ORDER BY datname",
                &[(&own, Type::TEXT_ARRAY)],
            )
            .await?;
        everywhere = rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok()).collect();
    }
    let mut by_database: BTreeMap<String, Vec<Grant>> = BTreeMap::new();
    for grant in grants {
        let named = match &grant.target.database {
            Some(Part::Name(name)) => std::slice::from_ref(name),
            _ => everywhere.as_slice(),
        };
        for database in named {
            by_database.entry(database.clone()).or_default().push(grant.clone());
        }
    }
    Ok(by_database)
}
