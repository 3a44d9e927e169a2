//! Reading a base secret: the administrative login of one database server, as a user wrote it into a Kubernetes Secret.

use super::names::{POSTGRESQL, TYPE_LABEL};
use crate::channel::frames::{ServerLogin, SslMode};
use crate::keys::SecretText;
use k8s_openapi::api::core::v1::Secret;

/// Database where nothing else is said, as for PostgreSQL's own tools.
pub const DEFAULT_DATABASE: &str = "postgres";

/// Most hosts of one server: each is looked at when an account is taken back.
const MAX_HOSTS: usize = 8;

/// What is wrong with a base secret: every fault at once, so that one round of mending is enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("base secret {name}: {}", faults.join("; "))]
pub struct BaseSecretInvalid {
    /// Name of the Secret.
    pub name: String,
    /// Each as a clause with the next step.
    pub faults: Vec<String>,
}

/// Reads a base secret. The record's name is left empty; it is derived from what is read here.
pub fn read(secret: &Secret) -> Result<ServerLogin, BaseSecretInvalid> {
    let mut reader = Reader {
        secret,
        faults: Vec::new(),
    };
    reader.check_label();
    let host = reader.host();
    let (port, ports) = reader.ports(&host);
    let login = ServerLogin {
        record: String::new(),
        host,
        port,
        ports,
        username: reader.required("username"),
        password: SecretText::new(reader.required("password")),
        database: reader
            .optional("database")
            .unwrap_or_else(|| DEFAULT_DATABASE.to_owned()),
        sslmode: reader.sslmode(),
        ca: reader.optional("ca.crt"),
        client_certificate: reader.optional("tls.crt"),
        client_key: reader.optional("tls.key").map(SecretText::new),
    };
    if login.client_certificate.is_some() != login.client_key.is_some() {
        reader.fault("tls.crt and tls.key belong together; write both or neither");
    }
    if reader.faults.is_empty() {
        return Ok(login);
    }
    Err(BaseSecretInvalid {
        name: secret.metadata.name.clone().unwrap_or_default(),
        faults: reader.faults,
    })
}

