//! Notices that this machine's clock leapt, or that the machine slept, during which what measures time stands still. What
//! waits for a time of day then looks again, and what was known of other clocks is learned anew.

use super::context::Context;
use crate::clock;
use jiff::SignedDuration;
use kube::ResourceExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks: an account whose time a leap has brought is taken back this much later.
const EVERY: Duration = Duration::from_secs(1);
/// Less is a clock that is being set right, a little at a time.
const LEAP: SignedDuration = SignedDuration::from_millis(500);

/// Looks for ever.
pub async fn watch(ctx: Arc<Context>) {
    loop {
        let (wall, measured) = (clock::now(), Instant::now());
        tokio::time::sleep(EVERY).await;
        let Some(leapt) = leap(clock::now().duration_since(wall), measured.elapsed()) else {
            continue;
        };
        tracing::warn!(
            seconds = leapt.as_secs_f64(),
            "this machine's clock leapt; everything is looked at again"
        );
        ctx.servers.forget_clocks();
        for lease in ctx.stores.leases.state() {
            ctx.wake_lease(&lease.namespace().unwrap_or_default(), &lease.name_any());
        }
        for owner in ctx.stores.dynamic_secrets.state() {
            ctx.wake_dynamic_secret(&owner.namespace().unwrap_or_default(), &owner.name_any());
        }
    }
}

/// How far the clock went beyond the time that passed, if that is a leap.
fn leap(by_clock: SignedDuration, measured: Duration) -> Option<SignedDuration> {
    let measured = SignedDuration::try_from(measured).unwrap_or(SignedDuration::MAX);
    let beyond = by_clock.saturating_sub(measured);
    (beyond.abs() >= LEAP).then_some(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_is_told_from_a_late_look_and_from_a_clock_that_is_set_right() {
        let second = SignedDuration::from_secs(1);
        let table = [
            (second, Duration::from_secs(1), None),
            // The look came late: the clock and the measure agree.
            (second * 9, Duration::from_secs(9), None),
            (SignedDuration::from_millis(1040), Duration::from_secs(1), None),
            (second * 3601, Duration::from_secs(1), Some(second * 3600)),
            (second * -3599, Duration::from_secs(1), Some(second * -3600)),
        ];
        for (by_clock, measured, expected) in table {
            assert_eq!(leap(by_clock, measured), expected, "{by_clock:?} in {measured:?}");
        }
    }
}
