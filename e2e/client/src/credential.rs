//! A credential, as a Secret of the operator carries it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What is needed to log in.
pub struct Credential {
    pub username: String,
    pub password: String,
    pub host: String,
    pub port: u16,
    pub database: String,
    /// PEM of the authority behind the server's certificate.
    pub authority: Option<String>,
    /// libpq's word for transport security, where one is given.
    pub sslmode: Option<String>,
}

impl Credential {
    /// From the files of a mounted Secret. Kubelet swaps the folder behind `..data` in one step and then removes the old
    /// one, so all keys are read from one revision, and again if that one went meanwhile.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let revision = || fs::canonicalize(folder.join("..data")).unwrap_or_else(|_| folder.to_path_buf());
        loop {
            let before = revision();
            let read = Self::of(|key| fs::read_to_string(before.join(key)).ok());
            if read.is_ok() || revision() == before {
                return read;
            }
        }
    }

    /// From variables that are named like the Secret's keys, as `envFrom` makes them, or from libpq's.
    pub fn of_environment() -> Result<Self> {
        Self::of(|key| std::env::var(key).ok())
    }

    fn of(read: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let either = |key: &str, libpq: &str| read(key).or_else(|| read(libpq));
        let must = |key: &str, libpq: &str| {
            either(key, libpq).with_context(|| format!("there is neither {key} nor {libpq}, and one of them is needed"))
        };
        Ok(Self {
            username: must("username", "PGUSER")?,
            password: must("password", "PGPASSWORD")?,
            host: must("host", "PGHOST")?,
            port: must("port", "PGPORT")?.parse().context("the port is no number")?,
            database: must("database", "PGDATABASE")?,
            authority: read("ca.crt"),
            sslmode: either("sslmode", "PGSSLMODE"),
        })
    }
}
