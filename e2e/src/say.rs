//! What a person sees on the screen while something takes long: one line, with the seconds since the start.

use std::io::Write;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Starts the clock that [`say`] shows. Without it the clock starts with the first line.
pub fn start_clock() {
    START.get_or_init(Instant::now);
}

/// Time since the clock started.
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Prints one progress line to standard error; a closed terminal is no reason to fail.
pub fn say(line: impl AsRef<str>) {
    let seconds = elapsed().as_secs_f64();
    let _ = writeln!(std::io::stderr(), "[{seconds:6.1} s] {}", line.as_ref());
}
