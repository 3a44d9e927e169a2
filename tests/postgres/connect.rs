//! Reaching a server, and telling apart why it cannot be reached.

use crate::on_each_release;
use crate::world::{PATIENCE, World, failure};
use dsv::channel::frames::{FailureClass, Outcome, ServerLogin, SslMode};
use dsv::keys::SecretText;
use e2e::certificates::{Authority, Signed};
use e2e::postgres::{Major, Options, Server, Tls};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

on_each_release! {
    transport_security_is_what_sslmode_says
    a_probe_says_what_is_missing
}

async fn transport_security_is_what_sslmode_says(major: Major) {
    let world = World::new(major).await;
    let authority = Some(world.server.authority().to_owned());
    let stranger = Some(Authority::new("stranger").unwrap().pem().to_owned());
    let garbage = Some("no PEM".to_owned());
    for (sslmode, host, ca, expected) in [
        (SslMode::Disable, "127.0.0.1", None, Ok(false)),
        (SslMode::Require, "127.0.0.1", None, Ok(true)),
        (
            SslMode::Require,
            "127.0.0.1",
            stranger.clone(),
            Err(FailureClass::TlsRefused),
        ),
        (SslMode::VerifyCa, "127.0.0.1", authority.clone(), Ok(true)),
        (
            SslMode::VerifyCa,
            "127.0.0.1",
            stranger.clone(),
            Err(FailureClass::TlsRefused),
        ),
        (SslMode::VerifyCa, "127.0.0.1", garbage, Err(FailureClass::TlsRefused)),
        (SslMode::VerifyFull, "127.0.0.1", authority.clone(), Ok(true)),
        (
            SslMode::VerifyFull,
            "127.0.0.1",
            stranger,
            Err(FailureClass::TlsRefused),
        ),
        (SslMode::VerifyFull, "127.0.0.1", None, Err(FailureClass::TlsRefused)),
    ] {
        let mut login = world.login();
        (login.sslmode, login.host, login.ca) = (sslmode, host.into(), ca);
        let probed = world.servers.probe(&login).await;
        let seen = probed
            .map(|(report, _)| report.tls.is_some())
            .map_err(|failure| failure.class);
        assert_eq!(seen, expected, "{sslmode:?}, CA {}", login.ca.is_some());
    }
}

