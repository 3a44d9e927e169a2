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

    /// From variables that are named like the Secret's keys, as `envFrom` makes them.
    pub fn of_environment() -> Result<Self> {
        Self::of(|key| std::env::var(key).ok())
    }

    fn of(read: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let must = |key: &str| read(key).with_context(|| format!("the Secret has no {key}"));
        Ok(Self {
            username: must("username")?,
            password: must("password")?,
            host: must("host")?,
            port: must("port")?.parse().context("the port is no number")?,
            database: must("database")?,
            authority: read("ca.crt"),
        })
    }
}
