//! Kubeconfig files. JSON is YAML, so no YAML writer is needed.

use std::path::Path;

use anyhow::Result;
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::certificates::{Signed, write_private};

/// How to reach one API server and who to trust there.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    /// PEM of the authority that signed the server's certificate.
    pub authority: String,
}

impl Endpoint {
    /// A kubeconfig whose user logs in with a client certificate.
    pub fn with_certificate(&self, path: &Path, signed: &Signed) -> Result<()> {
        let encode = |pem: &str| BASE64.encode(pem.as_bytes());
        let user = json!({
            "client-certificate-data": encode(&signed.certificate),
            "client-key-data": encode(&signed.key),
        });
        self.write(path, &user)
    }

    /// A kubeconfig whose user logs in with a bearer token.
    pub fn with_token(&self, path: &Path, token: &str) -> Result<()> {
        self.write(path, &json!({ "token": token }))
    }

    fn write(&self, path: &Path, user: &Value) -> Result<()> {
        let authority = BASE64.encode(self.authority.as_bytes());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "local", "user": user}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
            "current-context": "local",
        });
        write_private(path, &serde_json::to_string_pretty(&config)?)
    }
}
