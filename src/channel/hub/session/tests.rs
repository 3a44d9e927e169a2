use super::{Draining, MAX_OUT, Opening, Outbox, Refused, Reply, Session};
use crate::channel::frames::{CloseCode, Done, Outcome, Task, ToEngine};
use crate::channel::hub::Registration;
use crate::keys::EngineKey;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(5);

fn open() -> (Arc<Session>, Outbox) {
    let root = crate::keys::RootHash::from_bytes([9; 32]).unwrap();
    let key = EngineKey::generate(root, "databases").unwrap().public();
    let registration = Registration {
        engine_uid: "uid-1".to_owned(),
        namespace: "databases".to_owned(),
        name: "one".to_owned(),
        pool_uid: "pool-1".to_owned(),
        public_keys: vec![key],
        disabled: false,
        revocations_only: false,
    };
    Session::open(Opening {
        name: "s1".to_owned(),
        key,
        registration,
        remote: None,
        boot: "b1".to_owned(),
        version: "test".to_owned(),
        tasks: vec!["echo".to_owned()],
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

fn drain(session: &Session) {
    let until = Instant::now() + PATIENCE;
    session.drain(Draining {
        until,
        code: CloseCode::Replaced,
        reason: "replaced".to_owned(),
    });
}

fn outcome() -> Outcome {
    Outcome::Done {
        done: Done::Echo,
        clock: None,
    }
}

#[tokio::test]
async fn a_task_that_was_sent_is_unknown_when_the_session_is_lost_and_one_that_was_not_may_go_elsewhere() {
    let (session, mut outbox) = open();
    let sent = session.submit(&Task::Echo, PATIENCE).unwrap();
    let waiting = session.submit(&Task::Echo, PATIENCE).unwrap();
    assert!(session.hand(outbox.tasks.recv().await.unwrap().id));
    session.finish("the line was cut");
    assert!(matches!(sent.wait(soon()).await, Reply::Outcome(Outcome::Unknown { message }) if message.contains("cut")));
    assert!(matches!(waiting.wait(soon()).await, Reply::SessionLost));
    assert_eq!(session.submit(&Task::Echo, PATIENCE).err(), Some(Refused::Gone));
}

#[tokio::test]
async fn a_draining_session_takes_no_task_gives_back_what_was_not_sent_and_still_counts_outcomes() {
    let (session, mut outbox) = open();
    let sent = session.submit(&Task::Echo, PATIENCE).unwrap();
    let waiting = session.submit(&Task::Echo, PATIENCE).unwrap();
    let (first, second) = (
        outbox.tasks.recv().await.unwrap().id,
        outbox.tasks.recv().await.unwrap().id,
    );
    assert!(session.hand(first));
    drain(&session);
    assert!(!session.can(&Task::Echo));
    assert_eq!(session.submit(&Task::Echo, PATIENCE).err(), Some(Refused::Gone));
    assert!(matches!(waiting.wait(soon()).await, Reply::SessionLost));
    assert!(!session.hand(second), "the writer skips what was given back");
    assert!(matches!(outbox.control.recv().await, Some(ToEngine::Drain { .. })));
    assert!(!session.is_idle());
    assert!(session.resolve(first, outcome()));
    assert!(session.is_idle());
    assert!(matches!(sent.wait(soon()).await, Reply::Outcome(Outcome::Done { .. })));
}

#[tokio::test]
async fn a_task_whose_patience_ended_in_the_queue_is_never_sent() {
    let (session, mut outbox) = open();
    let waiting = session.submit(&Task::Echo, PATIENCE).unwrap();
    assert!(matches!(waiting.wait(soon()).await, Reply::NeverSent));
    assert!(!session.hand(outbox.tasks.recv().await.unwrap().id));
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_nothing_behind() {
    let (session, mut outbox) = open();
    drop(session.submit(&Task::Echo, PATIENCE).unwrap());
    assert!(session.is_idle());
    assert!(!session.hand(outbox.tasks.recv().await.unwrap().id));
}

#[tokio::test]
async fn an_outcome_for_a_task_that_was_never_sent_is_nobodys() {
    let (session, mut outbox) = open();
    let waiting = session.submit(&Task::Echo, PATIENCE).unwrap();
    let id = outbox.tasks.recv().await.unwrap().id;
    assert!(!session.resolve(id, outcome()), "guessed before it was sent");
    assert!(session.hand(id));
    assert!(session.resolve(id, outcome()));
    assert!(!session.resolve(id, outcome()), "said twice");
    assert!(matches!(
        waiting.wait(soon()).await,
        Reply::Outcome(Outcome::Done { .. })
    ));
}

#[tokio::test]
async fn the_queue_is_bounded_and_frees_up_again() {
    let (session, _outbox) = open();
    let mut pending: Vec<_> = (0..MAX_OUT)
        .map(|_| session.submit(&Task::Echo, PATIENCE).unwrap())
        .collect();
    assert_eq!(session.submit(&Task::Echo, PATIENCE).err(), Some(Refused::Full));
    assert!(session.hand(1) && session.resolve(1, outcome()));
    assert!(matches!(pending.remove(0).wait(soon()).await, Reply::Outcome(_)));
}
