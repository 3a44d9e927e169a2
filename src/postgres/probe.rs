//! Looking at a server without changing it: is it ready to issue, and what would be better?

use super::connect::Session;
use super::failure::{Trouble, failure};
use super::pool::Server;
use super::sql::Ident;
use super::{clock, history};
use crate::channel::frames::{DatabaseClock, Failure, FailureClass, ProbeReport, ServerLogin, SslMode};
use std::time::{Duration, Instant};

/// How long a probe waits for a session.
const PATIENCE: Duration = Duration::from_secs(15);
/// Oldest version with which all of this is known to work.
const OLDEST: u32 = 140_000;

/// Looks. See [`super::Servers::probe`].
pub(super) async fn probe(server: &Server) -> Result<(ProbeReport, DatabaseClock), Failure> {
    let session = server.session(Instant::now() + PATIENCE).await?;
    if session.looks_for_functions().await? {
        // What another session found when it was opened, it would go by until it is refused something.
        server.renew_sessions();
    }
    let report = report(&server.login, &session).await?;
    let clock = clock::ask(&session).await?;
    session.keep();
    Ok((report, clock))
}

async fn report(login: &ServerLogin, session: &Session) -> Result<ProbeReport, Trouble> {
    let rows = session.text("look at the login", &facts(session)).await?;
    let facts: Vec<Option<&str>> = rows
        .last()
        .map(|row| row.iter().map(Option::as_deref).collect())
        .unwrap_or_default();
    let fact = |index: usize| facts.get(index).copied().flatten();
    let holds = |index: usize| fact(index) == Some("t");
    let me = session
        .me()
        .map_err(|error| failure(FailureClass::Server, format!("the login's name: {error}")))?;
    let superuser = holds(0);
    let mut missing = Vec::new();
    if !superuser && !holds(1) {
        missing.push(format!("ALTER ROLE {me} CREATEROLE;"));
    }
    if !superuser && !holds(2) {
        missing.push(format!("GRANT pg_signal_backend TO {me};"));
    }
    let mut advice = advice(login, session, &me, superuser);
    if let Some(databases) = fact(3) {
        advice.push(format!(
            "every account may connect and make temporary tables in: {databases}; for each, REVOKE CONNECT, TEMPORARY ON \
             DATABASE ... FROM PUBLIC keeps accounts out (grants name the databases that they need)"
        ));
    }
    if holds(4) {
        advice.push(
            "every account may make large objects, which then hold up its revocation; REVOKE EXECUTE ON FUNCTION \
             lo_create(oid), lo_creat(integer), lo_from_bytea(oid, bytea) FROM PUBLIC prevents it"
                .to_owned(),
        );
    }
    if holds(5) {
        advice.push(
            "every account may create tables in schema public, which then hold up its revocation; REVOKE CREATE ON \
             SCHEMA public FROM PUBLIC prevents it"
                .to_owned(),
        );
    }
    if let Some(roles) = fact(6) {
        advice.push(format!(
            "roles with our kind of comment that this login does not administer, so it can neither grant nor drop them: \
             {roles}; if they are this installation's, GRANT each TO {me} WITH ADMIN OPTION"
        ));
    }
    let (system_identifier, timeline) = history::read(session).await?;
    Ok(ProbeReport {
        version: session.version_text.clone(),
        tls: fact(7).map(str::to_owned),
        missing,
        advice,
        system_identifier,
        timeline,
    })
}

/// Accounts that functions made are memberships of nobody, and the functions take them back.
const MADE_BY_FUNCTIONS: &str = "EXISTS (SELECT FROM pg_auth_members m WHERE m.member = g.oid AND m.grantor = 10 \
    AND NOT m.admin_option AND pg_has_role(r.oid, m.roleid, 'MEMBER WITH ADMIN OPTION'))";

fn facts(session: &Session) -> String {
    let taken_back = if session.functions().is_some() {
        MADE_BY_FUNCTIONS
    } else {
        "false"
    };
    FACTS.replace("{taken_back}", taken_back)
}

/// superuser, CREATEROLE, may end sessions, databases open to PUBLIC, large objects open to PUBLIC, schema public open to
/// PUBLIC, our kind of roles without ADMIN, TLS.
const FACTS: &str = "SELECT r.rolsuper, r.rolcreaterole, pg_has_role(r.oid, 'pg_signal_backend', 'USAGE'), \
    (SELECT string_agg(quote_ident(d.datname), ', ' ORDER BY d.datname) FROM pg_database d WHERE d.datallowconn \
     AND has_database_privilege('public'::name, d.oid, 'CONNECT') AND has_database_privilege('public'::name, d.oid, 'TEMPORARY')), \
    has_function_privilege('public'::name, 'lo_create(oid)', 'EXECUTE'), \
    EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'public' AND has_schema_privilege('public'::name, n.oid, 'CREATE')), \
    (SELECT string_agg(quote_ident(o.rolname), ', ') FROM (SELECT g.rolname FROM pg_roles g \
     JOIN pg_shdescription c ON c.objoid = g.oid AND c.classoid = 'pg_authid'::regclass \
     WHERE c.description LIKE 'dsv/1 %' AND current_setting('server_version_num')::int >= 160000 \
     AND NOT r.rolsuper AND NOT pg_has_role(r.oid, g.oid, 'MEMBER WITH ADMIN OPTION') \
     AND NOT {taken_back} LIMIT 10) AS o), \
    (SELECT s.version || ' ' || s.cipher FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid() AND s.ssl) \
    FROM pg_roles r WHERE r.rolname = current_user";

fn advice(login: &ServerLogin, session: &Session, me: &Ident, superuser: bool) -> Vec<String> {
    let mut advice = Vec::new();
    if superuser {
        advice.push(format!(
            "{me} is a superuser; a role with only CREATEROLE and pg_signal_backend that owns the granted objects, or \
             holds them WITH GRANT OPTION, is enough"
        ));
    }
    if session.has_grant_options() && !superuser && session.functions().is_none() {
        advice.push(format!(
            "from PostgreSQL 16 on each live account of {me} makes the next one slower; functions that a superuser installs \
             end this: kubectl dsv preflight NAME --install prints them"
        ));
    }
    match login.sslmode {
        SslMode::Disable => advice.push("the connection is plain text; set sslmode to verify-full".to_owned()),
        SslMode::Require if login.ca.is_none() => {
            advice.push(
                "the server's certificate is not verified; give ca.crt and set sslmode to verify-full".to_owned(),
            );
        }
        _ => {}
    }
    if session.version < OLDEST {
        advice.push(format!(
            "PostgreSQL {} is older than 14, with which this is not tested",
            session.version_text
        ));
    }
    advice
}
