//! Many engines at once: all dial again when their operator went.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod channel_support;

use channel_support::{Engine, Operator, POOL, Work};
use dsv::channel::Timing;
use dsv::channel::frames::{CloseCode, Task};
use dsv::channel::hub::CallResult;
use dsv::channel::link::LinkOptions;
use dsv::keys::RootKey;
use e2e::say::say;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const ENGINES: usize = 1000;
/// Both ends of every connection are in this process.
const FILES: u64 = 2 * ENGINES as u64 + 200;
/// Far beyond what it takes. That nobody is forgotten is the promise here; how fast it goes is measured elsewhere.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_engines_come_back_at_once_when_their_operator_goes() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= FILES,
        "this test needs {FILES} open files, and only {hard} are allowed"
    );
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(FILES), hard).unwrap();
    let operator = Operator::with(RootKey::generate().unwrap(), Timing::default()).await;
    let mut engines = Vec::new();
    for number in 0..ENGINES {
        let name = format!("engine-{number}");
        let options = LinkOptions {
            timing: Timing::default(),
            ..operator.options(&name, operator.register(&name))
        };
        engines.push(Engine::start(options, Work::default()));
    }
    let took = all_there(&operator, &HashSet::new()).await;
    say(format!("{ENGINES} engines connected in {took:?}"));

    let before = operator
        .hub
        .connected(POOL)
        .into_iter()
        .map(|session| session.session)
        .collect();
    operator.hub.close_all(CloseCode::Stopping);
    let took = all_there(&operator, &before).await;
    say(format!("{ENGINES} engines were back after {took:?}"));
    assert!(
        operator
            .hub
            .connected(POOL)
            .iter()
            .all(|session| !session.duplicate_session)
    );
    let answer = operator.hub.call(POOL, Task::Echo, PATIENCE).await;
    assert!(matches!(answer, CallResult::Answered { .. }), "{answer:?}");
}

/// Waits until every engine has a session that stays and is none of `before`.
async fn all_there(operator: &Operator, before: &HashSet<String>) -> Duration {
    let start = Instant::now();
    loop {
        let there = operator
            .hub
            .connected(POOL)
            .iter()
            .filter(|session| !session.draining && !before.contains(&session.session))
            .count();
        if there == ENGINES {
            return start.elapsed();
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{there} of {ENGINES} engines are connected after {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