struct Reader<'a> {
    secret: &'a Secret,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    fn check_label(&mut self) {
        let label = self
            .secret
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(TYPE_LABEL))
            .map(String::as_str);
        match label {
            // DSV's newer pages write `postgres`.
            Some(POSTGRESQL | "postgres") => {}
            Some(other) => self.fault(format!(
                "label {TYPE_LABEL} is `{other}`; only `{POSTGRESQL}` is served"
            )),
            None => self.fault(format!(
                "label {TYPE_LABEL}={POSTGRESQL} is missing; it marks a Secret as a base secret"
            )),
        }
    }

    fn optional(&mut self, key: &str) -> Option<String> {
        let bytes = self.secret.data.as_ref()?.get(key)?;
        match String::from_utf8(bytes.0.clone()) {
            Ok(text) if text.contains('\0') => {
                self.fault(format!("key {key} contains a NUL byte"));
                None
            }
            Ok(text) => (!text.trim().is_empty()).then_some(text),
            Err(_) => {
                self.fault(format!("key {key} is not UTF-8 text"));
                None
            }
        }
    }

    fn required(&mut self, key: &str) -> String {
        let before = self.faults.len();
        let value = self.optional(key);
        if value.is_none() && self.faults.len() == before {
            self.fault(format!("key {key} is missing or empty"));
        }
        value.unwrap_or_default()
    }

    /// One host, or several of one replicated server, as libpq reads them.
    fn host(&mut self) -> String {
        let text = self.required("host");
        let hosts: Vec<&str> = text.split(',').map(str::trim).collect();
        if hosts.len() > 1 && hosts.contains(&"") {
            self.fault("key host has an empty place in its list; separate hosts by one comma each");
        }
        if hosts.iter().any(|host| host.starts_with('/')) {
            self.fault("key host is a path; write a name or an address");
        }
        if hosts.len() > MAX_HOSTS {
            self.fault(format!("key host lists more than {MAX_HOSTS} hosts"));
        }
        hosts.join(",")
    }

    /// The first port, and all of them if they differ: one for all hosts, or one for each.
    fn ports(&mut self, host: &str) -> (u16, Vec<u16>) {
        let text = self.required("port");
        if text.is_empty() {
            return (0, Vec::new());
        }
        let read = |port: &str| port.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let Some(ports) = text.split(',').map(read).collect::<Option<Vec<u16>>>() else {
            self.fault("key port is not a number from 1 to 65535, or several separated by commas");
            return (0, Vec::new());
        };
        let hosts = host.split(',').count();
        if ports.len() > 1 && ports.len() != hosts {
            self.fault(format!(
                "key port lists {} ports for {hosts} host(s); write one for all, or one for each",
                ports.len()
            ));
        }
        let first = ports.first().copied().unwrap_or_default();
        let differ = ports.iter().any(|port| *port != first);
        (first, if differ { ports } else { Vec::new() })
    }

    fn sslmode(&mut self) -> SslMode {
        let has_ca = self
            .secret
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key("ca.crt"));
        match self.optional("sslmode").as_deref().map(str::trim) {
            None if has_ca => SslMode::VerifyFull,
            // `prefer` and `allow` may fall back to plain text, which only `disable` may.
            None | Some("require" | "prefer" | "allow") => SslMode::Require,
            Some("disable") => SslMode::Disable,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(_) => {
                self.fault("key sslmode is not one of disable, require, verify-ca, verify-full");
                SslMode::VerifyFull
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(label: Option<&str>, pairs: &[(&str, &str)]) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.name = Some("orders-db".into());
        secret.metadata.labels = label.map(|l| [(TYPE_LABEL.to_owned(), l.to_owned())].into());
        secret.data = Some(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
                .collect(),
        );
        secret
    }

    const FULL: [(&str, &str); 4] = [("host", "db"), ("port", "5432"), ("username", "u"), ("password", "p")];

    #[test]
    fn four_keys_are_enough() {
        let login = read(&secret(Some("postgresql"), &FULL)).unwrap();
        assert_eq!(
            (login.database.as_str(), login.sslmode, login.port),
            ("postgres", SslMode::Require, 5432)
        );
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let error = read(&secret(None, &[("port", "many"), ("host", "db"), ("sslmode", "yes")])).unwrap_err();
        let text = error.to_string();
        for part in [
            "label dsv.dev/type",
            "key port is not a number",
            "key username is missing",
            "key password",
            "sslmode",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn several_hosts_have_one_port_or_one_each() {
        let of = |host: &str, port: &str| {
            let pairs = [("host", host), ("port", port), ("username", "u"), ("password", "p")];
            read(&secret(Some("postgresql"), &pairs))
        };
        let text = |host: &str, port: &str| {
            let login = of(host, port).unwrap();
            (login.addresses(), login.port_text())
        };
        let at = |host: &str, port: u16| (host.to_owned(), port);
        assert_eq!(text("a", "1"), (vec![at("a", 1)], "1".into()));
        assert_eq!(text("a, b", "1"), (vec![at("a", 1), at("b", 1)], "1".into()));
        assert_eq!(text("a,b", "1,1"), (vec![at("a", 1), at("b", 1)], "1".into()));
        assert_eq!(text("a,b", "1, 2"), (vec![at("a", 1), at("b", 2)], "1,2".into()));
        for (host, port, says) in [
            ("a,b,c", "1,2", "lists 2 ports for 3 host(s)"),
            ("a", "1,2", "lists 2 ports for 1 host(s)"),
            ("a,b", "1,x", "key port is not a number"),
            ("a,b", "1,0", "key port is not a number"),
            ("a,,b", "1", "empty place"),
            ("/tmp", "1", "a path"),
            ("a,b,c,d,e,f,g,h,i", "1", "more than 8"),
        ] {
            let error = of(host, port).unwrap_err().to_string();
            assert!(error.contains(says), "{host} {port}: {error}");
        }
    }

    #[test]
    fn with_a_ca_the_server_is_verified_unless_told_otherwise() {
        let mut pairs = FULL.to_vec();
        pairs.push(("ca.crt", "-----BEGIN"));
        assert_eq!(
            read(&secret(Some("postgresql"), &pairs)).unwrap().sslmode,
            SslMode::VerifyFull
        );
        pairs.push(("sslmode", "prefer"));
        assert_eq!(
            read(&secret(Some("postgresql"), &pairs)).unwrap().sslmode,
            SslMode::Require
        );
    }
}
