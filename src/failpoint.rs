//! Places at which the fault tests hold or break this program. Without the feature `failpoints`, as in everything that is
//! released, they are no code at all.
//!
//! A test arms a place by a file of its name in the folder of `DSV_FAILPOINTS`. The first one to get there whose subject (a
//! lease, a dynamic secret, a role) contains the file's second word takes the file away, so each is one shot, also among
//! several processes. The first word says what happens:
//!
//! | text | what happens |
//! |---|---|
//! | `hold <subject>` | waits until the test removes the file `<place>.held`; the rest of the program goes on |
//! | `break <subject>` | takes the branch that the place has for it |
//! | `always <subject>` | the same for everybody who gets there, until the test removes the file |
//! | `kill <subject>` | the process ends without any farewell |
//! | `kill <subject> <microseconds>` | the same so much later, while the program goes on |
//!
//! `*` is any subject. A second subject of the same place has the file `<place>@2`.

/// `failpoint!("name", subject)` or `failpoint!("name", subject, what happens when it is to break)`.
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($($any:tt)*) => {};
}

#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($place:expr, $subject:expr) => {
        crate::failpoint::reach($place, $subject).await;
    };
    ($place:expr, $subject:expr, $broken:expr) => {
        if crate::failpoint::reach($place, $subject).await {
            $broken
        }
    };
}

#[cfg(feature = "failpoints")]
pub use armed::{clock_shift, reach};

#[cfg(feature = "failpoints")]
mod armed {
    use jiff::SignedDuration;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// How soon a held place notices that it is let go.
    const POLL: Duration = Duration::from_millis(2);

    /// One place may be armed for several subjects at a time, under names of their own.
    const ARMS: [&str; 2] = ["", "@2"];

    /// Passes the place, or does what the test asks. True: take the broken branch.
    pub async fn reach(place: impl AsRef<str>, subject: impl AsRef<str>) -> bool {
        let (place, subject) = (place.as_ref(), subject.as_ref());
        let Some((text, held)) = take(place, subject) else {
            return false;
        };
        tracing::warn!(place, subject, text, "a failpoint was reached");
        let mut words = text.split_whitespace();
        match (words.next(), words.nth(1)) {
            (Some("kill"), None) => std::process::abort(),
            (Some("kill"), Some(after)) => {
                let after = Duration::from_micros(after.parse().unwrap_or_default());
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    std::process::abort()
                });
                false
            }
            (Some("break" | "always"), _) => true,
            _ => {
                while held.exists() {
                    tokio::time::sleep(POLL).await;
                }
                tracing::warn!(place, subject, "a failpoint was let go");
                false
            }
        }
    }

    /// What the place is armed with, once.
    fn take(place: &str, subject: &str) -> Option<(String, PathBuf)> {
        let folder = PathBuf::from(std::env::var_os("DSV_FAILPOINTS")?);
        ARMS.iter()
            .find_map(|end| take_one(&folder, &format!("{place}{end}"), subject))
    }

    fn take_one(folder: &Path, place: &str, subject: &str) -> Option<(String, PathBuf)> {
        let armed = folder.join(place);
        let text = std::fs::read_to_string(&armed).ok()?;
        let wanted = text.split_whitespace().nth(1).unwrap_or("*");
        if wanted != "*" && !subject.contains(wanted) {
            return None;
        }
        if text.starts_with("always") {
            return Some((text, armed));
        }
        let held = folder.join(format!("{place}.held"));
        // Of several who get here at once the rename succeeds for one.
        std::fs::rename(&armed, &held).ok()?;
        Some((text, held))
    }

    /// How far the clock is off: the seconds in the file of `DSV_CLOCK`.
    pub fn clock_shift() -> SignedDuration {
        let file = std::env::var_os("DSV_CLOCK").map(PathBuf::from);
        let text = file.and_then(|file| std::fs::read_to_string(file).ok());
        let seconds = text.and_then(|text| text.trim().parse().ok());
        SignedDuration::from_secs(seconds.unwrap_or_default())
    }
}
