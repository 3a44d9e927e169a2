//! Accounts that resist: what holds them is ended, or named.

use crate::on_each_release;
use crate::world::{DROPPED, World};
use dsv::channel::frames::AccountState;
use e2e::postgres::{Major, Options, Server};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

on_each_release! {
    a_prepared_transaction_is_named
    a_temporary_table_goes_with_its_session
    sessions_that_the_login_may_not_end_are_reported
    a_stalled_login_is_reported_and_newer_ones_do_not_prolong_it
}

async fn a_prepared_transaction_is_named(major: Major) {
    let world = World::new(major).await;
    let group = world.group(&[("CREATE, USAGE", "shop.*")]);
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    let gid = format!("it's {}", world.database);
    let prepare = format!(
        "BEGIN; CREATE TABLE shop.mine (id int); PREPARE TRANSACTION '{}'",
        gid.replace('\'', "''")
    );
    session.batch_execute(&prepare).await.unwrap();
    let AccountState::Blocked { locked, by, sql } = world.revoke_one(&account, Some(oid)).await else {
        panic!("not blocked");
    };
    assert!(locked);
    assert!(by.contains(&gid), "{by}");
    let sql = sql.unwrap();
    assert!(
        !sql.contains('\n'),
        "a table of kubectl ends at the end of a line: {sql}"
    );
    world.root().await.batch_execute(&sql).await.unwrap();
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

async fn a_temporary_table_goes_with_its_session(major: Major) {
    let world = World::new(major).await;
    let (account, password) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    session
        .batch_execute("CREATE TEMPORARY TABLE mine (id int)")
        .await
        .unwrap();
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

async fn sessions_that_the_login_may_not_end_are_reported(major: Major) {
    let world = World::new(major).await;
    let (account, password) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let root = world.root().await;
    root.batch_execute(&format!("REVOKE pg_signal_backend FROM {}", world.issuer.user))
        .await
        .unwrap();
    let session = world.try_as(&account, &password).await.unwrap();
    let AccountState::Blocked { locked, sql, .. } = world.revoke_one(&account, Some(oid)).await else {
        panic!("not blocked");
    };
    assert!(!locked, "a session is open");
    assert!(session.batch_execute("SELECT 1").await.is_ok());
    root.batch_execute(&sql.unwrap()).await.unwrap();
    let state = world.revoke_one(&account, Some(oid)).await;
    assert!(matches!(state, AccountState::Gone { .. }), "{state:?}");
    assert!(session.batch_execute("SELECT 1").await.is_err());
}

/// Begins to log in, answers nothing more, and so stays where a backend is neither listed nor gone.
async fn stalled_login(world: &World, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect((world.server.host(), world.server.port()))
        .await
        .unwrap();
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", &world.database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    stream.write_u32(u32::try_from(body.len()).unwrap() + 4).await.unwrap();
    stream.write_all(&body).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'R', "the server asks for a password");
    stream
}

async fn a_stalled_login_is_reported_and_newer_ones_do_not_prolong_it(major: Major) {
    // A server of its own: other tests would wait for the stalled login as well.
    let server = Server::start(major, Options::default()).await.unwrap();
    let world = World::on(Arc::new(server)).await;
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let first = stalled_login(&world, &account.role).await;
    let AccountState::Blocked { locked, by, .. } = world.revoke_one(&account, Some(oid)).await else {
        panic!("nothing waits for the stalled login");
    };
    assert!(locked);
    assert!(by.contains("not finished logging in"), "{by}");
    assert!(!world.exists(&account.role).await, "nobody can log in any more");
    // A stranger keeps stalling connections; those began too late to be this account.
    let second = stalled_login(&world, "stranger").await;
    let still = world.revoke_one(&account, Some(oid)).await;
    assert!(
        matches!(still, AccountState::Blocked { .. }),
        "the first one is still there: {still:?}"
    );
    drop(first);
    let state = world.revoke_one(&account, Some(oid)).await;
    assert_eq!(
        state,
        AccountState::Gone {
            proven: false,
            dropped: false
        }
    );
    drop(second);
}

/// From 18 on, backends that start up are listed without a user, and so is autovacuum, which may run for hours.
#[tokio::test]
async fn a_long_autovacuum_does_not_hold_a_revocation_up() {
    let settings = [
        ("autovacuum_naptime", "1"),
        ("autovacuum_vacuum_cost_delay", "100"),
        ("autovacuum_vacuum_cost_limit", "1"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = Options {
        settings: settings.into(),
        ..Options::default()
    };
    let world = World::on(Arc::new(Server::start(Major::V18, options).await.unwrap())).await;
    let root = world.root().await;
    root.batch_execute(
        "CREATE TABLE public.big AS SELECT generate_series(1, 200000) i; DELETE FROM public.big WHERE i % 2 = 0",
    )
    .await
    .unwrap();
    let sql = "SELECT 1 FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' \
               WHERE a.backend_type = 'autovacuum worker' AND a.datname = current_database()";
    let start = Instant::now();
    while root.query(sql, &[]).await.unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_mins(1), "autovacuum never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
    assert!(
        !root.query(sql, &[]).await.unwrap().is_empty(),
        "autovacuum was over too soon to tell"
    );
}
