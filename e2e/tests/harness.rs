//! What the scenarios may rely on: the servers are real, closed to strangers, and nothing of a run outlives it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Instant;

use e2e::cluster::Cluster;
use e2e::control_plane::{ControlPlane, run_kubectl};
use e2e::install;
use e2e::postgres::{Login, Major, Options, Server, Tls};
use e2e::run_dir::RunDir;
use e2e::say::say;
use serde_json::{Value, json};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

#[tokio::test]
async fn a_control_plane_starts_with_rbac() {
    let start = Instant::now();
    let plane = ControlPlane::start().await.unwrap();
    say(format!("control plane ready after {:?}", start.elapsed()));
    let client = plane.client().await.unwrap();
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.34.4");
    let token = plane.token("default", "default").await.unwrap();
    let path = plane.kubeconfig().with_file_name("default.kubeconfig");
    plane.endpoint().with_token(&path, &token).unwrap();
    let denied = run_kubectl(&plane.kubectl(), &path, &["get", "secrets", "-A"], None).unwrap_err();
    assert!(format!("{denied:#}").contains("Forbidden"), "{denied:#}");
    run_kubectl(&plane.kubectl(), &plane.kubeconfig(), &["get", "secrets", "-A"], None).unwrap();
}

#[tokio::test]
async fn a_killed_api_server_comes_back_with_its_objects() {
    let plane = ControlPlane::start().await.unwrap();
    let kubectl = |args: &[&str]| run_kubectl(&plane.kubectl(), &plane.kubeconfig(), args, None);
    kubectl(&["create", "namespace", "kept"]).unwrap();
    plane.apiserver().kill9();
    assert!(kubectl(&["get", "namespace", "kept"]).is_err());
    plane.restart_apiserver().await.unwrap();
    kubectl(&["get", "namespace", "kept"]).unwrap();
    let writes = plane.audit_log();
    assert!(
        writes
            .lines()
            .any(|line| line.contains("\"verb\":\"create\"") && line.contains("dsv-admin"))
    );
    assert!(!writes.contains("\"username\":\"system:apiserver\""));
}

#[tokio::test]
async fn an_installation_fences_the_operator_in_from_its_first_moment() {
    let cluster = Cluster::start(RunDir::of_this_process().unwrap()).await.unwrap();
    install::install(&cluster).await.unwrap();
    let operator = format!(
        "--as=system:serviceaccount:{}:{}",
        install::NAMESPACE,
        install::SERVICE_ACCOUNT
    );
    let make = |labels: Value| {
        let metadata = json!({"name": "s", "namespace": "default", "labels": labels});
        let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}).to_string();
        cluster.kubectl_with(&["create", &operator, "--dry-run=server", "-f", "-"], &manifest)
    };
    let refused = make(json!({})).unwrap_err();
    assert!(
        format!("{refused:#}").contains("ValidatingAdmissionPolicy"),
        "{refused:#}"
    );
    make(json!({"app.kubernetes.io/managed-by": "dsv-operator"})).unwrap();
    let refused = cluster.kubectl(&["get", "nodes", &operator]).unwrap_err();
    assert!(format!("{refused:#}").contains("Forbidden"), "{refused:#}");
}

#[tokio::test]
async fn postgres_logs_every_statement() {
    for major in Major::ALL {
        let start = Instant::now();
        let server = Server::start(major, Options::default()).await.unwrap();
        say(format!("PostgreSQL {major} ready after {:?}", start.elapsed()));
        let client = server.connect("postgres").await.unwrap();
        let version: String = client.query_one("SHOW server_version", &[]).await.unwrap().get(0);
        assert!(version.starts_with(&major.to_string()), "{version}");
        client.batch_execute("SELECT 'a statement to be found'").await.unwrap();
        assert!(server.log_text().contains("a statement to be found"));
        assert!(!server.log_text().contains(&server.superuser().password));
    }
}

#[tokio::test]
async fn postgres_takes_no_one_without_the_password() {
    let server = Server::start(Major::V15, Options::default()).await.unwrap();
    let wrong = Login {
        user: "postgres".into(),
        password: "wrong".into(),
    };
    let refused = server.open(&server.config(&wrong, "postgres")).await.err().unwrap();
    let code = refused
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::code)
        .cloned();
    assert_eq!(code, Some(SqlState::INVALID_PASSWORD));
}

#[tokio::test]
async fn an_issuer_is_no_superuser_and_its_password_is_in_no_log() {
    let server = Server::start(Major::V15, Options::default()).await.unwrap();
    let issuer = server.create_issuer("dsv_issuer", "a long secret").await.unwrap();
    let client = server.connect_as(&issuer, "postgres").await.unwrap();
    let row = client.query_one(
        "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user",
        &[],
    );
    let row = row.await.unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1)), (false, true));
    assert!(!server.log_text().contains("a long secret"));
}

#[tokio::test]
async fn postgres_with_tls_refuses_plain_connections() {
    let server = Server::start(
        Major::V15,
        Options {
            tls: Tls::Required,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    let client = server.connect("postgres").await.unwrap();
    let row = client
        .query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    let mut plain = server.config(server.superuser(), "postgres");
    plain.ssl_mode(tokio_postgres::config::SslMode::Disable);
    assert!(plain.connect(NoTls).await.is_err());
}

#[tokio::test]
async fn a_killed_postgres_comes_back_with_its_data() {
    let server = Server::start(Major::V15, Options::default()).await.unwrap();
    let client = server.connect("postgres").await.unwrap();
    client
        .batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        .await
        .unwrap();
    let (pid, port) = (server.pid(), server.port());
    server.kill9();
    assert!(server.connect("postgres").await.is_err());
    server.restart().await.unwrap();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.port(), port);
    let row = server
        .connect("postgres")
        .await
        .unwrap()
        .query_one("SELECT n FROM kept", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
}
