//! Strangers, mistakes and damage: each ends with a reason, and the hub goes on serving everybody else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod channel_support;

use channel_support::raw::{Ended, Raw, dial, hello, join, shake};
use channel_support::{NAMESPACE, Operator, PATIENCE, POOL, Work, done, issue, revocation, uid};
use dsv::channel::frames::{CloseCode, MAX_FRAME, Outcome, Task, ToEngine, ToOperator};
use dsv::channel::hub::CallResult;
use dsv::keys::EngineKey;
use futures::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// An operator with one good engine, and the check that it is still served.
struct Scene {
    operator: Operator,
    _good: channel_support::Engine,
}

impl Scene {
    async fn start() -> Self {
        let operator = Operator::start().await;
        let good = operator.engine("good", Work::default()).await;
        Self { operator, _good: good }
    }

    async fn goes_on(&self) {
        match self.operator.hub.call(POOL, Task::Echo, PATIENCE).await {
            CallResult::Answered { engine, outcome } => assert_eq!((engine.uid, outcome), (uid("good"), done())),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            self.operator.hub.connected(POOL).len(),
            1,
            "the other one is not connected"
        );
    }
}

fn assert_closed(ended: &Ended, expected: CloseCode, words: &str) {
    match &ended.frame {
        Some(ToEngine::Close { code, reason }) => {
            assert_eq!(*code, expected, "{ended:?}");
            assert!(reason.contains(words), "{reason}");
            assert!(reason.starts_with(&ended.text) && !ended.text.is_empty(), "{ended:?}");
        }
        _ => panic!("no close frame: {ended:?}"),
    }
}

