//! The operator's port under clients that mean no good, or nothing at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

use axum::Router;
use axum::routing::get;
use dsv::channel::listener::{ServeLimits, TlsListener, self_signed, serve};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

struct Port {
    address: SocketAddr,
    roots: RootCertStore,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    /// Lets `/slow` answer.
    gate: Arc<Notify>,
}

impl Port {
    async fn open(limits: ServeLimits) -> Self {
        let folder = std::env::temp_dir().join(format!("dsv-port-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key"), made.signing_key.serialize_pem()).unwrap();
        let config = dsv::channel::listener::from_files(&folder.join("crt"), &folder.join("key")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TlsListener::new(listener, move || config.clone()).unwrap();
        let (stop, gate) = (CancellationToken::new(), Arc::new(Notify::new()));
        let waiting = gate.clone();
        let slow = get(async move || {
            waiting.notified().await;
            "slow"
        });
        let app = Router::new().route("/", get(async || "here")).route("/slow", slow);
        let serving = tokio::spawn(serve(listener, app, limits, stop.clone()));
        Self {
            address,
            roots,
            stop,
            serving,
            gate,
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = vec![0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut text))
        .await
        .unwrap()
        .unwrap_or(0);
    text.truncate(length);
    String::from_utf8(text).unwrap()
}

fn short() -> ServeLimits {
    ServeLimits {
        connections: 4,
        head: Duration::from_millis(300),
        stop: Duration::from_secs(3),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_or_too_slowly_are_let_go_and_make_room() {
    let port = Port::open(short()).await;
    let mut idle = vec![];
    for _ in 0..4 {
        idle.push(port.connect().await);
    }
    let dripping = &mut idle[0];
    let begun = Instant::now();
    let mut ended = false;
    for byte in b"GET / HTTP/1.1\r\nhost: localhost\r\nx: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n"
        .iter()
        .cycle()
    {
        if dripping.write_all(&[*byte]).await.is_err() || begun.elapsed() > Duration::from_secs(5) {
            ended = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        ended && begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    let mut good = port.connect().await;
    ask(&mut good, "/").await;
    assert!(answer(&mut good).await.ends_with("here"));
    for quiet in &mut idle[1..] {
        assert!(!answer(quiet).await.contains("200"), "closed, at most with a complaint");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_wait_until_one_ends() {
    let limits = ServeLimits {
        connections: 1,
        head: Duration::from_secs(30),
        ..short()
    };
    let port = Port::open(limits).await;
    let mut first = port.connect().await;
    ask(&mut first, "/").await;
    assert!(answer(&mut first).await.ends_with("here"));
    let mut second = port.connect().await;
    ask(&mut second, "/").await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(300), second.read(&mut byte)).await;
    assert!(early.is_err(), "it waits");
    drop(first);
    assert!(answer(&mut second).await.ends_with("here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_running_requests_end_and_closes_the_idle_ones() {
    let port = Port::open(ServeLimits {
        head: Duration::from_secs(30),
        ..short()
    })
    .await;
    let mut idle = port.connect().await;
    ask(&mut idle, "/").await;
    assert!(answer(&mut idle).await.ends_with("here"));
    let mut busy = port.connect().await;
    ask(&mut busy, "/slow").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    port.stop.cancel();
    assert_eq!(answer(&mut idle).await, "");
    port.gate.notify_one();
    assert!(answer(&mut busy).await.ends_with("slow"));
    tokio::time::timeout(Duration::from_secs(2), port.serving)
        .await
        .unwrap()
        .unwrap();
    // The task that accepts is aborted, which takes a moment to close the socket.
    let closed = async {
        while TcpStream::connect(port.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let nobody_listens = tokio::time::timeout(Duration::from_secs(2), closed).await;
    assert!(nobody_listens.is_ok(), "somebody still listens");
}

#[test]
fn a_self_signed_certificate_can_be_made_for_names_and_addresses() {
    let names = [
        "dsv-operator.dsv.svc".to_owned(),
        "10.0.0.7".to_owned(),
        "::1".to_owned(),
    ];
    assert!(self_signed(&names).is_ok());
    assert!(self_signed(&["not a name \u{e4}".to_owned()]).is_err());
}
