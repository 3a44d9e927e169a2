//! An issued credential in the form that was asked for. The only place of this program where a password is shown.

use super::{Error, show};
use crate::api::grants::Part;
use crate::api::lease::Claim;
use crate::api::pool::ServerStatus;
use crate::keys::Password;
use clap::ValueEnum;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

/// How the credential is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// `export PG...`, for `eval "$(...)"` before psql and its kind.
    Env,
    /// For programs.
    Json,
    /// The same.
    Yaml,
    /// A connection string, as libpq reads it.
    Uri,
    /// A line of ~/.pgpass.
    Pgpass,
}

/// What somebody needs to log in. `Debug` is left out: it would invite a log line.
pub struct Credential {
    /// Namespace and name of the lease.
    pub lease: (String, String),
    /// Account name.
    pub username: String,
    /// Its password.
    pub password: Password,
    /// When both end.
    pub expires_at: Timestamp,
    /// Where the account logs in, as far as it can be told.
    pub place: Place,
}

/// Where an account logs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Host; several separated by commas.
    pub host: Option<String>,
    /// Port.
    pub port: Option<String>,
    /// The databases in which the account has rights.
    pub databases: Vec<String>,
    /// libpq's word for what is known of the server's TLS.
    pub sslmode: Option<&'static str>,
}

impl Place {
    /// From what an engine found on the server, and from the grants of the lease.
    pub fn of(server: Option<&ServerStatus>, claim: &Claim) -> Self {
        let address = server.and_then(|server| server.address.as_deref());
        let (host, port) = address.and_then(|address| address.rsplit_once(':')).unzip();
        let mut databases = Vec::new();
        for pair in &claim.group.grants {
            if let Ok(grant) = pair.parse()
                && let Some(Part::Name(database)) = grant.target.database
                && !databases.contains(&database)
            {
                databases.push(database);
            }
        }
        // The engine verified the server by the base secret's CA, which the asker does not have.
        let encrypted = server.is_some_and(|server| server.tls.is_some());
        Self {
            host: host.map(str::to_owned),
            port: port.map(str::to_owned),
            databases,
            sslmode: encrypted.then_some("require"),
        }
    }
}

impl Credential {
    /// Writes it to standard output.
    pub fn print(&self, form: Form, now: Timestamp) -> Result<(), Error> {
        match form {
            Form::Table => show::print(&self.table(now)),
            Form::Env => show::print(&self.environment()),
            Form::Json => show::print_json(&self.json()),
            Form::Yaml => show::print_yaml(&self.json()),
            Form::Uri => show::print(&self.uri()),
            Form::Pgpass => show::print(&self.pgpass()),
        }
    }

    fn table(&self, now: Timestamp) -> String {
        let unknown = || "-".to_owned();
        let place = &self.place;
        let rows = [
            ("user", self.username.clone()),
            ("password", self.password.reveal().to_owned()),
            ("host", place.host.clone().unwrap_or_else(unknown)),
            ("port", place.port.clone().unwrap_or_else(unknown)),
            ("database", place.databases.join(", ")),
            ("ends in", show::distance(now, self.expires_at)),
            ("lease", format!("{}/{}", self.lease.0, self.lease.1)),
        ];
        let rows = rows.map(|(name, value)| [name.to_owned(), value]);
        show::table(["FIELD", "VALUE"], rows.into())
    }

