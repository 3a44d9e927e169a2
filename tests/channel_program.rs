//! The program `dsv-engine` as people run it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod channel_support;

use channel_support::{NAMESPACE, Operator, PATIENCE, POOL, done, uid};
use dsv::channel::frames::Task;
use dsv::channel::hub::CallResult;
use dsv::keys::{EngineKey, SecretText};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsv-engine"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running engine; killed when dropped.
struct Running {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = mpsc::channel();
        std::thread::spawn(move || {
            errors
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| lines.send(line))
        });
        Self { child, log }
    }

    /// Its log, until a line has these words.
    fn log_until(&self, words: &str) -> String {
        let mut log = String::new();
        loop {
            let line = self.log.recv_timeout(Duration::from_secs(20));
            let Ok(line) = line else {
                panic!("it never said {words:?}:\n{log}")
            };
            log.push_str(&line);
            log.push('\n');
            if line.contains(words) {
                return log;
            }
        }
    }

    async fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        for _ in 0..1200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not stop within 12 s");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn three_settings_are_enough_it_says_when_it_is_ready_answers_and_stops_in_good_order() {
    let operator = Operator::start().await;
    let key = operator.register("dc-1");
    let health = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = program();
    command
        .args(["run", "--health-addr", &health.to_string()])
        .env("ENGINE_NAME", "dc-1")
        .env("DSV_ENDPOINT", operator.address.to_string())
        .env("DSV_PRIVATE_KEY", key.text().reveal());
    let engine = Running::start(command);
    let log = engine.log_until("engine is ready and waiting for messages");
    assert!(log.contains("is not trusted; going on"), "{log}");
    assert!(!log.contains(&key.text().reveal()[6..40]), "{log}");
    match operator.hub.call(POOL, Task::Echo, PATIENCE).await {
        CallResult::Answered { outcome, .. } => assert_eq!(outcome, done()),
        other => panic!("{other:?}"),
    }
    assert!(get(health, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(health, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = get(health, "/metrics").await;
    assert!(metrics.contains("dsv_engine_connected 1"), "{metrics}");
    assert!(
        metrics.contains(r#"dsv_engine_tasks_total{kind="echo",outcome="done"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains("dsv_engine_reconnects_total 0"), "{metrics}");

    let status = engine.stop().await;
    assert!(status.success(), "{status}");
    operator
        .until("it left", |hub| hub.session(&uid("dc-1")).is_none())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_it_lives_is_not_ready_and_says_why() {
    let operator = Operator::start().await;
    let key = EngineKey::generate(operator.root.hash(), NAMESPACE).unwrap();
    let health = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = program();
    command
        .args([
            "run",
            "--log-format",
            "json",
            "--engine-name",
            "nobody",
            "--health-addr",
            &health.to_string(),
        ])
        .args([
            "--endpoint",
            &operator.address.to_string(),
            "--private-key",
            key.text().reveal(),
        ]);
    let engine = Running::start(command);
    let log = engine.log_until("there is no session with the operator");
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{log}"
    );
    assert!(get(health, "/livez").await.starts_with("HTTP/1.1 200"));
    let ready = get(health, "/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("no Engine databases/nobody"),
        "{ready}"
    );
    let status = engine.stop().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn missing_settings_are_named_and_nothing_starts() {
    let output = program().arg("run").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        text.contains("--endpoint or DSV_ENDPOINT") && text.contains("ENGINE_NAME"),
        "{text}"
    );
    let output = program()
        .args([
            "run",
            "--endpoint",
            "a",
            "--engine-name",
            "b",
            "--private-key",
            "hunter2",
        ])
        .output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("dsvk1.") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn keygen_makes_a_key_that_the_operator_can_register() {
    let operator = Operator::start().await;
    let root = operator.root.hash().to_string();
    let output = program()
        .args(["keygen", "--root-hash", &root, "--namespace", NAMESPACE])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    let key = EngineKey::parse(&SecretText::new(value("privateKey:"))).unwrap();
    assert_eq!(key.public().to_string(), value("publicKey:"));
    assert_eq!((key.root_hash(), key.namespace()), (&operator.root.hash(), NAMESPACE));
    let version = program().arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    assert!(
        version.starts_with(concat!("dsv-engine ", env!("CARGO_PKG_VERSION"), " (commit ")),
        "{version}"
    );
    assert!(version.trim().ends_with("protocol 1 to 1)"), "{version}");
    let wrong = program()
        .args(["keygen", "--root-hash", "abc", "--namespace", NAMESPACE])
        .output()
        .unwrap();
    assert!(!wrong.status.success());
}
