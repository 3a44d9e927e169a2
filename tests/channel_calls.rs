//! Tasks over the channel: who gets them, and what a caller learns when an engine is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod channel_support;

use channel_support::{NAMESPACE, Operator, PATIENCE, POOL, Work, done, revocation, uid};
use dsv::channel::frames::{FailureClass, Outcome, Task};
use dsv::channel::hub::{CallResult, HubEvent};
use dsv::channel::{MAX_QUEUED, MAX_RUNNING};
use std::collections::HashMap;
use std::time::Duration;

fn outcome(result: CallResult) -> Outcome {
    match result {
        CallResult::Answered { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_connects_and_answers_an_echo() {
    let operator = Operator::start().await;
    let _engine = operator.engine("one", Work::default()).await;
    let CallResult::Answered { engine, outcome } = operator.hub.call(POOL, Task::Echo, PATIENCE).await else {
        panic!("no answer");
    };
    assert_eq!(
        (engine.uid, engine.namespace, engine.name),
        (uid("one"), NAMESPACE.to_owned(), "one".to_owned())
    );
    assert_eq!(outcome, done());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_are_shared_by_the_engines_of_a_pool_at_random() {
    let operator = Operator::start().await;
    let _engines = (
        operator.engine("one", Work::default()).await,
        operator.engine("two", Work::default()).await,
    );
    let mut shares: HashMap<String, u32> = HashMap::new();
    for _ in 0..200 {
        match operator.hub.call(POOL, Task::Echo, PATIENCE).await {
            CallResult::Answered { engine, outcome } if outcome == done() => {
                *shares.entry(engine.name).or_default() += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shares.len(), 2, "{shares:?}");
    assert!(shares.values().all(|share| (60..=140).contains(share)), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_never_goes_to_an_engine_of_another_pool() {
    let operator = Operator::start().await;
    let _engine = operator.engine("one", Work::default()).await;
    assert_eq!(
        operator.hub.call("pool-2", Task::Echo, PATIENCE).await,
        CallResult::NoEngine
    );
    assert_eq!(
        operator.hub.call_engine("uid-two", Task::Echo, PATIENCE).await,
        CallResult::NoEngine
    );
    assert_eq!(
        outcome(operator.hub.call_engine(&uid("one"), Task::Echo, PATIENCE).await),
        done()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_engine_is_lost_is_unknown_and_never_failed() {
    let operator = Operator::start().await;
    let (work, _gate) = Work::gated();
    let engine = operator.engine("one", work.clone()).await;
    let hub = operator.hub.clone();
    let call = tokio::spawn(async move { hub.call(POOL, revocation("a"), PATIENCE).await });
    work.until(1).await;
    engine.kill();
    assert!(matches!(outcome(call.await.unwrap()), Outcome::Unknown { .. }));
    operator
        .until("the engine is gone", |hub| hub.connected(POOL).is_empty())
        .await;
    assert_eq!(
        operator.hub.call(POOL, Task::Echo, PATIENCE).await,
        CallResult::NoEngine
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_engine_is_gone_the_other_one_gets_every_task() {
    let operator = Operator::start().await;
    let (one, _two) = (
        operator.engine("one", Work::default()).await,
        operator.engine("two", Work::default()).await,
    );
    one.kill();
    operator
        .until("one engine is left", |hub| hub.connected(POOL).len() == 1)
        .await;
    for _ in 0..20 {
        match operator.hub.call(POOL, Task::Echo, PATIENCE).await {
            CallResult::Answered { engine, outcome } => assert_eq!((engine.name.as_str(), outcome), ("two", done())),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_in_time_is_unknown_and_harms_nobody_when_it_comes_late() {
    let operator = Operator::start().await;
    let (work, gate) = Work::gated();
    let _engine = operator.engine("one", work.clone()).await;
    let result = operator
        .hub
        .call(POOL, revocation("a"), Duration::from_millis(200))
        .await;
    assert!(matches!(outcome(result), Outcome::Unknown { .. }));
    gate.notify_one();
    assert_eq!(outcome(operator.hub.call(POOL, Task::Echo, PATIENCE).await), done());
    assert_eq!(operator.hub.connected(POOL).first().unwrap().in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_works_on_64_tasks_at_once_32_more_wait_and_one_more_is_refused_and_counted() {
    let operator = Operator::start().await;
    let (work, gate) = Work::gated();
    let _engine = operator.engine("one", work.clone()).await;
    let calls: Vec<_> = (0..MAX_RUNNING + MAX_QUEUED)
        .map(|n| {
            let hub = operator.hub.clone();
            tokio::spawn(async move { hub.call(POOL, revocation(&n.to_string()), PATIENCE).await })
        })
        .collect();
    work.until(MAX_RUNNING).await;
    operator
        .until("all are out", |hub| {
            hub.connected(POOL)[0].in_flight == MAX_RUNNING + MAX_QUEUED
        })
        .await;
    assert_eq!(
        operator.hub.call(POOL, revocation("one more"), PATIENCE).await,
        CallResult::Busy
    );
    assert_eq!(operator.hub.metrics().overflows(), 1);
    assert_eq!(work.count(), MAX_RUNNING, "the rest waits");
    let opener = tokio::spawn(async move {
        loop {
            gate.notify_waiters();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    for call in calls {
        assert_eq!(outcome(call.await.unwrap()), done());
    }
    opener.abort();
    assert_eq!(work.count(), MAX_RUNNING + MAX_QUEUED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waited_behind_others_for_its_whole_patience_is_not_begun() {
    let operator = Operator::start().await;
    let (work, _gate) = Work::gated();
    let _engine = operator.engine("one", work.clone()).await;
    for n in 0..MAX_RUNNING {
        let hub = operator.hub.clone();
        tokio::spawn(async move { hub.call(POOL, revocation(&n.to_string()), PATIENCE).await });
    }
    work.until(MAX_RUNNING).await;
    let late = outcome(operator.hub.call(POOL, Task::Echo, Duration::from_millis(100)).await);
    assert!(
        matches!(&late, Outcome::Failed(failure) if failure.class == FailureClass::Busy),
        "{late:?}"
    );
    assert_eq!(work.count(), MAX_RUNNING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fits_no_frame_is_refused_and_the_engine_stays() {
    let operator = Operator::start().await;
    let work = Work::default();
    let _engine = operator.engine("one", work.clone()).await;
    let huge = revocation(&"x".repeat(70_000));
    assert_eq!(operator.hub.call(POOL, huge, PATIENCE).await, CallResult::TooLarge);
    assert_eq!(outcome(operator.hub.call(POOL, Task::Echo, PATIENCE).await), done());
    assert_eq!(work.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_on_its_way_out_only_takes_back() {
    let operator = Operator::start().await;
    let _engine = operator.engine("one", Work::default()).await;
    operator
        .directory
        .change("one", |engine| engine.revocations_only = true);
    operator.hub.recheck();
    let probe = channel_support::probe();
    assert_eq!(operator.hub.call(POOL, probe, PATIENCE).await, CallResult::NoEngine);
    assert_eq!(
        operator.hub.call(POOL, channel_support::issue(), PATIENCE).await,
        CallResult::NoEngine
    );
    assert_eq!(
        outcome(operator.hub.call(POOL, revocation("a"), PATIENCE).await),
        done()
    );
    assert_eq!(outcome(operator.hub.call(POOL, Task::Echo, PATIENCE).await), done());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_makes_the_engine_panic_is_unknown_and_the_engine_goes_on() {
    let operator = Operator::start().await;
    let work = Work {
        panics: true,
        ..Work::default()
    };
    let _engine = operator.engine("one", work).await;
    for _ in 0..2 {
        let result = outcome(operator.hub.call(POOL, Task::Echo, PATIENCE).await);
        assert!(matches!(result, Outcome::Unknown { .. }), "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_asked_to_stop_finishes_its_task_and_gets_no_new_one() {
    let operator = Operator::start().await;
    let mut events = operator.hub.events();
    let (work, gate) = Work::gated();
    let mut engine = operator.engine("one", work.clone()).await;
    let hub = operator.hub.clone();
    let call = tokio::spawn(async move { hub.call(POOL, revocation("a"), PATIENCE).await });
    work.until(1).await;
    engine.stop.cancel();
    operator
        .until("it is draining", |hub| {
            hub.connected(POOL).first().is_some_and(|session| session.draining)
        })
        .await;
    assert_eq!(
        operator.hub.call(POOL, Task::Echo, PATIENCE).await,
        CallResult::NoEngine
    );
    gate.notify_one();
    assert_eq!(outcome(call.await.unwrap()), done());
    tokio::time::timeout(PATIENCE, &mut engine.running)
        .await
        .unwrap()
        .unwrap();
    operator.until("it is gone", |hub| hub.connected(POOL).is_empty()).await;
    let names = |event| match event {
        HubEvent::Connected { engine, pool_uid } => ("connected", engine.uid, pool_uid),
        HubEvent::Disconnected { engine, pool_uid } => ("disconnected", engine.uid, pool_uid),
        HubEvent::DuplicateSession { engine, pool_uid } => ("duplicate", engine.uid, pool_uid),
    };
    assert_eq!(
        names(events.recv().await.unwrap()),
        ("connected", uid("one"), POOL.to_owned())
    );
    assert_eq!(
        names(events.recv().await.unwrap()),
        ("disconnected", uid("one"), POOL.to_owned())
    );
    assert!(
        operator.hub.last_heard(&uid("one")).is_some(),
        "remembered beyond the session"
    );
}
