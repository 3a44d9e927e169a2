//! The dead man's handle: while there is no session with an operator, the engine takes back on its own what is past its end.
//!
//! Revoking an account that is past its end is right whoever does it, so an engine that merely lost its way to an operator
//! that works does no harm. Nothing is written to disk: an engine that starts without an operator knows no login.

use super::accounts::Accounts;
use super::metrics::EngineMetrics;
use crate::channel::link::LinkStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long without a session before the first look: another replica of the operator takes over in less, mostly.
const FIRST: Duration = Duration::from_secs(5);
/// Between two looks at whether there is anything to look at.
const IDLE: Duration = Duration::from_secs(15);
/// How often the count of guarded servers is brought up to date.
const COUNT: Duration = Duration::from_secs(5);

/// Stands by until there is no session, and then looks again and again until there is one.
pub async fn stand_by<A: Accounts>(accounts: Arc<A>, mut link: watch::Receiver<LinkStatus>, metrics: EngineMetrics) {
    loop {
        metrics.guarded(accounts.guarded());
        // A closed channel means that the engine stops.
        match timeout(COUNT, link.wait_for(|status| status.connected.is_none())).await {
            Err(_) => continue,
            Ok(Err(_)) => return,
            Ok(Ok(_)) => {}
        }
        if connects_within(&mut link, FIRST).await {
            continue;
        }
        let servers = accounts.guarded();
        if servers > 0 {
            tracing::warn!(
                servers,
                "there is no operator; accounts that are past their end are revoked without it"
            );
        }
        while link.borrow().connected.is_none() {
            // Runs to its end even if the operator is back meanwhile: both do the same.
            let swept = accounts.revoke_expired().await;
            metrics.expired_revoked(swept.revoked);
            metrics.guarded(accounts.guarded());
            if swept.revoked + swept.resisting > 0 {
                let (revoked, resisting) = (swept.revoked, swept.resisting);
                tracing::info!(revoked, resisting, "without an operator: accounts past their end");
            }
            let pause = swept.pause.and_then(|pause| Duration::try_from(pause).ok());
            connects_within(&mut link, jittered(pause.unwrap_or(IDLE))).await;
            if link.has_changed().is_err() {
                return;
            }
        }
    }
}

/// The engines of a pool look one after the other rather than all at once.
fn jittered(pause: Duration) -> Duration {
    pause + Duration::from_millis(rand::random_range(0..500))
}

async fn connects_within(link: &mut watch::Receiver<LinkStatus>, time: Duration) -> bool {
    let connected = link.wait_for(|status| status.connected.is_some());
    matches!(timeout(time, connected).await, Ok(Ok(_)))
}
