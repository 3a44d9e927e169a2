//! The stock clients of DevOps Secrets Vault that are written in Go, unchanged, from the modules that `e2e/clients` pins: the CLI,
//! the SDK, and the provider of External Secrets. The latter two are libraries, so small programs of ours call them.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::node::module;

/// Each program and its package.
const CLI: [(&str, &str); 1] = [("dsv", "github.com/DelineaXPM/dsv-cli")];
const SDK: [(&str, &str); 1] = [("dsv-sdk", ".")];
const EXTERNAL_SECRETS: [(&str, &str); 1] = [("dsv-eso", ".")];
const NEED: &str =
    "the stock clients of DevOps Secrets Vault are built once, which needs Go and a Go module proxy that answers";

/// Where the built clients lie.
#[derive(Clone, Debug)]
pub struct StockClients {
    cli: PathBuf,
    sdk: PathBuf,
    external_secrets: PathBuf,
}

impl StockClients {
    /// `dsv`.
    pub fn cli(&self) -> PathBuf {
        self.cli.join("dsv")
    }

    /// What calls the Go SDK.
    pub fn sdk(&self) -> PathBuf {
        self.sdk.join("dsv-sdk")
    }

    /// What calls the provider of External Secrets.
    pub fn external_secrets(&self) -> PathBuf {
        self.external_secrets.join("dsv-eso")
    }
}

/// The clients, built now if the cache has none for these modules.
pub fn stock_clients() -> Result<StockClients> {
    let build = |folder: &str, files: &[&str], targets: &[(&str, &str)]| {
        let name = format!("dsv-{folder}");
        module(&format!("clients/{folder}"), &name, files, targets).context(NEED)
    };
    Ok(StockClients {
        cli: build("cli", &["go.mod", "go.sum"], &CLI)?,
        sdk: build("sdk", &["go.mod", "go.sum", "main.go"], &SDK)?,
        external_secrets: build("eso", &["go.mod", "go.sum", "main.go"], &EXTERNAL_SECRETS)?,
    })
}
