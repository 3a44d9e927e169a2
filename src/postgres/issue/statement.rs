//! An account as SQL: checked, quoted, one statement after the other.

use crate::channel::frames::{Account, AccountSettings, Failure, FailureClass, Group};
use crate::keys::Verifier;
use crate::postgres::clock;
use crate::postgres::failure::failure;
use crate::postgres::functions::Functions;
use crate::postgres::names;
use crate::postgres::sql::{Ident, Literal, NotSql, text_array};

/// How long the server waits before it answers "busy": shorter than any patience, so that an answer comes, not silence.
pub(super) const LIMITS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '5s'";

/// Everything of an account that goes into SQL.
pub(super) struct Texts {
    /// Completes "could not ...".
    pub(super) doing: String,
    pub(super) role: Ident,
    pub(super) role_text: Literal,
    /// The name as SQL writes it, as a text.
    role_quoted: Literal,
    pub(super) group: Ident,
    pub(super) group_text: Literal,
    pub(super) comment: Literal,
    pub(super) valid_until: Literal,
    /// Taken by issue and revoke alike.
    pub(super) lock: Literal,
    deadline: Literal,
    verifier: Literal,
    connection_limit: Option<i32>,
    settings: Vec<String>,
    /// The same for the function that makes accounts; None if they cannot be written so.
    settings_of_function: Option<String>,
}

impl Texts {
    pub(super) fn new(group: &Group, account: &Account) -> Result<Self, Failure> {
        let role = &account.role;
        let wrong = |why: &str| failure(FailureClass::BadTask, format!("account {role:?}: {why}"));
        let suffix = names::suffix(&account.lease_uid).ok_or_else(|| wrong("the lease's UID is not a UUID"))?;
        if !role.ends_with(&suffix) {
            // It could never be found again to be revoked.
            return Err(wrong("its name does not end with the lease's UID"));
        }
        Verifier::parse(&account.verifier).map_err(|error| wrong(&error.to_string()))?;
        if account.comment.is_empty() || group.comment.is_empty() {
            return Err(wrong("without a comment nothing would prove it ours"));
        }
        Self::quote(group, account).map_err(|error| wrong(&error.to_string()))
    }

    fn quote(group: &Group, account: &Account) -> Result<Self, NotSql> {
        let role = Ident::new(&account.role)?;
        Ok(Self {
            doing: format!("create account {role}"),
            settings: settings(&role, &account.settings)?,
            settings_of_function: settings_of_function(&account.settings).ok(),
            role,
            role_text: Literal::new(&account.role)?,
            role_quoted: Literal::new(&Ident::new(&account.role)?.to_string())?,
            group: Ident::new(&group.name)?,
            group_text: Literal::new(&group.name)?,
            comment: Literal::new(&account.comment)?,
            valid_until: Literal::time(account.valid_until)?,
            lock: Literal::new(&account.lease_uid)?,
            deadline: Literal::time(account.issue_deadline)?,
            verifier: Literal::new(&account.verifier)?,
            connection_limit: account.settings.connection_limit,
        })
    }

    /// The statements that make the account; the last row is its OID and the database's clock. SQLSTATE 22012: too late.
    pub(super) fn create(&self, grant_options: bool) -> String {
        let Self {
            role,
            group,
            comment,
            valid_until,
            verifier,
            ..
        } = self;
        let limit = self
            .connection_limit
            .map(|limit| format!(" CONNECTION LIMIT {limit}"))
            .unwrap_or_default();
        // From 16 on, a member could otherwise become the group and leave objects that outlive the account.
        let (in_role, membership) = if grant_options {
            (
                String::new(),
                format!("GRANT {group} TO {role} WITH INHERIT TRUE, SET FALSE; "),
            )
        } else {
            (format!(" IN ROLE {group}"), String::new())
        };
        let settings = self.settings.concat();
        self.guarded(&format!(
            "CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT \
             PASSWORD {verifier} VALID UNTIL {valid_until}{limit}{in_role}; \
             {membership}\
             COMMENT ON ROLE {role} IS {comment}; \
             {settings}"
        ))
    }

    /// The same by the function; None if that cannot be asked for this account.
    pub(super) fn create_by(&self, functions: &Functions) -> Option<String> {
        let Self {
            role_text,
            group_text,
            comment,
            valid_until,
            verifier,
            ..
        } = self;
        let limit = number(self.connection_limit);
        let settings = self.settings_of_function.as_ref()?;
        let call = functions.create_account(&format!(
            "{role_text}, {verifier}, {valid_until}, {limit}, {group_text}, {comment}, {settings}"
        ));
        Some(self.guarded(&format!("{call}; ")))
    }

    /// Statements with what must hold around them, and the answer's last row.
    fn guarded(&self, statements: &str) -> String {
        let Self {
            role_quoted,
            group_text,
            lock,
            deadline,
            ..
        } = self;
        // The group's lock is shared: it only keeps the group from being dropped under us. The OID comes from the server's
        // cache; to plan a query of the view pg_roles would take longer than all that is around CREATE ROLE.
        format!(
            "{LIMITS}; \
             SELECT pg_advisory_xact_lock(hashtextextended({lock}, 0)), \
             pg_advisory_xact_lock_shared(hashtextextended({group_text}, 0)); \
             SELECT 1 / (clock_timestamp() < {deadline}::timestamptz)::int; \
             {statements}\
             SELECT to_regrole({role_quoted})::oid, {clock}",
            clock = clock::SQL,
        )
    }
}

fn number(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}

fn settings_of_function(settings: &AccountSettings) -> Result<String, NotSql> {
    let schemas: Result<Vec<Literal>, NotSql> =
        settings.search_path.iter().map(|schema| Literal::new(schema)).collect();
    Ok(format!(
        "{}, {}, {}",
        number(settings.statement_timeout_ms),
        number(settings.idle_in_transaction_timeout_ms),
        text_array(&schemas?)
    ))
}

fn settings(role: &Ident, settings: &AccountSettings) -> Result<Vec<String>, NotSql> {
    let mut sql = Vec::new();
    if let Some(milliseconds) = settings.statement_timeout_ms {
        sql.push(format!("ALTER ROLE {role} SET statement_timeout = {milliseconds}; "));
    }
    if let Some(milliseconds) = settings.idle_in_transaction_timeout_ms {
        sql.push(format!(
            "ALTER ROLE {role} SET idle_in_transaction_session_timeout = {milliseconds}; "
        ));
    }
    if !settings.search_path.is_empty() {
        let path: Result<Vec<String>, NotSql> = settings
            .search_path
            .iter()
            .map(|schema| Ident::new(schema).map(|quoted| quoted.to_string()))
            .collect();
        sql.push(format!("ALTER ROLE {role} SET search_path = {}; ", path?.join(", ")));
    }
    Ok(sql)
}