    /// The variables by which psql and its kind find the credential.
    pub fn variables(&self) -> Vec<(&'static str, &str)> {
        let place = &self.place;
        let pairs = [
            ("PGUSER", Some(self.username.as_str())),
            ("PGPASSWORD", Some(self.password.reveal())),
            ("PGHOST", place.host.as_deref()),
            ("PGPORT", place.port.as_deref()),
            ("PGDATABASE", place.databases.first().map(String::as_str)),
            ("PGSSLMODE", place.sslmode),
        ];
        pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    fn environment(&self) -> String {
        let lines = self.variables().into_iter();
        let lines = lines.map(|(name, value)| format!("export {name}={}", quoted(value)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// User and password are of characters that need no escape; the database may be called anything.
    fn uri(&self) -> String {
        let place = &self.place;
        let host = place.host.as_deref().unwrap_or_default();
        let port = place.port.as_ref().map(|port| format!(":{port}")).unwrap_or_default();
        let database = place.databases.first().map(String::as_str).unwrap_or_default();
        let database = utf8_percent_encode(database, NON_ALPHANUMERIC);
        let mode = place.sslmode.map(|mode| format!("?sslmode={mode}")).unwrap_or_default();
        format!(
            "postgresql://{}:{}@{host}{port}/{database}{mode}",
            self.username,
            self.password.reveal()
        )
    }

    fn pgpass(&self) -> String {
        let place = &self.place;
        let any = |value: Option<&str>| {
            value.map_or_else(
                || "*".to_owned(),
                |value| value.replace('\\', r"\\").replace(':', r"\:"),
            )
        };
        let database = place.databases.first().map(String::as_str);
        [
            any(place.host.as_deref()),
            any(place.port.as_deref()),
            any(database),
            self.username.clone(),
            self.password.reveal().to_owned(),
        ]
        .join(":")
    }

    fn json(&self) -> serde_json::Value {
        let place = &self.place;
        json!({
            "namespace": self.lease.0,
            "lease": self.lease.1,
            "username": self.username,
            "password": self.password.reveal(),
            "host": place.host,
            "port": place.port,
            "databases": place.databases,
            "sslmode": place.sslmode,
            "expiresAt": self.expires_at.to_string(),
        })
    }
}

/// As one word of a POSIX shell, whatever is in it: a database name may be anything.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::dynamic_secret::OwnedObjectsPolicy;
    use crate::api::lease::{ClaimedGroup, ClaimedPool, Maker};
    use crate::api::permissions::GrantPermissions;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn claim(places: &[&str]) -> Claim {
        let start = Time(Timestamp::UNIX_EPOCH);
        let grant = |target: &&str| GrantPermissions {
            what: "SELECT".into(),
            target: (*target).to_owned(),
        };
        Claim {
            maker: Maker {
                holder: "op".into(),
                term: 1,
            }
            .into(),
            dynamic_secret_uid: "u".into(),
            serial: 0,
            server: "server-x".into(),
            pool: ClaimedPool {
                namespace: "databases".into(),
                name: "orders".into(),
                uid: "p".into(),
            }
            .into(),
            group: ClaimedGroup {
                name: "dsvg_x".into(),
                grants: places.iter().map(grant).collect(),
                since: start.clone(),
            }
            .into(),
            user_prefix: "".into(),
            fingerprint: "f".into(),
            ttl_seconds: 60,
            claimed_at: start.clone(),
            issue_deadline: start.clone(),
            valid_until: start.clone(),
            expires_at: start,
            target: None,
            owned_objects: OwnedObjectsPolicy::Reassign,
            account: None,
        }
    }

    #[test]
    fn the_place_comes_from_the_server_and_from_the_grants() {
        let server = ServerStatus {
            address: Some("db.example.com:5432".into()),
            tls: Some("TLSv1.3".into()),
            ..ServerStatus::default()
        };
        let place = Place::of(
            Some(&server),
            &claim(&["orders.public.*", "*.x.y", "\"o'dd\".a.b", "orders.b.c"]),
        );
        assert_eq!(
            (place.host.as_deref(), place.port.as_deref(), place.sslmode),
            (Some("db.example.com"), Some("5432"), Some("require"))
        );
        assert_eq!(place.databases, ["orders", "o'dd"]);
        assert_eq!(Place::of(None, &claim(&["*.x.y"])), Place::default());
    }

    #[test]
    fn a_shell_reads_back_every_value() {
        let credential = Credential {
            lease: ("shop".into(), "a-1".into()),
            username: "shop_a".into(),
            password: Password::generate(),
            expires_at: Timestamp::UNIX_EPOCH,
            place: Place {
                databases: vec!["o'dd $(name)".into()],
                ..Place::default()
            },
        };
        let script = format!("{}\nprintf %s \"$PGDATABASE\"", credential.environment());
        let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), "o'dd $(name)");
        assert!(!credential.environment().contains("PGHOST"));
        let uri = credential.uri();
        assert!(
            uri.starts_with("postgresql://shop_a:") && uri.ends_with("@/o%27dd%20%24%28name%29"),
            "{uri}"
        );
        let line = credential.pgpass();
        assert!(line.starts_with("*:*:o'dd $(name):shop_a:"), "{line}");
    }
}
