//! The clock of operator and engine. What was measured, such as a silence, is measured with `Instant` instead.

use jiff::Timestamp;

/// What this machine's clock says.
#[cfg(not(feature = "failpoints"))]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// What this machine's clock says, shifted as the fault tests ask.
#[cfg(feature = "failpoints")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.saturating_add(crate::failpoint::clock_shift()).unwrap_or(now)
}
