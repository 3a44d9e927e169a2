//! Functions that run with a superuser's rights, in the schema `dsv` of the maintenance database, where a superuser
//! installed them: by them a login without such rights makes and takes back accounts that are no memberships of it.
//!
//! From PostgreSQL 16 on each of those would make every later one slower. Who made an account does not matter for what
//! comes after: where the functions are not there, or refuse, the plain statements are run, and it is their refusal that is
//! reported, with what cures it.

use super::connect::Session;
use super::failure::Trouble;
use super::pool::lock;
use super::revoke::Role;
use super::sql::{Ident, Literal, NotSql, oid_array, text_array};
use crate::channel::frames::{Failure, FailureClass};
use crate::keys::Verifier;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a superuser runs, but for the names.
const INSTALL: &str = include_str!("functions/install.sql");
/// The comment of the functions: those of another version are not called.
const MARKER: &str = "functions of the DSV operator, version 1";
/// What is called, with the types that tell it from others of its name; sorted.
const SIGNATURES: [&str; 4] = [
    "administer(oid[], text[])",
    "create_account(text, text, timestamp with time zone, integer, text, text, bigint, bigint, text[])",
    "drop_accounts(oid[], text[])",
    "leave_groups(oid[], text[])",
];

/// The SQL that installs the functions for a login, to be run by a superuser in its database.
pub fn install(login: &str, database: &str) -> Result<String, Failure> {
    let quoted = || -> Result<String, NotSql> {
        // A backslash in the pattern would be for the caller's setting to interpret.
        let verifier = Verifier::PATTERN.replace("\\$", "[$]");
        Ok(INSTALL
            .replace("@verifier@", &verifier)
            .replace("@marker@", MARKER)
            .replace("@database@", &Literal::new(database)?.to_string())
            .replace("@login_text@", &Literal::new(login)?.to_string())
            .replace("@login@", &Ident::new(login)?.to_string()))
    };
    quoted().map_err(|error| {
        let message = format!("login {login:?} and database {database:?} cannot be written as SQL: {error}");
        super::failure::failure(FailureClass::BadTask, message)
    })
}

/// An expression that is the OIDs of the functions in the order of [`SIGNATURES`], if there are any that this login may call.
/// A superuser makes accounts that are nobody's memberships by itself.
///
/// Whoever may create in the database can make a schema and functions of these names: they count only if a superuser
/// owns both.
pub(super) fn look() -> String {
    format!(
        "(SELECT string_agg(p.oid::text, ' ' ORDER BY p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         JOIN pg_roles o ON o.oid = p.proowner JOIN pg_roles s ON s.oid = n.nspowner \
         WHERE p.proname IN ('administer', 'create_account', 'drop_accounts', 'leave_groups') AND n.nspname = 'dsv' \
         AND p.proname || '(' || oidvectortypes(p.proargtypes) || ')' IN ('{}') \
         AND p.prosecdef AND o.rolsuper AND s.rolsuper AND obj_description(p.oid, 'pg_proc') = '{MARKER}' \
         AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') \
         AND current_setting('server_version_num')::int >= 160000 \
         AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user))",
        SIGNATURES.join("', '")
    )
}

/// The functions as a session found them.
#[derive(Debug)]
pub(super) struct Functions {
    administer: u32,
    create: u32,
    drop: u32,
    leave: u32,
    /// They were dropped, or others put in their place, since then.
    gone: AtomicBool,
}

impl Functions {
    /// Reads what [`look`] gave.
    pub(super) fn read(found: Option<&str>) -> Option<Self> {
        let oids: Option<Vec<u32>> = found?.split(' ').map(|oid| oid.parse().ok()).collect();
        let [administer, create, drop, leave] = oids?.try_into().ok()?;
        Some(Self {
            administer,
            create,
            drop,
            leave,
            gone: AtomicBool::new(false),
        })
    }

    /// Whether they were still there when they were called last.
    pub(super) fn are_there(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }

    /// Whether a refusal is to be ignored and the plain statements run: the functions are gone, or may not be called, or
    /// call the account somebody else's.
    pub(super) fn are_of_no_use(&self, failure: &Failure) -> bool {
        match failure.sqlstate.as_deref() {
            // No such schema, no such function, others than were looked at.
            Some("3F000" | "42883" | "22P02") => {
                self.gone.store(true, Ordering::Relaxed);
                true
            }
            _ => failure.class == FailureClass::MissingPrivilege,
        }
    }