/// A server of its own with TLS, its data folder, and a world on it.
async fn tls_world(settings: &[(&str, &str)]) -> (World, PathBuf) {
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let server = Server::start(
        Major::V15,
        Options {
            tls: Tls::Offered,
            settings,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    let root = server.connect("postgres").await.unwrap();
    let data: String = root.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    (World::on(Arc::new(server)).await, data.into())
}

async fn probe_with(world: &World, change: impl FnOnce(&mut ServerLogin)) -> Result<(), FailureClass> {
    let mut login = world.login();
    change(&mut login);
    world
        .servers
        .probe(&login)
        .await
        .map(drop)
        .map_err(|failure| failure.class)
}

#[tokio::test]
async fn a_certificate_for_another_name_passes_verify_ca_but_not_verify_full() {
    let (world, _) = tls_world(&[("listen_addresses", "127.0.0.1,127.0.0.2")]).await;
    let at = async |sslmode: SslMode, host: &str| {
        let ca = Some(world.server.authority().to_owned());
        probe_with(&world, |login| {
            (login.sslmode, login.host, login.ca) = (sslmode, host.into(), ca);
        })
        .await
    };
    assert_eq!(at(SslMode::VerifyFull, "127.0.0.1").await, Ok(()));
    assert_eq!(at(SslMode::VerifyCa, "127.0.0.2").await, Ok(()));
    assert_eq!(
        at(SslMode::VerifyFull, "127.0.0.2").await,
        Err(FailureClass::TlsRefused)
    );
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_its_own_ca() {
    let (world, data) = tls_world(&[]).await;
    let authority = Authority::new("self-signed").unwrap();
    // No server's certificate at all, by its extensions; without a name, and not signed by what is given as CA.
    let odd = authority.client("postgres", None).unwrap();
    std::fs::write(data.join("server.crt"), &odd.certificate).unwrap();
    std::fs::write(data.join("server.key"), &odd.key).unwrap();
    world.server.signal(Signal::SIGHUP).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let with = async |sslmode: SslMode, ca: &str| {
        probe_with(&world, |login| {
            (login.sslmode, login.ca) = (sslmode, Some(ca.to_owned()));
        })
        .await
    };
    assert_eq!(with(SslMode::VerifyCa, &odd.certificate).await, Ok(()));
    assert_eq!(with(SslMode::Require, &odd.certificate).await, Ok(()));
    assert_eq!(
        with(SslMode::VerifyFull, &odd.certificate).await,
        Err(FailureClass::TlsRefused),
        "it names no host"
    );
    assert_eq!(
        with(SslMode::VerifyCa, authority.pem()).await,
        Err(FailureClass::TlsRefused),
        "it is for clients only"
    );
    let other = authority.client("postgres", None).unwrap();
    assert_eq!(
        with(SslMode::VerifyCa, &other.certificate).await,
        Err(FailureClass::TlsRefused)
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let (world, data) = tls_world(&[]).await;
    let authority = Authority::new("clients").unwrap();
    std::fs::write(data.join("clients.crt"), authority.pem()).unwrap();
    let hba = std::fs::read_to_string(data.join("pg_hba.conf")).unwrap();
    let rule = format!(
        "hostssl all {} 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n{hba}",
        world.issuer.user
    );
    std::fs::write(data.join("pg_hba.conf"), rule).unwrap();
    world
        .root()
        .await
        .batch_execute("ALTER SYSTEM SET ssl_ca_file = 'clients.crt'")
        .await
        .unwrap();
    world.server.signal(Signal::SIGHUP).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let with = async |shown: Option<&Signed>| {
        probe_with(&world, |login| {
            login.sslmode = SslMode::Require;
            login.client_certificate = shown.map(|signed| signed.certificate.clone());
            login.client_key = shown.map(|signed| SecretText::new(signed.key.clone()));
        })
        .await
    };
    assert_eq!(
        with(Some(&authority.client(&world.issuer.user, None).unwrap())).await,
        Ok(())
    );
    assert_eq!(with(None).await, Err(FailureClass::LoginRefused));
    assert_eq!(
        with(Some(&authority.client("another", None).unwrap())).await,
        Err(FailureClass::LoginRefused)
    );
    let stranger = Authority::new("stranger")
        .unwrap()
        .client(&world.issuer.user, None)
        .unwrap();
    assert_eq!(with(Some(&stranger)).await, Err(FailureClass::TlsRefused));
    let half = |login: &mut ServerLogin| {
        (login.sslmode, login.client_certificate) = (SslMode::Require, Some(stranger.certificate.clone()));
    };
    assert_eq!(probe_with(&world, half).await, Err(FailureClass::TlsRefused));
}

#[tokio::test]
async fn failures_to_get_in_are_told_apart() {
    let world = World::new(Major::V15).await;
    let (group, account) = (world.readers(), world.account().0);
    let class = async |change: &dyn Fn(&mut ServerLogin)| {
        let mut login = world.login();
        change(&mut login);
        let failed = failure(world.servers.issue(&login, &group, &account, PATIENCE).await);
        assert!(!failed.message.contains(&world.issuer.password), "{}", failed.message);
        failed.class
    };
    assert_eq!(
        class(&|login| login.password = SecretText::new("wrong")).await,
        FailureClass::LoginRefused
    );
    assert_eq!(
        class(&|login| login.username = "nobody".into()).await,
        FailureClass::LoginRefused
    );
    assert_eq!(class(&|login| login.port = 1).await, FailureClass::Unreachable);
    assert_eq!(
        class(&|login| login.host = "no-such-host.invalid".into()).await,
        FailureClass::Unreachable
    );
    assert_eq!(
        class(&|login| login.database = "nosuch".into()).await,
        FailureClass::ObjectMissing
    );
    assert_eq!(
        class(&|login| login.host = "/var/run/postgresql".into()).await,
        FailureClass::BadTask
    );
    let plain = Server::start(
        Major::V15,
        Options {
            tls: Tls::Off,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    let port = plain.port();
    let no_tls = |login: &mut ServerLogin| {
        (login.port, login.sslmode) = (port, SslMode::Require);
    };
    assert_eq!(class(&no_tls).await, FailureClass::TlsRefused);
    assert!(!world.exists(&account.role).await);
}

#[tokio::test]
async fn a_read_only_server_is_told_and_the_writable_one_of_several_hosts_is_taken() {
    let world = World::new(Major::V15).await;
    let root = world.root().await;
    root.batch_execute(&format!(
        "ALTER ROLE {} SET default_transaction_read_only = on",
        world.issuer.user
    ))
    .await
    .unwrap();
    let (account, _) = world.account();
    assert_eq!(
        failure(world.issue(&world.readers(), &account).await).class,
        FailureClass::ReadOnly
    );
    root.batch_execute(&format!(
        "ALTER ROLE {} RESET default_transaction_read_only",
        world.issuer.user
    ))
    .await
    .unwrap();
    let mut login = world.login();
    login.host = format!("no-such-host.invalid, {}", login.host);
    let outcome = world.servers.issue(&login, &world.readers(), &account, PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_restarted_server_is_found_again_and_a_full_one_is_busy() {
    let settings = vec![
        ("max_connections".into(), "8".into()),
        ("superuser_reserved_connections".into(), "3".into()),
    ];
    let server = Arc::new(
        Server::start(
            Major::V15,
            Options {
                tls: Tls::Off,
                settings,
                ..Options::default()
            },
        )
        .await
        .unwrap(),
    );
    let world = World::on(Arc::clone(&server)).await;
    let group = world.readers();
    world.issued(&group, &world.account().0).await;
    server.restart().await.unwrap();
    world.issued(&group, &world.account().0).await;
    world.servers.forget_idle(Duration::ZERO);
    let mut crowd = Vec::new();
    while let Ok(client) = server.connect_as(&world.issuer, &world.database).await {
        crowd.push(client);
    }
    let failed = failure(
        world
            .servers
            .issue(&world.login(), &group, &world.account().0, Duration::from_secs(10))
            .await,
    );
    assert_eq!(failed.class, FailureClass::Busy, "{}", failed.message);
    drop(crowd);
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.issued(&group, &world.account().0).await;
}

#[tokio::test]
async fn a_rotated_password_opens_new_sessions_and_idle_ones_are_forgotten() {
    let world = World::new(Major::V15).await;
    world.issued(&world.readers(), &world.account().0).await;
    let count = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND application_name = 'dsv-engine'";
        world
            .root()
            .await
            .query_one(sql, &[&world.issuer.user])
            .await
            .unwrap()
            .get(0)
    };
    assert_eq!(count().await, 1);
    let mut login = world.login();
    login.password = SecretText::new("new password");
    let verifier = postgres_protocol::password::scram_sha_256(b"new password");
    world
        .root()
        .await
        .batch_execute(&format!("ALTER ROLE {} PASSWORD '{verifier}'", world.issuer.user))
        .await
        .unwrap();
    world.servers.probe(&login).await.unwrap();
    assert_eq!(count().await, 2);
    world.servers.forget_idle(Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count().await, 0);
}

async fn a_probe_says_what_is_missing(major: Major) {
    let world = World::new(major).await;
    let (report, clock) = world.servers.probe(&world.login()).await.unwrap();
    assert!(report.version.starts_with(&major.to_string()), "{}", report.version);
    assert_eq!(report.missing, Vec::<String>::new());
    assert!(
        report.advice.iter().any(|advice| advice.contains("plain text")),
        "{:?}",
        report.advice
    );
    assert!(
        report.system_identifier.is_some() && report.timeline == Some(1),
        "{report:?}"
    );
    let off = (jiff::Timestamp::now() - clock.now).get_milliseconds().abs();
    assert!(off < 5_000 && clock.age_ms < 5_000);
    let root = world.root().await;
    let me = &world.issuer.user;
    root.batch_execute(&format!(
        "ALTER ROLE {me} NOCREATEROLE; REVOKE pg_signal_backend FROM {me}"
    ))
    .await
    .unwrap();
    let (report, _) = world.servers.probe(&world.login()).await.unwrap();
    assert_eq!(report.missing.len(), 2, "{:?}", report.missing);
    root.batch_execute(&report.missing.join(" ")).await.unwrap();
    assert!(world.servers.probe(&world.login()).await.unwrap().0.missing.is_empty());
    root.batch_execute(&format!("ALTER ROLE {me} SUPERUSER")).await.unwrap();
    let (report, _) = world.servers.probe(&world.login()).await.unwrap();
    assert!(
        report.advice.iter().any(|advice| advice.contains("superuser")),
        "{:?}",
        report.advice
    );
    root.batch_execute(&format!("ALTER ROLE {me} NOSUPERUSER"))
        .await
        .unwrap();
}
