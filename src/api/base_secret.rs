//! Reading a base secret: the administrative login of one database server, as a user wrote it into a Kubernetes Secret.

use super::names::{POSTGRESQL, TYPE_LABEL};
use crate::channel::frames::{ServerLogin, SslMode};
use crate::keys::SecretText;
use k8s_openapi::api::core::v1::Secret;

/// Database where nothing else is said, as for PostgreSQL's own tools.
pub const DEFAULT_DATABASE: &str = "postgres";

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
    let login = ServerLogin {
        record: String::new(),
        host: reader.required("host").trim().to_owned(),
        port: reader.port(),
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

    fn port(&mut self) -> u16 {
        let text = self.required("port");
        match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ if text.is_empty() => 0,
            _ => {
                self.fault("key port is not a number from 1 to 65535");
                0
            }
        }
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
