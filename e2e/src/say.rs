//! What a person sees on the screen while something takes long: one line, with the seconds since the start.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

static START: OnceLock<Instant> = OnceLock::new();
static COPY: OnceLock<File> = OnceLock::new();

/// Time since the first line.
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// From now on every line goes to this file as well, for when nobody looks at the screen any more.
pub fn also_to(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let _ = COPY.set(file);
    Ok(())
}

/// Prints one progress line to standard error; a closed terminal is no reason to fail.
pub fn say(line: impl AsRef<str>) {
    let line = format!("[{:6.1} s] {}\n", elapsed().as_secs_f64(), line.as_ref());
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(mut copy) = COPY.get() {
        let _ = copy.write_all(line.as_bytes());
    }
}
