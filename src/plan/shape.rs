//! What is in a credential Secret: which keys, in which form. Nothing here knows where it is written.

use super::template::{Unfit, fill, urlencode};
use crate::api::target::{TargetFormat, TargetSecret};
use crate::channel::frames::{ServerLogin, SslMode};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Who logs in where.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// Account name.
    pub username: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Where it logs in; the login in it is the issuer's and is not used.
    pub server: &'a ServerLogin,
}

/// Keys and values as text, in no encoding.
pub type Keys<'a> = BTreeMap<&'a str, Cow<'a, str>>;

/// All keys that the target asks for. An error tells what is wrong with a template, under its key.
pub fn keys<'a>(login: Login<'a>, target: Option<&'a TargetSecret>) -> Result<Keys<'a>, (String, Unfit)> {
    let mut keys = usual(login);
    let Some(target) = target else { return Ok(keys) };
    for format in &target.formats {
        match format {
            TargetFormat::Jdbc => drop(keys.insert("jdbc-uri", jdbc(login).into())),
            TargetFormat::Pgpass => drop(keys.insert("pgpass", pgpass(login).into())),
            TargetFormat::Dotnet => drop(keys.insert("dotnet", dotnet(login).into())),
            TargetFormat::Libpq => keys.extend(libpq(login)),
        }
    }
    let filled: Result<Vec<_>, _> = target
        .template
        .iter()
        .map(|(key, template)| match fill(template, &keys) {
            Ok(text) => Ok((key.as_str(), Cow::Owned(text))),
            Err(unfit) => Err((key.clone(), unfit)),
        })
        .collect();
    keys.extend(filled?);
    Ok(keys)
}

/// What everybody needs to log in.
pub fn usual(login: Login<'_>) -> Keys<'_> {
    let server = login.server;
    let mut keys: Keys<'_> = [
        ("type", "postgresql".into()),
        ("username", login.username.into()),
        ("password", login.password.into()),
        ("host", server.host.as_str().into()),
        ("port", server.port_text().into()),
        ("database", server.database.as_str().into()),
        ("sslmode", sslmode(server).into()),
        ("uri", uri(login).into()),
    ]
    .into();
    if let Some(ca) = &server.ca {
        keys.insert("ca.crt", ca.as_str().into());
    }
    keys
}

fn sslmode(server: &ServerLogin) -> &'static str {
    match server.sslmode {
        SslMode::Disable => "disable",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}

/// The database's hosts as a URI has them, and whether there are several: then only the one that takes writes will do.
fn authority(server: &ServerLogin) -> (String, bool) {
    let addresses = server.addresses();
    let hosts: Vec<String> = addresses
        .iter()
        .map(|(host, port)| format!("{}:{port}", bracket(host)))
        .collect();
    (hosts.join(","), hosts.len() > 1)
}

fn bracket(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        urlencode(host)
    }
}

/// A libpq connection URI (PostgreSQL manual, "Connection URIs").
fn uri(login: Login<'_>) -> String {
    let (hosts, several) = authority(login.server);
    let (user, password) = (urlencode(login.username), urlencode(login.password));
    let database = urlencode(&login.server.database);
    let writable = if several {
        "&target_session_attrs=read-write"
    } else {
        ""
    };
    let sslmode = sslmode(login.server);
    format!("postgresql://{user}:{password}@{hosts}/{database}?sslmode={sslmode}{writable}")
}

/// A URL of the PostgreSQL JDBC driver.
fn jdbc(login: Login<'_>) -> String {
    let (hosts, several) = authority(login.server);
    let (user, password) = (urlencode(login.username), urlencode(login.password));
    let database = urlencode(&login.server.database);
    let writable = if several { "&targetServerType=primary" } else { "" };
    let sslmode = sslmode(login.server);
    format!("jdbc:postgresql://{hosts}/{database}?user={user}&password={password}&sslmode={sslmode}{writable}")
}

/// libpq's environment variables.
fn libpq(login: Login<'_>) -> Keys<'_> {
    let server = login.server;
    let mut keys: Keys<'_> = [
        ("PGHOST", server.host.as_str().into()),
        ("PGPORT", server.port_text().into()),
        ("PGDATABASE", server.database.as_str().into()),
        ("PGUSER", login.username.into()),
        ("PGPASSWORD", login.password.into()),
        ("PGSSLMODE", sslmode(server).into()),
    ]
    .into();
    if server.addresses().len() > 1 {
        keys.insert("PGTARGETSESSIONATTRS", "read-write".into());
    }
    keys
}

/// A password file: one line for each host, with `:` and `\\` escaped.
fn pgpass(login: Login<'_>) -> String {
    let escaped = |text: &str| text.replace('\\', r"\\").replace(':', r"\:");
    let line = |(host, port): &(String, u16)| {
        let fields = [&login.server.database, login.username, login.password].map(escaped);
        format!("{}:{port}:{}\n", escaped(host), fields.join(":"))
    };
    login.server.addresses().iter().map(line).collect()
}

/// A connection string of Npgsql; a value is quoted where it would end its pair.
fn dotnet(login: Login<'_>) -> String {
    let quoted = |text: &str| {
        let plain = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./:,[]".contains(c));
        if plain {
            text.to_owned()
        } else {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
    };
    let server = login.server;
    let addresses = server.addresses();
    let several = addresses.len() > 1;
    let hosts: Vec<String> = addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
    let (host, port) = if several {
        (hosts.join(","), None)
    } else {
        (server.host.clone(), Some(server.port_text()))
    };
    let mode = match server.sslmode {
        SslMode::Disable => "Disable",
        SslMode::Require => "Require",
        SslMode::VerifyCa => "VerifyCA",
        SslMode::VerifyFull => "VerifyFull",
    };
    let pairs = [
        ("Host", Some(host)),
        ("Port", port),
        ("Database", Some(server.database.clone())),
        ("Username", Some(login.username.to_owned())),
        ("Password", Some(login.password.to_owned())),
        ("SSL Mode", Some(mode.to_owned())),
        ("Target Session Attributes", several.then(|| "read-write".to_owned())),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", quoted(&value)))
        .collect();
    pairs.join(";")
}

#[cfg(test)]
mod tests;
