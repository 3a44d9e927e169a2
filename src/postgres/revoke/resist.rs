//! The slow way: emptying locked roles that own something or hold rights of their own, database by database.

use super::Work;
use super::look::Case;
use crate::channel::frames::{Failure, FailureClass, Keeper, MAX_KEEPERS, OwnedObjects};
use crate::postgres::connect::Session;
use crate::postgres::failure::Trouble;
use crate::postgres::handover::{self, Handed, Handover, Leaver};
use crate::postgres::pool::Server;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::Type;

/// Sessions in other databases that a task keeps open at most.
const SESSIONS: usize = 8;

/// Where the roles of a case could not be emptied, and why.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Refusals(pub(in crate::postgres) BTreeMap<String, Failure>);

/// What came of emptying the roles of one account.
pub(super) enum Emptied {
    /// All that we could take is taken; what was refused is named.
    As(Refusals),
    /// They have nothing (that is committed).
    Nothing,
    /// The operator has to sign keepers first.
    NeedsKeeper,
    /// Somewhere it was too busy, or a connection was lost: the same again is right.
    Later(Failure),
}

/// Sessions of one task in the databases of one server.
#[derive(Default)]
pub(in crate::postgres) struct Places {
    open: BTreeMap<String, Session>,
}

impl Places {
    /// A session in that database.
    pub(in crate::postgres) async fn at(&mut self, server: &Server, database: &str) -> Result<&Session, Failure> {
        let usable = self.open.get(database).is_some_and(|session| !session.is_closed());
        if !usable {
            if self.open.len() >= SESSIONS {
                self.open.pop_first();
            }
            let session = server.open(database).await?;
            self.open.insert(database.to_owned(), session);
        }
        self.open.get(database).ok_or_else(|| {
            crate::postgres::failure::failure(FailureClass::Busy, "a session was lost; it is tried again")
        })
    }

    /// One that ended in the middle is never used again.
    pub(in crate::postgres) fn forget(&mut self, database: &str) {
        self.open.remove(database);
    }
}

/// One database in which a role has something.
#[derive(Debug)]
pub(in crate::postgres) struct Holding {
    pub(in crate::postgres) database: String,
    /// It owns objects there; otherwise it has rights or settings only.
    pub(in crate::postgres) owns: bool,
}

/// The databases in which a role has something. What belongs to no database counts as the one that we are in.
pub(in crate::postgres) async fn holdings(session: &Session, oid: u32) -> Result<Vec<Holding>, Trouble> {
    let rows = session
        .query(
            "list the databases where the role has something",
            "SELECT coalesce(d.datname, current_database())::text, bool_or(s.deptype = 'o' \
             AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)) \
             FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid \
             WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 GROUP BY 1 ORDER BY 1",
            &[(&oid, Type::OID)],
        )
        .await?;
    let holding = |row: &tokio_postgres::Row| {
        Some(Holding {
            database: row.try_get(0).ok()?,
            owns: row.try_get(1).ok()?,
        })
    };
    Ok(rows.iter().filter_map(holding).collect())
}

/// The keepers that a task brought, and the databases for which it should bring more.
pub(in crate::postgres) struct Keepers<'a> {
    brought: &'a [Keeper],
    pub(in crate::postgres) wanted: BTreeSet<String>,
    /// One was made or used: there may be empty ones to drop.
    pub(in crate::postgres) used: bool,
}

impl<'a> Keepers<'a> {
    pub(in crate::postgres) fn new(brought: &'a [Keeper]) -> Self {
        Self {
            brought,
            wanted: BTreeSet::new(),
            used: false,
        }
    }

    pub(in crate::postgres) fn of(&self, database: &str) -> Option<&'a Keeper> {
        self.brought.iter().find(|keeper| keeper.database == database)
    }

    /// Asks for one, as far as an answer has room.
    pub(in crate::postgres) fn want(&mut self, database: &str) {
        if self.wanted.len() < MAX_KEEPERS {
            self.wanted.insert(database.to_owned());
        }
    }
}

impl Work<'_> {
    /// Empties the roles of one locked account.
    pub(super) async fn empty(&mut self, case: &Case) -> Result<Emptied, Trouble> {
        let owned = self
            .accounts
            .get(case.at)
            .map(|asked| asked.owned_objects)
            .unwrap_or_default();
        let (mut refusals, mut needs_keeper, mut had_something) = (Refusals::default(), false, false);
        for role in &case.roles {
            let leaver = Leaver {
                oid: role.oid,
                name: &role.name,
                comment: &role.comment,
            };
            for holding in holdings(&self.session, role.oid).await? {
                had_something = true;
                match self.hand_over(leaver, owned, &holding).await {
                    Handed::Over | Handed::Changed => {}
                    Handed::NeedsKeeper => {
                        needs_keeper = true;
                        self.keepers.want(&holding.database);
                    }
                    Handed::Refused(failure) if is_passing(&failure) => return Ok(Emptied::Later(failure)),
                    Handed::Refused(failure) => {
                        refusals.0.insert(holding.database, failure);
                    }
                }
            }
        }
        Ok(match (needs_keeper, had_something) {
            (true, _) => Emptied::NeedsKeeper,
            (false, true) => Emptied::As(refusals),
            (false, false) => Emptied::Nothing,
        })
    }

    async fn hand_over(&mut self, leaver: Leaver<'_>, owned: OwnedObjects, holding: &Holding) -> Handed {
        let keeper = self.keepers.of(&holding.database);
        if holding.owns && owned == OwnedObjects::Reassign && keeper.is_none() {
            return Handed::NeedsKeeper;
        }
        let handover = Handover {
            proof: self.proof,
            leaver,
            // One that is not needed would only be made and dropped again.
            keeper: keeper.filter(|_| holding.owns),
            owned,
        };
        self.keepers.used |= handover.keeper.is_some();
        let place = match self.places.at(self.server, &holding.database).await {
            Ok(place) => place,
            // Dropped meanwhile, with all that was in it.
            Err(failure) if failure.class == FailureClass::ObjectMissing => return Handed::Over,
            Err(failure) => return Handed::Refused(failure),
        };
        match handover::run(place, &handover).await {
            Ok(handed) => handed,
            Err(trouble) => {
                self.places.forget(&holding.database);
                Handed::Refused(trouble.into())
            }
        }
    }
}

/// Whether nobody has to act for it to go on.
fn is_passing(failure: &Failure) -> bool {
    let waited = failure.sqlstate.as_deref() == Some("55P03");
    matches!(failure.class, FailureClass::Unreachable | FailureClass::ReadOnly)
        || (failure.class == FailureClass::Busy && !waited)
}