    /// The same for a statement that may also have been lost.
    pub(super) fn did_not_help(&self, trouble: &Trouble) -> bool {
        matches!(trouble, Trouble::Refused(failure) if self.are_of_no_use(failure))
    }

    /// Makes an account; the arguments are in the order of the signature.
    pub(super) fn create_account(&self, arguments: &str) -> String {
        call("create_account", self.create, arguments)
    }

    /// Drops accounts.
    pub(super) fn drop_accounts<'a>(&self, roles: impl Iterator<Item = &'a Role>) -> Result<String, NotSql> {
        Ok(call("drop_accounts", self.drop, &these(roles)?))
    }

    /// Makes us the administrator of accounts.
    pub(super) fn administer<'a>(&self, roles: impl Iterator<Item = &'a Role>) -> Result<String, NotSql> {
        Ok(call("administer", self.administer, &these(roles)?))
    }

    /// Takes accounts out of the groups that they were made in.
    pub(super) fn leave_groups<'a>(&self, roles: impl Iterator<Item = &'a Role>) -> Result<String, NotSql> {
        Ok(call("leave_groups", self.leave, &these(roles)?))
    }
}

impl Session {
    /// The functions, where this session may use them.
    pub(super) fn functions(&self) -> Option<Arc<Functions>> {
        lock(&self.functions).clone().filter(|functions| functions.are_there())
    }

    /// Looks again, and says whether a superuser installed, replaced or dropped them since this session looked last.
    pub(super) async fn looks_for_functions(&self) -> Result<bool, Trouble> {
        let rows = self
            .text("look for the functions", &format!("SELECT {}", look()))
            .await?;
        let found = rows.last().and_then(|row| row.first()).and_then(Option::as_deref);
        let found = Functions::read(found).map(Arc::new);
        let oids =
            |functions: &Arc<Functions>| [functions.administer, functions.create, functions.drop, functions.leave];
        let others = found.as_ref().map(oids) != self.functions().as_ref().map(oids);
        if others {
            *lock(&self.functions) = found;
        }
        Ok(others)
    }

    /// Whether what was refused is worth another try: functions are there that this session did not know. One that was
    /// opened before they were installed may not drop what another one had them make.
    pub(super) async fn learns_of_functions(&self, refused: &Failure) -> Result<bool, Trouble> {
        let may_be = refused.class == FailureClass::MissingPrivilege && self.has_grant_options();
        Ok(may_be && self.looks_for_functions().await? && self.functions().is_some())
    }
}

/// A call, unless the name means another function by now than the one that was looked at: one that somebody planted after
/// a superuser dropped ours would run with our rights. Name and OID are compared in the statement that calls.
fn call(name: &str, oid: u32, arguments: &str) -> String {
    let signature = SIGNATURES
        .iter()
        .find(|signature| signature.starts_with(name))
        .unwrap_or(&name);
    format!(
        "SELECT dsv.{name}({arguments}) WHERE (CASE WHEN 'dsv.{signature}'::regprocedure::oid = {oid}::oid THEN '1' \
         ELSE 'other functions than were looked at' END)::int = 1"
    )
}

/// OIDs and comments, as judged.
fn these<'a>(roles: impl Iterator<Item = &'a Role>) -> Result<String, NotSql> {
    let (mut oids, mut comments) = (Vec::new(), Vec::new());
    for role in roles {
        oids.push(role.oid);
        comments.push(Literal::new(&role.comment)?);
    }
    Ok(format!("{}, {}", oid_array(&oids), text_array(&comments)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_login_is_called_it_stays_a_name() {
        let sql = install("o'malley\"$dsv$", "my db").unwrap();
        assert!(sql.contains("TO \"o'malley\"\"$dsv$\";"));
        assert!(sql.contains("'o''malley\"$dsv$', true"));
        assert!(install("a\nb", "orders").is_err());
    }

    #[test]
    fn nothing_in_it_depends_on_what_a_backslash_means() {
        let sql = install("issuer", "orders").unwrap();
        assert!(!sql.contains('\\') && !sql.contains("@marker@") && !sql.contains("@verifier@"));
    }

    #[test]
    fn functions_that_are_not_all_there_are_none() {
        assert!(Functions::read(None).is_none());
        assert!(Functions::read(Some("1 2 3")).is_none());
        assert!(Functions::read(Some("1 2 3 4")).is_some());
    }
}
