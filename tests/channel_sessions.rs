//! Sessions over time: takeovers, changes of the Engine object, leadership, silence.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod channel_support;

use channel_support::raw::{hello, join, shake};
use channel_support::{Engine, NAMESPACE, Operator, PATIENCE, POOL, Work, done, options, quick, revocation, uid};
use dsv::channel::frames::{CloseCode, Outcome, Task, ToEngine, ToOperator};
use dsv::channel::hub::{CallResult, HubEvent};
use dsv::keys::{EngineKey, RootKey};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_takes_over_and_the_older_ones_outcome_still_counts() {
    let operator = Operator::start().await;
    let key = operator.register("one");
    let mut old = join(operator.plain, &key, "one").await;
    let hub = operator.hub.clone();
    let first = tokio::spawn(async move { hub.call(POOL, revocation("a"), PATIENCE).await });
    let ToEngine::Task { id: first_id, .. } = old.next().await else {
        panic!("no task")
    };

    let mut new = join(operator.plain, &key, "one").await;
    assert!(matches!(old.next().await, ToEngine::Drain { .. }));
    let hub = operator.hub.clone();
    let second = tokio::spawn(async move { hub.call(POOL, Task::Echo, PATIENCE).await });
    let ToEngine::Task { id, task, .. } = new.next().await else {
        panic!("no task")
    };
    assert_eq!(*task, Task::Echo, "new tasks go to the new session");
    new.send(&ToOperator::Outcome { id, outcome: done() }).await;
    assert!(matches!(second.await.unwrap(), CallResult::Answered { outcome, .. } if outcome == done()));

    old.send(&ToOperator::Outcome {
        id: first_id,
        outcome: done(),
    })
    .await;
    assert!(matches!(first.await.unwrap(), CallResult::Answered { outcome, .. } if outcome == done()));
    let ended = old.ended().await;
    assert!(
        matches!(
            ended.frame,
            Some(ToEngine::Close {
                code: CloseCode::Replaced,
                ..
            })
        ),
        "{ended:?}"
    );
    assert_eq!(operator.hub.connected(POOL).len(), 1);
    assert!(
        operator
            .hub
            .session(&uid("one"))
            .is_some_and(|session| !session.draining)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_session_that_does_not_finish_is_closed_at_its_limit_and_its_task_is_unknown() {
    let operator = Operator::start().await;
    let key = operator.register("one");
    let (work, _gate) = Work::gated();
    let old = Engine::start(operator.options("one", key.clone()), work.clone());
    old.connected().await;
    let hub = operator.hub.clone();
    let call = tokio::spawn(async move { hub.call(POOL, revocation("a"), Duration::from_mins(1)).await });
    work.until(1).await;
    let begun = std::time::Instant::now();
    let new = Engine::start(operator.options("one", key), Work::default());
    new.connected().await;
    match call.await.unwrap() {
        CallResult::Answered {
            outcome: Outcome::Unknown { message },
            ..
        } => assert!(message.contains("took over")),
        other => panic!("{other:?}"),
    }
    assert!(
        begun.elapsed() >= quick().drain && begun.elapsed() < quick().drain * 2,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_key_are_noticed_within_seconds() {
    let operator = Operator::start().await;
    let mut events = operator.hub.events();
    let key = operator.register("one");
    let _engines = [(); 2].map(|()| Engine::start(operator.options("one", key.clone()), Work::default()));
    let fight = async {
        loop {
            if let HubEvent::DuplicateSession { engine, pool_uid } = events.recv().await.unwrap() {
                return (engine.uid, pool_uid);
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), fight).await.unwrap();
    assert_eq!(found, (uid("one"), POOL.to_owned()));
    let flagged = |session: dsv::channel::hub::SessionInfo| session.duplicate_session;
    operator
        .until("it is visible", |hub| hub.session(&uid("one")).is_some_and(flagged))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_that_reconnects_often_is_no_duplicate() {
    let operator = Operator::start().await;
    let key = operator.register("one");
    let mut kept = vec![];
    for _ in 0..5 {
        let mut raw = shake(operator.plain, &key, "one").await;
        let hello = r#"{"type":"hello","min":1,"max":1,"boot":"same","version":"1","tasks":["echo"]}"#;
        raw.send_bytes(hello.as_bytes()).await;
        assert!(matches!(raw.next().await, ToEngine::Welcome { .. }));
        kept.push(raw);
    }
    assert!(
        operator
            .hub
            .session(&uid("one"))
            .is_some_and(|session| !session.duplicate_session)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_deleted_or_rekeyed_engine_is_cut_off_and_a_changed_pool_is_taken_over() {
    let operator = Operator::start().await;
    let engine = operator.engine("one", Work::default()).await;
    operator.directory.change("one", |found| found.disabled = true);
    operator.hub.recheck();
    engine.fails_with("is disabled").await;
    operator.until("it is gone", |hub| hub.connected(POOL).is_empty()).await;

    operator.directory.change("one", |found| found.disabled = false);
    engine.connected().await;
    let other = EngineKey::generate(operator.root.hash(), NAMESPACE).unwrap().public();
    let mut own = vec![];
    operator.directory.change("one", |found| {
        own = std::mem::replace(&mut found.public_keys, vec![other]);
    });
    operator.hub.recheck();
    engine.fails_with("with this key is registered").await;

    operator.directory.change("one", |found| found.public_keys.extend(own));
    engine.connected().await;
    operator
        .directory
        .change("one", |found| found.pool_uid = "pool-2".to_owned());
    operator.hub.recheck();
    assert!(operator.hub.connected(POOL).is_empty());
    assert_eq!(
        operator.hub.connected("pool-2").len(),
        1,
        "both keys are good during a rotation"
    );

    operator
        .directory
        .change("one", |found| found.engine_uid = "uid-remade".to_owned());
    operator.hub.recheck();
    operator
        .until("it is the new Engine", |hub| hub.session("uid-remade").is_some())
        .await;
    assert!(operator.hub.session(&uid("one")).is_none());
    operator.hub.recheck();
    assert!(
        operator.hub.last_heard(&uid("one")).is_none(),
        "the deleted Engine is forgotten"
    );

    operator.directory.remove("one");
    operator.hub.recheck();
    operator
        .until("it is gone", |hub| hub.connected("pool-2").is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_notices_by_itself_when_its_engine_is_disabled() {
    let operator = Operator::start().await;
    let engine = operator.engine("one", Work::default()).await;
    operator.directory.change("one", |found| found.disabled = true);
    engine.fails_with("is disabled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_follow_the_leader() {
    let root = RootKey::generate().unwrap();
    let first = Operator::with(RootKey::load(&root.store()).unwrap(), quick()).await;
    let second = Operator::with(root, quick()).await;
    first.leading.send_replace(false);
    let key = first.register("one");
    second.register_key("one", key.public());
    let endpoints = [first.address.to_string(), second.address.to_string()];
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let engine = Engine::start(options(&endpoints, "one", key), Work::default());
    engine.connected().await;
    assert!(first.hub.connected(POOL).is_empty());
    assert_eq!(second.hub.connected(POOL).len(), 1);

    second.leading.send_replace(false);
    first.leading.send_replace(true);
    second.hub.close_all(CloseCode::NotLeading);
    first.until("it moved", |hub| hub.connected(POOL).len() == 1).await;
    second.until("it left", |hub| hub.connected(POOL).is_empty()).await;
    match first.hub.call(POOL, Task::Echo, PATIENCE).await {
        CallResult::Answered { outcome, .. } => assert_eq!(outcome, done()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_lead_says_so_with_status_503() {
    let operator = Operator::start().await;
    operator.leading.send_replace(false);
    let mut stream = TcpStream::connect(operator.plain).await.unwrap();
    let request = "GET /v1/engines/connect HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("does not lead"),
        "{answer}"
    );
    let engine = Engine::start(operator.options("one", operator.register("one")), Work::default());
    engine.fails_with("503").await;
    operator.leading.send_replace(true);
    engine.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_comes_back_after_the_operator_was_away() {
    let operator = Operator::start().await;
    let engine = operator.engine("one", Work::default()).await;
    operator.hub.close_all(CloseCode::Stopping);
    engine
        .until("a second session", |status| {
            status.sessions == 2 && status.connected.is_some()
        })
        .await;
    match operator.hub.call(POOL, Task::Echo, PATIENCE).await {
        CallResult::Answered { outcome, .. } => assert_eq!(outcome, done()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_finish_their_tls_handshake_hold_nobody_up() {
    let operator = Operator::start().await;
    let mut idle = vec![];
    for _ in 0..40 {
        idle.push(TcpStream::connect(operator.address).await.unwrap());
    }
    let begun = std::time::Instant::now();
    let _engine = operator.engine("one", Work::default()).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_was_in_the_middle_of_its_handshake_when_leadership_went_is_sent_away() {
    let operator = Operator::start().await;
    let key = operator.register("one");
    let mut raw = shake(operator.plain, &key, "one").await;
    operator.leading.send_replace(false);
    operator.hub.close_all(CloseCode::NotLeading);
    raw.send(&hello()).await;
    let ended = raw.ended().await;
    assert!(
        matches!(
            ended.frame,
            Some(ToEngine::Close {
                code: CloseCode::NotLeading,
                ..
            })
        ),
        "{ended:?}"
    );
    operator.until("it is gone", |hub| hub.connected(POOL).is_empty()).await;
}
