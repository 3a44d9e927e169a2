//! Machines in between: proxies that end TLS, proxies that are asked for a tunnel, certificates of all sorts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod channel_support;

use axum::serve::Listener;
use channel_support::{
    Engine, NAMESPACE, Operator, PASSWORD, PATIENCE, POOL, Work, done, issue, options, revocation, uid,
};
use dsv::channel::frames::Task;
use dsv::channel::hub::CallResult;
use dsv::channel::link::{LinkOptions, OuterTrust, Proxies};
use dsv::channel::listener::{ServeLimits, TlsListener, from_files, self_signed, serve};
use futures::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Operator,
    Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Alter,
    Repeat,
    Drop,
    Swap,
}

/// A mean deed, done once: to which message of which direction.
type Plan = Arc<Mutex<Option<(To, usize, Deed)>>>;

/// A proxy that ends the outer TLS, sees every message, and may do one mean deed.
struct Middle {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    running: JoinHandle<()>,
}

impl Middle {
    async fn start(upstream: SocketAddr, plan: Option<(To, usize, Deed)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = self_signed(&["proxy.test".to_owned()]).unwrap();
        let mut listener = TlsListener::new(listener, move || config.clone()).unwrap();
        let (seen, plan) = (Arc::new(Mutex::new(vec![])), Plan::new(Mutex::new(plan)));
        let record = seen.clone();
        let running = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await;
                tokio::spawn(relay(stream, upstream, plan.clone(), record.clone()));
            }
        });
        Self { address, seen, running }
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn relay(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    upstream: SocketAddr,
    plan: Plan,
    seen: Arc<Mutex<Vec<u8>>>,
) {
    let Ok(engine) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    let operator = channel_support::raw::dial(upstream).await;
    let (to_engine, from_engine) = engine.split();
    let (to_operator, from_operator) = operator.split();
    tokio::select! {
        () = pump(from_engine, to_operator, To::Operator, &plan, &seen) => {}
        () = pump(from_operator, to_engine, To::Engine, &plan, &seen) => {}
    }
}

async fn pump(
    mut from: impl futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
    mut to: impl futures::Sink<Message> + Unpin,
    direction: To,
    plan: &Plan,
    seen: &Mutex<Vec<u8>>,
) {
    let (mut count, mut held) = (0, None);
    while let Some(Ok(message)) = from.next().await {
        seen.lock().unwrap().extend_from_slice(&message.clone().into_data());
        let deed = plan
            .lock()
            .unwrap()
            .take_if(|(to, at, _)| (*to, *at) == (direction, count));
        count += 1;
        let mut out = match (deed, message) {
            (Some((_, _, Deed::Alter)), message) => {
                let mut data = message.into_data().to_vec();
                *data.last_mut().unwrap() ^= 1;
                vec![Message::Binary(data.into())]
            }
            (Some((_, _, Deed::Repeat)), message) => vec![message.clone(), message],
            (Some((_, _, Deed::Drop)), _) => vec![],
            (Some((_, _, Deed::Swap)), message) => {
                held = Some(message);
                continue;
            }
            (None, message) => vec![message],
        };
        out.extend(held.take());
        for message in out {
            if to.send(message).await.is_err() {
                return;
            }
        }
    }
}

