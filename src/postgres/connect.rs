//! One session with a server: opened, prepared, and asked.

use super::failure::{Trouble, chain, class_of, failure, from_statement, sentence_of};
use super::functions::{self, Functions};
use super::sql::{Ident, NotSql};
use crate::channel::frames::{Failure, FailureClass, ServerLogin, SslMode};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_postgres::config::SslMode as Wire;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Longest wait for a TCP connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for name, TCP, TLS and login together.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Data that is not acknowledged for so long ends the connection: a peer that vanished is noticed while an answer is awaited.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// What every session is set to. With our own `search_path` no function or operator of somebody else's schema is ever
/// called; read committed, because statements after a lock must see what was committed before it was got; and a
/// committed DROP must survive a crash.
const PREPARE: &str = "SET search_path = pg_catalog, pg_temp; \
    SET standard_conforming_strings = on; \
    SET default_transaction_isolation = 'read committed'; \
    SET default_transaction_deferrable = off; \
    SET datestyle = 'ISO'; \
    SET timezone = 'UTC'; \
    SET client_min_messages = 'error'; \
    SET lock_timeout = '5s'; \
    SET statement_timeout = '20s'; \
    SET idle_in_transaction_session_timeout = '30s'; \
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; \
    SELECT 'facts' AS tag, pg_is_in_recovery(), current_setting('transaction_read_only'), \
    current_setting('server_version_num'), current_setting('server_version'), current_user, ";

/// One host of a server, with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A prepared session. Dropping it ends it.
pub(super) struct Session {
    client: Client,
    /// `server_version_num`, such as 150018.
    pub(super) version: u32,
    /// `server_version`.
    pub(super) version_text: String,
    /// The role that we are.
    pub(super) user: String,
    /// The database that it is in.
    pub(super) database: String,
    /// When it was opened.
    pub(super) opened: Instant,
    /// What was found when it was looked for last; see [`Session::functions`].
    pub(super) functions: Mutex<Option<Arc<Functions>>>,
}

/// The rows of a simple query: every column as text.
pub(super) type TextRows = Vec<Vec<Option<String>>>;

impl Session {
    /// Opens a session on one host, in one database.
    pub(super) async fn open(
        login: &ServerLogin,
        tls: Option<&MakeRustlsConnect>,
        place: &Place,
        database: &str,
    ) -> Result<Self, Failure> {
        let opened = tokio::time::timeout(LOGIN_TIMEOUT, Self::log_in(login, tls, place, database)).await;
        let client = opened.map_err(|_| unreachable(login, place, "no answer within 10 seconds"))??;
        let (session, writable) = Self::prepare(client, database).await?;
        if writable {
            return Ok(session);
        }
        let record = &login.record;
        Err(failure(
            FailureClass::ReadOnly,
            format!("server {record} at {place} is a standby or read-only; give the host of the writable one"),
        ))
    }

    /// Opens a session on a host that may be a standby, for nothing but looking at sessions and ending them.
    pub(super) async fn open_anywhere(
        login: &ServerLogin,
        tls: Option<&MakeRustlsConnect>,
        place: &Place,
        limit: Duration,
    ) -> Result<Self, Failure> {
        let opened = async {
            let client = Self::log_in(login, tls, place, &login.database).await?;
            Ok(Self::prepare(client, &login.database).await?.0)
        };
        let ended = tokio::time::timeout(limit, opened).await;
        ended.map_err(|_| unreachable(login, place, "no answer in time"))?
    }

    async fn log_in(
        login: &ServerLogin,
        tls: Option<&MakeRustlsConnect>,
        place: &Place,
        database: &str,
    ) -> Result<Client, Failure> {
        let config = config(login, place, database);
        let refused = |error: tokio_postgres::Error| judge_login(login, place, database, &error);
        // The connection itself lives in a task of its own, which ends with the client or the socket.
        if let Some(tls) = tls {
            let (client, connection) = config.connect(tls.clone()).await.map_err(refused)?;
            tokio::spawn(connection);
            Ok(client)
        } else {
            let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
            tokio::spawn(connection);
            Ok(client)
        }
    }

    /// The session, and whether it can write.
    async fn prepare(client: Client, database: &str) -> Result<(Self, bool), Failure> {
        let mut session = Self {
            client,
            version: 0,
            version_text: String::new(),
            user: String::new(),
            database: database.to_owned(),
            opened: Instant::now(),
            functions: Mutex::default(),
        };
        let rows = session
            .text("prepare a session", &format!("{PREPARE}{}", functions::look()))
            .await?;
        let fact = |column: usize| rows.last().and_then(|row| row.get(column)).cloned().flatten();
        let writable = fact(1).as_deref() == Some("f") && fact(2).as_deref() == Some("off");
        session.version = fact(3).and_then(|number| number.parse().ok()).unwrap_or(0);
        session.version_text = fact(4).unwrap_or_default();
        session.user = fact(5).unwrap_or_default();
        session.functions = Mutex::new(Functions::read(fact(6).as_deref()).map(Arc::new));
        Ok((session, writable))
    }

