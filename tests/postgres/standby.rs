//! Sessions on standbys, which a DROP on the primary does not end.

use crate::on_each_release;
use crate::world::{DROPPED, World, revocation};
use dsv::channel::frames::{Account, AccountState, Done, FailureClass, Outcome, ServerLogin};
use dsv::keys::Password;
use dsv::postgres::Servers;
use e2e::postgres::{Login, Major, Options, Server};
use nix::sys::signal::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

on_each_release! {
    sessions_on_a_standby_end_with_the_account
    a_standby_that_does_not_answer_holds_the_account_up_until_it_does
    a_host_of_another_server_is_never_touched
}

/// The login with these hosts, of which the first need not be the writable one.
fn hosts(world: &World, servers: &[&Server]) -> ServerLogin {
    let ports: Vec<u16> = servers.iter().map(|server| server.port()).collect();
    ServerLogin {
        host: vec!["127.0.0.1"; servers.len()].join(","),
        port: ports[0],
        ports,
        ..world.login()
    }
}

async fn world_with_a_standby(major: Major) -> (World, Server) {
    let server = Server::start(major, Options::default()).await.unwrap();
    let standby = server.standby().await.unwrap();
    (World::on(Arc::new(server)).await, standby)
}

/// A session there, as soon as the account has arrived by replay.
async fn enter(world: &World, server: &Server, account: &Account, password: &Password) -> Client {
    let login = Login {
        user: account.role.clone(),
        password: password.reveal().into(),
    };
    let start = Instant::now();
    loop {
        match server.connect_as(&login, &world.database).await {
            Ok(session) => return session,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn revoke(world: &World, servers: &Servers, login: &ServerLogin, account: &Account, oid: u32) -> AccountState {
    let wanted = [revocation(account, Some(oid))];
    match servers.revoke(login, &world.signers(), &wanted, &[]).await {
        Outcome::Done {
            done: Done::Revoked { mut accounts, .. },
            ..
        } => accounts.pop().unwrap().state,
        other => panic!("{other:?}"),
    }
}

async fn sessions_on_a_standby_end_with_the_account(major: Major) {
    let (world, standby) = world_with_a_standby(major).await;
    // The writable one is found behind the standby.
    let login = hosts(&world, &[&standby, &world.server]);
    let servers = Servers::new();
    for owns in [false, true] {
        let (account, password) = world.account();
        let oid = world.issued(&world.readers(), &account).await;
        let idle = enter(&world, &standby, &account, &password).await;
        let busy = enter(&world, &standby, &account, &password).await;
        busy.batch_execute("BEGIN").await.unwrap();
        if owns {
            let here = world.try_as(&account, &password).await.unwrap();
            let sql = "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC";
            here.batch_execute(sql).await.unwrap();
        }
        assert_eq!(revoke(&world, &servers, &login, &account, oid).await, DROPPED);
        for session in [&idle, &busy] {
            assert!(
                session.batch_execute("SELECT 1").await.is_err(),
                "a session lives on at the standby"
            );
        }
    }
    // Standbys alone are no place to work in.
    let alone = hosts(&world, &[&standby]);
    let failed = servers.probe(&alone).await.unwrap_err();
    assert_eq!(failed.class, FailureClass::ReadOnly, "{}", failed.message);
}

async fn a_standby_that_does_not_answer_holds_the_account_up_until_it_does(major: Major) {
    let (world, standby) = world_with_a_standby(major).await;
    let login = hosts(&world, &[&world.server, &standby]);
    let servers = Servers::new();
    let (account, password) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let session = enter(&world, &standby, &account, &password).await;
    standby.signal(Signal::SIGSTOP).unwrap();
    let state = revoke(&world, &servers, &login, &account, oid).await;
    standby.signal(Signal::SIGCONT).unwrap();
    let AccountState::Blocked { locked: true, by, .. } = &state else {
        panic!("{state:?}");
    };
    assert!(by.contains(&format!("standby 127.0.0.1:{}", standby.port())), "{by}");
    assert!(!world.exists(&account.role).await, "it is gone at the primary at once");
    let state = revoke(&world, &servers, &login, &account, oid).await;
    assert!(matches!(state, AccountState::Gone { .. }), "{state:?}");
    assert!(session.batch_execute("SELECT 1").await.is_err());
}

/// Somebody's OID there may be the account's here.
async fn a_host_of_another_server_is_never_touched(major: Major) {
    let world = World::new(major).await;
    let other = Server::start(major, Options::default()).await.unwrap();
    let login = hosts(&world, &[&world.server, &other]);
    let verifier = postgres_protocol::password::scram_sha_256(world.issuer.password.as_bytes());
    let root = other.connect("postgres").await.unwrap();
    let sql = format!(
        "CREATE ROLE {0} LOGIN CREATEROLE PASSWORD '{verifier}' IN ROLE pg_signal_backend",
        world.issuer.user
    );
    root.batch_execute(&sql).await.unwrap();
    other.create_database(&world.database).await.unwrap();
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let state = revoke(&world, &Servers::new(), &login, &account, oid).await;
    let AccountState::Blocked { by, .. } = &state else {
        panic!("{state:?}");
    };
    assert!(by.contains("another server"), "{by}");
    assert!(
        !other.log_text().contains("pg_terminate_backend"),
        "sessions there were looked at"
    );
}
