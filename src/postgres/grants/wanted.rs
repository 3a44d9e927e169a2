//! From grants to single privileges on single objects.

use super::catalog::{self, Object};
use crate::api::grants::{Grant, Part, Privilege};
use crate::channel::frames::{Failure, FailureClass};
use crate::postgres::connect::Session;
use crate::postgres::failure::{Trouble, failure};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds of objects, as GRANT tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Database,
    Schema,
    Table,
    Sequence,
    Routine,
}

impl Kind {
    /// The word in GRANT.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Database => "DATABASE",
            Self::Schema => "SCHEMA",
            Self::Table => "TABLE",
            Self::Sequence => "SEQUENCE",
            Self::Routine => "ROUTINE",
        }
    }

    /// What of a `what` applies to this kind.
    fn privileges(self, asked: &BTreeSet<Privilege>, version: u32) -> Vec<Privilege> {
        use Privilege::{Delete, Execute, Insert, Maintain, References, Select, Trigger, Truncate, Update, Usage};
        let offered: &[Privilege] = match self {
            Self::Table => &[Select, Insert, Update, Delete, Truncate, References, Trigger, Maintain],
            Self::Sequence => &[Select, Update, Usage],
            Self::Routine => &[Execute],
            // Their words are written out in `where` and `what`, never meant by ALL on what is inside them.
            Self::Database | Self::Schema => &[],
        };
        let all = asked.contains(&Privilege::All);
        let wanted = |p: &Privilege| asked.contains(p) || (all && (*p != Maintain || version >= 170_000));
        offered.iter().copied().filter(wanted).collect()
    }
}

/// One privilege on one object.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) object: Object,
    pub(super) privilege: &'static str,
    /// Whether the group is incomplete without it.
    pub(super) required: bool,
}

/// What grants come to in one database.
pub(super) struct Wanted {
    pub(super) wants: Vec<Want>,
    /// What is named and does not exist, as sentences.
    pub(super) missing: Vec<String>,
}