    /// Runs simple-protocol SQL, one round trip; several statements are one transaction. `doing` completes "could not ...".
    pub(super) async fn text(&self, doing: &str, sql: &str) -> Result<TextRows, Trouble> {
        let answered = self.client.simple_query(sql).await;
        let messages = answered.map_err(|error| from_statement(doing, &error))?;
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push(
                    (0..row.len())
                        .map(|i| row.try_get(i).ok().flatten().map(str::to_owned))
                        .collect(),
                );
            }
        }
        Ok(rows)
    }

    /// Runs one statement with parameters, one round trip.
    pub(super) async fn query(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Trouble> {
        let answered = self.client.query_typed(sql, parameters).await;
        answered.map_err(|error| from_statement(doing, &error))
    }

    /// Whether the connection is known to have ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Our own role as SQL.
    pub(super) fn me(&self) -> Result<Ident, NotSql> {
        Ident::new(&self.user)
    }

    /// Whether GRANT of a membership takes INHERIT and SET, and the creator of a role is its administrator.
    pub(super) fn has_grant_options(&self) -> bool {
        self.version >= 160_000
    }
}

fn config(login: &ServerLogin, place: &Place, database: &str) -> Config {
    let mut config = Config::new();
    config
        .host(&place.host)
        .port(place.port)
        .user(&login.username)
        .password(login.password.reveal())
        .dbname(database)
        .application_name("dsv-engine")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(UNACKNOWLEDGED)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(15))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .ssl_mode(match login.sslmode {
            SslMode::Disable => Wire::Disable,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Wire::Require,
        });
    config
}

fn unreachable(login: &ServerLogin, place: &Place, why: &str) -> Failure {
    let record = &login.record;
    failure(
        FailureClass::Unreachable,
        format!("server {record} at {place} cannot be reached: {why}; check host, port and network policy"),
    )
}

fn judge_login(login: &ServerLogin, place: &Place, database: &str, error: &tokio_postgres::Error) -> Failure {
    let (record, user) = (&login.record, &login.username);
    if let Some(said) = error.as_db_error() {
        let (class, next) = match class_of(said) {
            FailureClass::LoginRefused => (
                FailureClass::LoginRefused,
                "check username and password of the base secret",
            ),
            FailureClass::MissingPrivilege => (FailureClass::MissingPrivilege, "GRANT CONNECT on it to the login"),
            FailureClass::ObjectMissing => (FailureClass::ObjectMissing, "create it, or name another one"),
            FailureClass::Busy => (
                FailureClass::Busy,
                "connections or memory are used up; it is tried again",
            ),
            FailureClass::Unreachable => (
                FailureClass::Unreachable,
                "it is starting or stopping; it is tried again",
            ),
            class => (class, "see the server's log"),
        };
        let sentence = sentence_of(said);
        return Failure {
            class,
            sqlstate: Some(said.code().code().to_owned()),
            message: format!("server {record} at {place} refused {user} in database {database}: {sentence}; {next}"),
        };
    }
    let why = chain(error);
    // The crate tells kinds apart only in words; `tests/postgres` holds these against real servers.
    match error.to_string().as_str() {
        "error performing TLS handshake" => tls_refused(login, place, &why),
        _ if is_tls(error) => tls_refused(login, place, &why),
        "authentication error" | "invalid configuration" => failure(
            FailureClass::LoginRefused,
            format!("server {record} at {place} asks for a login that does not fit: {why}; check the base secret"),
        ),
        _ => unreachable(login, place, &why),
    }
}

fn tls_refused(login: &ServerLogin, place: &Place, why: &str) -> Failure {
    let record = &login.record;
    failure(
        FailureClass::TlsRefused,
        format!("no TLS with server {record} at {place}: {why}; check sslmode, ca.crt, tls.crt and tls.key"),
    )
}

/// Whether an alert of the TLS layer is below: TLS 1.3 servers refuse a client certificate only after the handshake.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    let mut below: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = below {
        if cause.is::<rustls::Error>() {
            return true;
        }
        if let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && inner.is::<rustls::Error>()
        {
            return true;
        }
        below = cause.source();
    }
    false
}
