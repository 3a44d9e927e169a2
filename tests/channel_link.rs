//! The engine's end, against operators that misbehave, are somebody else, or are of another version.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod channel_support;

use channel_support::raw::RawOperator;
use channel_support::{Engine, NAMESPACE, Operator, Work, done, options, revocation};
use dsv::channel::frames::{CloseCode, Outcome, Task, ToEngine, ToOperator};
use dsv::keys::{EngineKey, RootHash};
use futures::SinkExt;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

fn engine(operator: &RawOperator, work: Work) -> Engine {
    let key = EngineKey::generate(operator.root.hash(), NAMESPACE).unwrap();
    Engine::start(options(&[&operator.address.to_string()], "one", key), work)
}

fn task(id: u64, task: Task) -> ToEngine {
    ToEngine::Task {
        id,
        patience_ms: 5000,
        task: Box::new(task),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_an_unknown_kind_or_form_is_answered_unsupported_and_the_session_stays() {
    let mut operator = RawOperator::start().await;
    let work = Work::default();
    let _engine = engine(&operator, work.clone());
    let mut raw = operator.welcome().await;
    for (id, odd) in [
        (7, r#"{"kind":"paint","colour":"red"}"#),
        (8, r#"{"kind":"issue","server":"all of them"}"#),
    ] {
        raw.send_bytes(format!(r#"{{"type":"task","id":{id},"patienceMs":5000,"task":{odd}}}"#).as_bytes())
            .await;
        assert_eq!(
            raw.next::<ToOperator>().await,
            ToOperator::Outcome {
                id,
                outcome: Outcome::Unsupported
            }
        );
    }
    raw.send_bytes(br#"{"type":"greetings"}"#).await;
    raw.send(&task(9, Task::Echo)).await;
    assert_eq!(
        raw.next::<ToOperator>().await,
        ToOperator::Outcome { id: 9, outcome: done() }
    );
    assert_eq!(work.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tasks_than_an_engine_takes_are_answered_busy() {
    let mut operator = RawOperator::start().await;
    let (work, _gate) = Work::gated();
    let _engine = engine(&operator, work.clone());
    let mut raw = operator.welcome().await;
    for id in 0..97 {
        raw.send(&task(id, revocation("a"))).await;
    }
    match raw.next::<ToOperator>().await {
        ToOperator::Outcome {
            id: 96,
            outcome: Outcome::Failed(failure),
        } => {
            assert_eq!(failure.class, dsv::channel::frames::FailureClass::Busy);
        }
        other => panic!("{other:?}"),
    }
    work.until(64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_never_crosses_into_another_session() {
    let mut operator = RawOperator::start().await;
    let (work, gate) = Work::gated();
    let _engine = engine(&operator, work.clone());
    let mut raw = operator.welcome().await;
    raw.send(&task(7, revocation("a"))).await;
    work.until(1).await;
    drop(raw);
    let mut raw = operator.welcome().await;
    gate.notify_one();
    tokio::time::sleep(Duration::from_millis(200)).await;
    raw.send(&task(8, Task::Echo)).await;
    assert_eq!(
        raw.next::<ToOperator>().await,
        ToOperator::Outcome { id: 8, outcome: done() }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_falls_silent_is_left() {
    let mut operator = RawOperator::start().await;
    let engine = engine(&operator, Work::default());
    let _silent = operator.welcome().await;
    engine.connected().await;
    engine.fails_with("nothing was heard").await;
    let _again = operator.welcome().await;
    engine.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_sends_nonsense_is_left_with_a_reason() {
    let mut operator = RawOperator::start().await;
    let engine = engine(&operator, Work::default());
    let mut raw = operator.welcome().await;
    raw.send_bytes(b"not json").await;
    engine.fails_with("JSON").await;
    let mut raw = operator.welcome().await;
    raw.socket.send(Message::Text("hi".into())).await.unwrap();
    engine.fails_with("text message").await;
    let mut raw = operator.welcome().await;
    raw.socket.send(Message::Binary(vec![7; 80_000].into())).await.unwrap();
    engine.fails_with("larger than any frame").await;
    let mut raw = operator.accept().await;
    raw.send(&ToEngine::Drain {
        reason: "too early".to_owned(),
    })
    .await;
    engine.fails_with("something else than a welcome").await;
    let mut raw = operator.accept().await;
    let (session, installation) = ("s".to_owned(), "inst-2".to_owned());
    raw.send(&ToEngine::Welcome {
        protocol: 1,
        session,
        installation,
    })
    .await;
    engine.fails_with("another installation").await;
    let mut raw = operator.accept().await;
    raw.send(&ToEngine::Close {
        code: CloseCode::Protocol,
        reason: "too old for us".to_owned(),
    })
    .await;
    engine.fails_with("too old for us").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_another_installation_learns_no_name_and_is_named_as_such() {
    let operator = Operator::start().await;
    let key = EngineKey::generate(RootHash::from_bytes([9; 32]).unwrap(), NAMESPACE).unwrap();
    operator.register_key("one", key.public());
    let engine = Engine::start(operator.options("one", key), Work::default());
    let failure = engine.fails_with("could not prove").await;
    assert!(
        failure.contains("root key") && failure.contains("check the endpoint"),
        "{failure}"
    );
    assert!(operator.hub.connected(channel_support::POOL).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_is_passed_over() {
    let operator = Operator::start().await;
    let key = operator.register("one");
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let endpoints = [closed.as_str(), "no-such-host.invalid", &operator.address.to_string()];
    let engine = Engine::start(options(&endpoints, "one", key), Work::default());
    engine.connected().await;
}
