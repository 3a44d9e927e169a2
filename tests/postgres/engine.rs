//! The program `dsv-engine` with a real database, when all operators are gone.

#[path = "../channel_support/mod.rs"]
mod channel_support;

use crate::dead_man::ending_in;
use crate::world::{INSTALLATION, PATIENCE, World};
use channel_support::{Operator, POOL, uid};
use dsv::channel::frames::{Account, CloseCode, Done, Outcome, Task};
use dsv::channel::hub::CallResult;
use dsv::keys::EngineKey;
use e2e::postgres::Major;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An engine waits five seconds for another operator before it looks; the rest is for a busy machine.
const BY_THEN: Duration = Duration::from_secs(20);

/// A running engine; killed when dropped.
struct Program(Child);

impl Program {
    async fn start(operator: &Operator, name: &str) -> Self {
        let key: EngineKey = operator.register(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsv-engine"));
        command
            .env_clear()
            .arg("run")
            .env("ENGINE_NAME", name)
            .env("DSV_ENDPOINT", operator.address.to_string())
            .env("DSV_PRIVATE_KEY", key.text().reveal())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let program = Self(command.spawn().unwrap());
        operator
            .until("the engine connects", |hub| hub.session(&uid(name)).is_some())
            .await;
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ask(operator: &Operator, engine: &str, task: Task) -> Done {
    match operator.hub.call_engine(&uid(engine), task, PATIENCE).await {
        CallResult::Answered {
            outcome: Outcome::Done { done, .. },
            ..
        } => done,
        other => panic!("{other:?}"),
    }
}

async fn issue(world: &World, operator: &Operator, engine: &str, account: &Account) {
    let task = Task::Issue {
        server: world.login(),
        group: world.readers(),
        account: account.clone(),
    };
    let done = ask(operator, engine, task).await;
    assert!(matches!(done, Done::Issued { .. }), "{done:?}");
}

async fn gone_in_time(world: &World, role: &str) {
    let start = Instant::now();
    while world.exists(role).await {
        assert!(start.elapsed() < BY_THEN, "{role} is still there after {BY_THEN:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_operators_the_engine_that_issued_takes_back_what_is_past_its_end() {
    let (world, operator) = (World::new(Major::V15).await, Operator::start().await);
    let _engine = Program::start(&operator, "dc-1").await;
    let (over, password) = ending_in(&world, &world.key, INSTALLATION, -40);
    let (live, live_password) = ending_in(&world, &world.key, INSTALLATION, 3600);
    for account in [&over, &live] {
        issue(&world, &operator, "dc-1", account).await;
    }
    let session = world.try_as(&over, &password).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    session
        .batch_execute("SELECT 1")
        .await
        .expect("while there is an operator, it decides");
    operator.hub.close_all(CloseCode::Stopping);
    drop(operator);
    gone_in_time(&world, &over.role).await;
    assert!(session.batch_execute("SELECT 1").await.is_err(), "the session lives on");
    let living = world.try_as(&live, &live_password).await.unwrap();
    living.batch_execute("SELECT * FROM shop.orders").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_never_issued_there_takes_back_if_it_was_told_to_guard() {
    let (world, operator) = (World::new(Major::V18).await, Operator::start().await);
    let issuer = Program::start(&operator, "dc-1").await;
    let _guard = Program::start(&operator, "dc-2").await;
    let _stranger = Program::start(&operator, "dc-3").await;
    let (over, _) = ending_in(&world, &world.key, INSTALLATION, -40);
    issue(&world, &operator, "dc-1", &over).await;
    let guard = || Task::Guard {
        server: world.login(),
        installation: INSTALLATION.to_owned(),
        signers: vec![world.key.public().to_string()],
    };
    let forget = || Task::Forget { except: Vec::new() };
    for (engine, task) in [("dc-2", guard()), ("dc-3", guard()), ("dc-3", forget())] {
        assert_eq!(ask(&operator, engine, task).await, Done::Noted);
    }
    assert_eq!(operator.hub.connected(POOL).len(), 3);
    drop(issuer);
    operator.hub.close_all(CloseCode::Stopping);
    drop(operator);
    gone_in_time(&world, &over.role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_was_told_to_forget_touches_nothing() {
    let (world, operator) = (World::new(Major::V15).await, Operator::start().await);
    let _engine = Program::start(&operator, "dc-1").await;
    let (over, _) = ending_in(&world, &world.key, INSTALLATION, -40);
    issue(&world, &operator, "dc-1", &over).await;
    let forget = Task::Forget { except: Vec::new() };
    assert_eq!(ask(&operator, "dc-1", forget).await, Done::Noted);
    operator.hub.close_all(CloseCode::Stopping);
    drop(operator);
    tokio::time::sleep(BY_THEN).await;
    assert!(world.exists(&over.role).await);
}