#[derive(Default)]
struct Collected {
    wants: BTreeMap<(Kind, u32, &'static str), Want>,
    missing: Vec<String>,
}

impl Collected {
    fn add(&mut self, object: &Object, privilege: Privilege, required: bool) {
        let key = (object.kind, object.oid, privilege.word());
        let want = self.wants.entry(key).or_insert_with(|| Want {
            object: object.clone(),
            privilege: privilege.word(),
            required,
        });
        want.required |= required;
    }
}

/// Works out what the grants mean in the session's database, now.
pub(super) async fn resolve(session: &Session, grants: &[Grant]) -> Result<Wanted, Trouble> {
    let mut found = Collected::default();
    let database = catalog::database(session).await?;
    found.add(&database, Privilege::Connect, true);
    for grant in grants {
        check(grant, session.version)?;
        for privilege in &grant.privileges {
            let on_database = match privilege {
                Privilege::Connect | Privilege::Temporary => true,
                Privilege::Create => grant.target.schema == Part::Any,
                _ => false,
            };
            if on_database {
                found.add(&database, *privilege, true);
            }
        }
        resolve_objects(session, grant, &mut found).await?;
    }
    add_schema_usage(session, &mut found).await?;
    Ok(Wanted {
        wants: found.wants.into_values().collect(),
        missing: found.missing,
    })
}

/// Refuses what can never be granted.
fn check(grant: &Grant, version: u32) -> Result<(), Failure> {
    let bad = |why: &str| Err(failure(FailureClass::BadTask, format!("{grant}: {why}")));
    if let Part::Name(schema) = &grant.target.schema
        && (schema.starts_with("pg_") || schema == "information_schema")
    {
        return bad("nothing is granted in the system's own schemas");
    }
    if grant.privileges.contains(&Privilege::Create) && grant.target.object != Part::Any {
        return bad("CREATE goes on schema.* or on database.*.*, not on one object");
    }
    if grant.privileges.contains(&Privilege::Maintain) && version < 170_000 {
        return bad("MAINTAIN needs PostgreSQL 17");
    }
    Ok(())
}

async fn resolve_objects(session: &Session, grant: &Grant, found: &mut Collected) -> Result<(), Trouble> {
    let asked: BTreeSet<Privilege> = grant
        .privileges
        .iter()
        .copied()
        .filter(|p| !matches!(p, Privilege::Connect | Privilege::Temporary))
        .collect();
    let only_database = grant.target.schema == Part::Any && asked.iter().all(|p| *p == Privilege::Create);
    if asked.is_empty() || only_database {
        return Ok(());
    }
    let schema = name_of(&grant.target.schema);
    let Some(object) = name_of(&grant.target.object) else {
        return resolve_wildcard(session, schema, &asked, found).await;
    };
    let mut candidates = catalog::relations(session, schema, Some(object)).await?;
    candidates.extend(catalog::routines(session, schema, Some(object)).await?);
    let mut answered = BTreeSet::new();
    for candidate in &candidates {
        let granted = candidate.kind.privileges(&asked, session.version);
        answered.extend(granted.iter().copied());
        if asked.contains(&Privilege::All) && !granted.is_empty() {
            answered.insert(Privilege::All);
        }
        for privilege in granted {
            found.add(candidate, privilege, true);
        }
    }
    let lacking: Vec<&str> = asked.difference(&answered).map(|p| p.word()).collect();
    if !lacking.is_empty() {
        let (words, place) = (lacking.join(", "), &grant.target);
        found.missing.push(format!(
            "`{place}` is nothing that {words} can be granted on, or does not exist"
        ));
    }
    let tables: Vec<u32> = candidates
        .iter()
        .filter(|o| o.kind == Kind::Table)
        .map(|o| o.oid)
        .collect();
    add_feeding_sequences(session, &asked, &tables, found).await
}

async fn resolve_wildcard(
    session: &Session,
    schema: Option<&str>,
    asked: &BTreeSet<Privilege>,
    found: &mut Collected,
) -> Result<(), Trouble> {
    let schemas = catalog::schemas(session, schema).await?;
    if let (Some(name), true) = (schema, schemas.is_empty()) {
        let database = &session.database;
        found
            .missing
            .push(format!("schema `{name}` does not exist in database `{database}`"));
    }
    for one in &schemas {
        if schema.is_some() && asked.contains(&Privilege::Create) {
            found.add(one, Privilege::Create, true);
        }
        if schema.is_some() || (asked.contains(&Privilege::Usage) && !one.extension) {
            found.add(one, Privilege::Usage, true);
        }
    }
    let relations = catalog::relations(session, schema, None).await?;
    let writes = asked.contains(&Privilege::Insert) || asked.contains(&Privilege::Update);
    let everything = asked.contains(&Privilege::All);
    let mut tables = Vec::new();
    for relation in &relations {
        if relation.kind == Kind::Table {
            for privilege in relation.kind.privileges(asked, session.version) {
                found.add(relation, privilege, !relation.extension);
                tables.push(relation.oid);
            }
        } else if everything {
            for privilege in relation.kind.privileges(asked, session.version) {
                found.add(relation, privilege, !relation.extension);
            }
        } else if writes {
            // For code that calls nextval() by name. Those that columns need are required below.
            found.add(relation, Privilege::Usage, false);
        }
    }
    tables.dedup();
    add_feeding_sequences(session, asked, &tables, found).await?;
    if everything || asked.contains(&Privilege::Execute) {
        for routine in catalog::routines(session, schema, None).await? {
            found.add(&routine, Privilege::Execute, !routine.extension);
        }
    }
    Ok(())
}

/// INSERT without USAGE on the sequence behind a serial column fails at run time.
async fn add_feeding_sequences(
    session: &Session,
    asked: &BTreeSet<Privilege>,
    tables: &[u32],
    found: &mut Collected,
) -> Result<(), Trouble> {
    let writes = [Privilege::All, Privilege::Insert, Privilege::Update]
        .iter()
        .any(|p| asked.contains(p));
    if writes && !tables.is_empty() {
        for sequence in catalog::feeding_sequences(session, tables).await? {
            found.add(&sequence, Privilege::Usage, true);
        }
    }
    Ok(())
}

/// Rights on an object do nothing without USAGE on its schema.
async fn add_schema_usage(session: &Session, found: &mut Collected) -> Result<(), Trouble> {
    let mut inside: BTreeMap<u32, bool> = BTreeMap::new();
    for want in found.wants.values().filter(|want| want.object.schema != 0) {
        *inside.entry(want.object.schema).or_default() |= want.required;
    }
    if inside.is_empty() {
        return Ok(());
    }
    for schema in catalog::schemas(session, None).await? {
        if let Some(required) = inside.get(&schema.oid) {
            found.add(&schema, Privilege::Usage, *required);
        }
    }
    Ok(())
}

fn name_of(part: &Part) -> Option<&str> {
    match part {
        Part::Any => None,
        Part::Name(name) => Some(name),
    }
}