async fn refused(raw: &mut Raw<TcpStream>, code: CloseCode, words: &str) {
    assert_closed(&raw.ended().await, code, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_an_unknown_engine_and_a_key_under_another_name_are_not_told_apart() {
    let scene = Scene::start().await;
    let plain = scene.operator.plain;
    let registered = scene.operator.register("registered");
    let stranger = EngineKey::generate(scene.operator.root.hash(), NAMESPACE).unwrap();
    let elsewhere = EngineKey::generate(scene.operator.root.hash(), "elsewhere").unwrap();
    let cases = [
        (&stranger, "registered"),
        (&registered, "unknown"),
        (&registered, "good"),
        (&elsewhere, "registered"),
    ];
    for (key, name) in cases {
        let mut raw = shake(plain, key, name).await;
        let words = format!("no Engine {}/{name} with this key is registered", key.namespace());
        refused(&mut raw, CloseCode::NotRegistered, &words).await;
        scene.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_engine_is_told_so_but_only_with_its_own_key() {
    let scene = Scene::start().await;
    let key = scene.operator.register("off");
    scene.operator.directory.change("off", |engine| engine.disabled = true);
    refused(
        &mut shake(scene.operator.plain, &key, "off").await,
        CloseCode::Disabled,
        "is disabled",
    )
    .await;
    let stranger = EngineKey::generate(scene.operator.root.hash(), NAMESPACE).unwrap();
    refused(
        &mut shake(scene.operator.plain, &stranger, "off").await,
        CloseCode::NotRegistered,
        "no Engine",
    )
    .await;
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_a_common_protocol_version_is_told_both_ranges() {
    let scene = Scene::start().await;
    let key = scene.operator.register("new");
    for (min, max) in [(2, 9), (0, 0)] {
        let mut raw = shake(scene.operator.plain, &key, "new").await;
        let ToOperator::Hello {
            boot, version, tasks, ..
        } = hello()
        else {
            panic!("no hello")
        };
        raw.send(&ToOperator::Hello {
            min,
            max,
            boot,
            version,
            tasks,
        })
        .await;
        refused(&mut raw, CloseCode::Protocol, &format!("versions {min} to {max}")).await;
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_also_speaks_newer_versions_is_welcome() {
    let operator = Operator::start().await;
    let key = operator.register("new");
    let mut raw = shake(operator.plain, &key, "new").await;
    let hello = r#"{"type":"hello","min":1,"max":9,"boot":"b","version":"9","tasks":["echo","paint"],"colour":"red"}"#;
    raw.send_bytes(hello.as_bytes()).await;
    assert!(matches!(raw.next().await, ToEngine::Welcome { protocol: 1, .. }));
}

/// An engine of the oldest version that is still spoken, written by hand: its frames have the fields that version required,
/// and nothing that came later.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_the_oldest_version_issues_revokes_and_answers() {
    let operator = Operator::start().await;
    let key = operator.register("old");
    let mut raw = shake(operator.plain, &key, "old").await;
    let hello = r#"{"type":"hello","min":1,"max":1,"boot":"b","version":"0.1.0","tasks":["issue","revoke"]}"#;
    raw.send_bytes(hello.as_bytes()).await;
    assert!(matches!(raw.next().await, ToEngine::Welcome { protocol: 1, .. }));
    let issued = r#"{"kind":"issued","roleOid":16412,"adopted":false}"#;
    let revoked = r#"{"kind":"revoked","accounts":[{"leaseUid":"uid-lease","state":{"state":"gone","proven":true,"dropped":true}}]}"#;
    for (task, answer) in [(issue(), issued), (revocation("shop_app"), revoked)] {
        let (hub, asked) = (operator.hub.clone(), task.clone());
        let call = tokio::spawn(async move { hub.call(POOL, asked, PATIENCE).await });
        let ToEngine::Task { id, task: came, .. } = raw.next().await else {
            panic!("no task")
        };
        assert_eq!(*came, task);
        let outcome = format!(r#"{{"type":"outcome","id":{id},"outcome":{{"result":"done","done":{answer}}}}}"#);
        raw.send_bytes(outcome.as_bytes()).await;
        match call.await.unwrap() {
            CallResult::Answered {
                outcome: Outcome::Done { done, clock: None },
                ..
            } => assert_eq!(
                serde_json::to_value(done).unwrap(),
                serde_json::from_str::<serde_json::Value>(answer).unwrap()
            ),
            other => panic!("{other:?}"),
        }
    }
    raw.send_bytes(br#"{"type":"ping","n":41}"#).await;
    assert_eq!(raw.pong().await, 41);
    // What it does not know is not asked of it.
    assert_eq!(
        operator.hub.call(POOL, Task::Echo, PATIENCE).await,
        CallResult::NoEngine
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_too_large_ends_the_session_with_a_reason() {
    let scene = Scene::start().await;
    let key = scene.operator.register("large");
    for size in [MAX_FRAME + 17, MAX_FRAME + 8192, 1_000_000] {
        let mut raw = join(scene.operator.plain, &key, "large").await;
        raw.socket.send(Message::Binary(vec![7; size].into())).await.unwrap();
        let ended = raw.ended().await;
        assert_closed(&ended, CloseCode::BadFrame, "a ");
        scene
            .operator
            .until("it is gone", |hub| hub.connected(POOL).len() == 1)
            .await;
        scene.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_not_json_or_no_frame_or_text_ends_the_session_with_a_reason() {
    let scene = Scene::start().await;
    let key = scene.operator.register("odd");
    for (frame, words) in [
        ("not json", "JSON"),
        ("{}", "JSON"),
        (r#"{"type":"outcome"}"#, "JSON"),
        ("", "JSON"),
    ] {
        let mut raw = join(scene.operator.plain, &key, "odd").await;
        raw.send_bytes(frame.as_bytes()).await;
        refused(&mut raw, CloseCode::BadFrame, words).await;
    }
    let mut raw = join(scene.operator.plain, &key, "odd").await;
    raw.socket.send(Message::Text("hello".into())).await.unwrap();
    refused(&mut raw, CloseCode::BadFrame, "text message").await;
    let mut raw = join(scene.operator.plain, &key, "odd").await;
    raw.send(&hello()).await;
    refused(&mut raw, CloseCode::BadFrame, "second hello").await;
    scene
        .operator
        .until("it is gone", |hub| hub.connected(POOL).len() == 1)
        .await;
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_an_unknown_type_is_ignored() {
    let operator = Operator::start().await;
    let key = operator.register("newer");
    let mut raw = join(operator.plain, &key, "newer").await;
    raw.send_bytes(br#"{"type":"greetings","from":"the future"}"#).await;
    raw.send(&ToOperator::Outcome {
        id: 77,
        outcome: done(),
    })
    .await;
    let hub = operator.hub.clone();
    let call = tokio::spawn(async move { hub.call(POOL, Task::Echo, PATIENCE).await });
    let ToEngine::Task { id, .. } = raw.next().await else {
        panic!("no task")
    };
    raw.send(&ToOperator::Outcome { id, outcome: done() }).await;
    assert!(matches!(call.await.unwrap(), CallResult::Answered { outcome, .. } if outcome == done()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_makes_its_task_unknown_and_keeps_the_session() {
    let operator = Operator::start().await;
    let key = operator.register("newer");
    let mut raw = join(operator.plain, &key, "newer").await;
    let hub = operator.hub.clone();
    let call = tokio::spawn(async move { hub.call(POOL, Task::Echo, PATIENCE).await });
    let ToEngine::Task { id, .. } = raw.next().await else {
        panic!("no task")
    };
    let answer = format!(r#"{{"type":"outcome","id":{id},"outcome":{{"result":"maybe","odds":3}}}}"#);
    raw.send_bytes(answer.as_bytes()).await;
    match call.await.unwrap() {
        CallResult::Answered { outcome, .. } => {
            assert!(
                matches!(outcome, dsv::channel::frames::Outcome::Unknown { .. }),
                "{outcome:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(operator.hub.connected(POOL).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_on_the_websocket_is_told_that_this_is_an_engine_channel() {
    let scene = Scene::start().await;
    for first in [Message::Binary(vec![1, 2, 3].into()), Message::Text("hi".into())] {
        let mut socket = dial(scene.operator.plain).await;
        socket.send(first).await.unwrap();
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(close)))) => assert!(!close.reason.is_empty()),
            other => panic!("{other:?}"),
        }
        scene.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_before_the_handshake_the_hello_or_after_it_ends_within_its_limit() {
    let scene = Scene::start().await;
    let key = scene.operator.register("silent");
    let mut nothing = dial(scene.operator.plain).await;
    let mut no_hello = shake(scene.operator.plain, &key, "silent").await;
    let begun = std::time::Instant::now();
    match tokio::time::timeout(PATIENCE, nothing.next()).await.unwrap() {
        Some(Ok(Message::Close(Some(close)))) => assert!(close.reason.contains("too long"), "{close}"),
        other => panic!("{other:?}"),
    }
    refused(&mut no_hello, CloseCode::Silent, "no hello").await;
    let mut mute = join(scene.operator.plain, &key, "silent").await;
    refused(&mut mute, CloseCode::Silent, "nothing was heard").await;
    assert!(begun.elapsed() < Duration::from_secs(8));
    scene
        .operator
        .until("it is gone", |hub| hub.connected(POOL).len() == 1)
        .await;
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_answers_pings_stays() {
    let operator = Operator::start().await;
    let key = operator.register("quiet");
    let mut raw = join(operator.plain, &key, "quiet").await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let Some(Ok(Message::Binary(sealed))) = raw.socket.next().await else {
            panic!("ended")
        };
        if let Ok(ToEngine::Ping { n }) = serde_json::from_slice(&raw.opener.open(&sealed).unwrap()) {
            raw.send(&ToOperator::Pong { n }).await;
        }
    }
    assert_eq!(operator.hub.connected(POOL).len(), 1);
}
