//! Chromium and its driver, from the machine's own packages: nobody builds a browser for a test, and any recent one will do.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::debian;
use crate::cluster::find_on_path;

const PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];

/// Where the programs lie.
#[derive(Clone, Debug)]
pub struct BrowserPrograms {
    pub chromium: PathBuf,
    pub driver: PathBuf,
}

fn found() -> Option<BrowserPrograms> {
    Some(BrowserPrograms {
        chromium: find_on_path("chromium").or_else(|| find_on_path("google-chrome"))?,
        driver: find_on_path("chromedriver")?,
    })
}

/// The browser of this machine; installed now if there is none and it can be had. Fails with what is missing, in one sentence.
pub fn browser() -> Result<BrowserPrograms> {
    if let Some(found) = found() {
        return Ok(found);
    }
    debian::install(&PACKAGES)?;
    found().context("chromium and chromedriver were installed and are not on the PATH")
}