async fn echo(operator: &Operator, name: &str) {
    match operator.hub.call_engine(&uid(name), Task::Echo, PATIENCE).await {
        CallResult::Answered { outcome, .. } => assert_eq!(outcome, done()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_ends_tls_sees_neither_logins_nor_names() {
    let operator = Operator::start().await;
    let middle = Middle::start(operator.plain, None).await;
    let key = operator.register("dc-west-1");
    let engine = Engine::start(
        options(&[&middle.address.to_string()], "dc-west-1", key),
        Work::default(),
    );
    engine.connected().await;
    for task in [issue(), revocation("shop_1")] {
        match operator.hub.call(POOL, task, PATIENCE).await {
            CallResult::Answered { outcome, .. } => assert_eq!(outcome, done()),
            other => panic!("{other:?}"),
        }
    }
    let seen = middle.seen.lock().unwrap().clone();
    assert!(seen.len() > 1000, "the proxy did see the traffic");
    for secret in [
        PASSWORD,
        "dsv_issuer",
        "db.test",
        "SCRAM",
        "shop_1",
        "dc-west-1",
        NAMESPACE,
        "inst-1",
        "task",
    ] {
        assert!(
            !seen.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "{secret} was readable"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_was_altered_repeated_dropped_or_swapped_ends_the_session_and_nothing_else() {
    let operator = Operator::start().await;
    let _good = operator.engine("good", Work::default()).await;
    for to in [To::Operator, To::Engine] {
        for deed in [Deed::Alter, Deed::Repeat, Deed::Drop, Deed::Swap] {
            let middle = Middle::start(operator.plain, Some((to, 3, deed))).await;
            let key = operator.register("watched");
            let engine = Engine::start(options(&[&middle.address.to_string()], "watched", key), Work::default());
            let failure = engine.fails_with("altered, repeated, dropped or out of order").await;
            assert_eq!(
                failure.contains("the operator ended the session"),
                to == To::Operator,
                "{to:?} {deed:?}: {failure}"
            );
            echo(&operator, "good").await;
            engine
                .until("it is back", |status| {
                    status.sessions == 2 && status.connected.is_some()
                })
                .await;
            echo(&operator, "watched").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_handshake_ends_and_the_next_one_succeeds() {
    let operator = Operator::start().await;
    for (to, at) in [(To::Operator, 0), (To::Engine, 0), (To::Operator, 1)] {
        let middle = Middle::start(operator.plain, Some((to, at, Deed::Alter))).await;
        let key = operator.register("watched");
        let engine = Engine::start(options(&[&middle.address.to_string()], "watched", key), Work::default());
        engine.until("a failure", |status| status.last_failure.is_some()).await;
        engine.connected().await;
        echo(&operator, "watched").await;
    }
}

/// An HTTP proxy that wants a login and gives tunnels.
async fn tunnel_proxy(wanted: &'static str) -> (SocketAddr, watch::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = watch::channel(vec![]);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut head = vec![];
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                asked.send_modify(|all| all.push(head.clone()));
                if !head
                    .to_lowercase()
                    .contains(&format!("proxy-authorization: basic {wanted}").to_lowercase())
                {
                    stream
                        .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                        .await
                        .unwrap();
                    return;
                }
                let target = head.split(' ').nth(1).unwrap().to_owned();
                let mut upstream = TcpStream::connect(target).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")
                    .await
                    .unwrap();
                let _ = copy_bidirectional(&mut stream, &mut upstream).await;
            });
        }
    });
    (address, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_connects_through_an_https_proxy_with_a_login() {
    let operator = Operator::start().await;
    let (proxy, requests) = tunnel_proxy("ZW5naW5lOnNlc2FtZQ==").await;
    let key = operator.register("one");
    let proxies = Proxies::new(&format!("http://engine:sesame@{proxy}"), "");
    let engine = Engine::start(
        LinkOptions {
            proxies,
            ..operator.options("one", key.clone())
        },
        Work::default(),
    );
    engine.connected().await;
    echo(&operator, "one").await;
    let request = requests.borrow()[0].clone();
    assert!(
        request.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", operator.address)),
        "{request}"
    );

    let proxies = Proxies::new(&format!("http://engine:wrong@{proxy}"), "");
    let refused = Engine::start(
        LinkOptions {
            proxies,
            ..operator.options("one", key.clone())
        },
        Work::default(),
    );
    let failure = refused.fails_with("proxy authorization required").await;
    assert!(
        failure.contains(&proxy.to_string()) && !failure.contains("wrong@"),
        "{failure}"
    );
    drop(refused);

    let before = requests.borrow().len();
    let proxies = Proxies::new(&format!("http://{proxy}"), "example.com,127.0.0.0/8");
    let direct = Engine::start(
        LinkOptions {
            proxies,
            ..operator.options("one", key.clone())
        },
        Work::default(),
    );
    direct.connected().await;
    assert_eq!(requests.borrow().len(), before, "an exception is dialled directly");

    let proxies = Proxies::new("socks5://127.0.0.1:1", "");
    let odd = Engine::start(
        LinkOptions {
            proxies,
            ..operator.options("one", key)
        },
        Work::default(),
    );
    odd.fails_with("must be http://host:port").await;
}

/// Two files that go when dropped.
struct Pem(PathBuf);

impl Pem {
    fn make(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("dsv-channel-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        Self(folder)
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("tls.crt")
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_is_accepted_unless_trust_is_required() {
    let operator = Operator::start().await;
    let key = operator.register("one");
    let strict = OuterTrust::new(Some(&Pem::make("other.test").certificate()), true).unwrap();
    let engine = Engine::start(
        LinkOptions {
            trust: strict,
            ..operator.options("one", key.clone())
        },
        Work::default(),
    );
    let failure = engine.fails_with("no TLS connection").await;
    assert!(failure.contains("certificate"), "{failure}");
    drop(engine);
    Engine::start(operator.options("one", key), Work::default())
        .connected()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_files_is_trusted_by_its_ca_file_and_only_for_its_name() {
    let operator = Operator::start().await;
    let key = operator.register("one");
    let pem = Pem::make("127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = from_files(&pem.certificate(), &pem.0.join("tls.key")).unwrap();
    let listener = TlsListener::new(listener, move || config.clone()).unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(
        listener,
        operator.hub.router(),
        ServeLimits::default(),
        stop.clone(),
    ));
    let strict = |host: &str| LinkOptions {
        trust: OuterTrust::new(Some(&pem.certificate()), true).unwrap(),
        ..options(&[&format!("{host}:{port}")], "one", key.clone())
    };
    let trusted = Engine::start(strict("127.0.0.1"), Work::default());
    trusted.connected().await;
    assert!(
        operator
            .hub
            .session(&uid("one"))
            .unwrap()
            .remote
            .is_some_and(|remote| remote.ip().is_loopback())
    );
    let wrong = Engine::start(strict("localhost"), Work::default());
    wrong.fails_with("no TLS connection").await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
}

#[test]
fn unusable_certificate_files_are_named() {
    let pem = Pem::make("a.test");
    let key = pem.0.join("tls.key");
    let missing = from_files(&pem.0.join("missing.crt"), &key).unwrap_err().to_string();
    assert!(
        missing.contains("missing.crt") && missing.contains("certificate chain"),
        "{missing}"
    );
    let swapped = from_files(&pem.certificate(), &pem.certificate())
        .unwrap_err()
        .to_string();
    assert!(swapped.contains("private key"), "{swapped}");
    let other = Pem::make("b.test");
    assert!(
        from_files(&other.certificate(), &key).is_err(),
        "a key of another certificate"
    );
    let empty = OuterTrust::new(Some(&key), false).unwrap_err().to_string();
    assert!(empty.contains("no certificate"), "{empty}");
}
