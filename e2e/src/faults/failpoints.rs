//! Arming the places at which programs built with the feature `failpoints` can be held; see `src/failpoint.rs` of the product.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(5);

/// The folder that programs look into.
#[derive(Debug, Clone)]
pub struct Failpoints(PathBuf);

impl Failpoints {
    /// Nothing is armed.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn file(&self, place: &str, end: &str) -> PathBuf {
        self.0.join(format!("{place}{end}"))
    }

    /// The next one who gets to `place` with a subject that contains `subject` does what `action` says.
    pub fn arm(&self, place: &str, action: &str, subject: &str) -> Result<()> {
        // Written beside and renamed, so that nobody reads half of it.
        let beside = self.file(place, ".new");
        let (word, more) = action.split_once(' ').unwrap_or((action, ""));
        fs::write(&beside, format!("{word} {subject} {more}"))?;
        Ok(fs::rename(beside, self.file(place, ""))?)
    }

    /// Whether somebody has got there since it was armed.
    pub fn is_reached(&self, place: &str) -> bool {
        self.file(place, ".held").exists()
    }

    /// Waits until somebody has got there.
    pub async fn reached(&self, place: &str, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.is_reached(place) {
            if start.elapsed() > limit {
                bail!("nobody came to {place} within {limit:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Disarms all places and lets everybody go on.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let _ = fs::remove_file(path);
        }
        // What was renamed from armed to held meanwhile is found under its other name now.
        for entry in fs::read_dir(&self.0)? {
            let _ = fs::remove_file(entry?.path());
        }
        Ok(())
    }
}
