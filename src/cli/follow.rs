//! Following one object until something is so, for a limited time and unless Ctrl-C comes.

use super::Error;
use super::error::Intention;
use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How following ended.
pub enum Ended<T> {
    /// What was waited for.
    Seen(T),
    /// The time is over.
    TimedOut,
    /// Ctrl-C, or a request to end.
    Interrupted,
}

/// Shows `judge` every state of the object (none while it does not exist) until it has an answer. Watches that break are
/// taken up again; one that is refused is an error.
pub async fn follow<K, T>(
    api: Api<K>,
    name: &str,
    patience: Duration,
    mut judge: impl FnMut(Option<&K>) -> Option<T>,
) -> Result<Ended<T>, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watching = async {
        let mut states = std::pin::pin!(watcher::watch_object(api, name).default_backoff());
        loop {
            match states.try_next().await {
                Ok(Some(state)) => {
                    if let Some(answer) = judge(state.as_ref()) {
                        return Ok(answer);
                    }
                }
                // The stream has no end of its own.
                Ok(None) => std::future::pending().await,
                Err(watcher::Error::InitialListFailed(error @ kube::Error::Api(_))) => {
                    return Err(error).to(|| format!("watch {name}"));
                }
                // It starts anew, a little later each time.
                Err(_) => {}
            }
        }
    };
    let interrupted = interrupt()?;
    tokio::select! {
        answer = watching => answer.map(Ended::Seen),
        () = tokio::time::sleep(patience) => Ok(Ended::TimedOut),
        () = interrupted => Ok(Ended::Interrupted),
    }
}

/// Waits for Ctrl-C or a request to end.
pub fn interrupt() -> Result<impl Future<Output = ()>, Error> {
    let mut asked = signal(SignalKind::interrupt()).map_err(Error::Write)?;
    let mut ended = signal(SignalKind::terminate()).map_err(Error::Write)?;
    Ok(async move {
        tokio::select! {
            _ = asked.recv() => {}
            _ = ended.recv() => {}
        }
    })
}
