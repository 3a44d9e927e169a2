//! Tasks over the channel: who gets them, and what a caller learns when an engine is lost.

mod channel_support;

use channel_support::{NAMESPACE, Operator, PATIENCE, POOL, Work, done, uid};
use dsv::channel::frames::{Outcome, Task};
use dsv::channel::hub::CallResult;

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
    assert!(matches!(outcome, Outcome::Done { .. }));
}
