//! How the stock programs are run: the CLI as somebody at a terminal runs it, with a home of its own; libraries by programs that
//! are told calls line by line.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use e2e::objects::text;
use e2e::programs::{self, StockClients};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{World, fresh};

/// What the CLI prints of something that is not there.
pub const NOT_FOUND: &str = r#""message": "unable to find item with specified identifier""#;
/// And of something that is softly deleted.
pub const MARKED: &str = "marked for deletion and will be removed in about 72 hours";

/// The clients, built once per machine.
pub async fn clients() -> StockClients {
    let built = tokio::task::spawn_blocking(programs::stock_clients).await.unwrap();
    built.unwrap()
}

/// The authority of the API as a file, for programs that take one.
pub fn authority(world: &World, folder: &Path) -> PathBuf {
    let file = folder.join("ca.pem");
    fs::write(&file, &world.authority).unwrap();
    file
}

/// A program that answers each line of JSON with one.
pub struct Talk {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Talk {
    pub fn with(command: &mut Command) -> Self {
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = piped.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, answers }
    }

    /// A line that has no answer.
    pub fn tell(&mut self, line: &Value) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    fn ask(&mut self, call: &Value) -> Value {
        self.tell(call);
        let line = self.answers.next().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The answer to a call that is taken.
    pub fn answer(&mut self, call: &Value) -> Value {
        let answer = self.ask(call);
        assert!(answer.get("error").is_none(), "{call}: {answer}");
        answer
    }

    /// What is called its value.
    pub fn get(&mut self, call: &Value) -> Value {
        self.answer(call)["value"].clone()
    }

    /// A call that is refused in these words.
    pub fn fails(&mut self, call: &Value, code: &str, message: &str) {
        let error = text(&self.ask(call), "/error");
        assert!(error.contains(code) && error.contains(message), "{call}: {error}");
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody with the stock CLI.
#[derive(Clone)]
pub struct Cli {
    program: PathBuf,
    pub home: PathBuf,
    environment: Vec<(String, String)>,
}

/// A proxy that knows one domain, since no name server does: whatever is below `dsv.test` is at that address.
pub async fn proxy(to: SocketAddr) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // The end of one tunnel is no end of the others.
            tokio::spawn(async move { drop(tunnel(client, to).await) });
        }
    });
    url
}

async fn tunnel(mut client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default();
    if !target.split(':').next().is_some_and(|host| host.ends_with(".dsv.test")) {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
    }
    let mut server = TcpStream::connect(to).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// How a command ended.
#[derive(Debug)]
pub struct Said {
    asked: String,
    code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Cli {
    /// With a home that nobody used before.
    pub async fn new(world: &World) -> Self {
        let home = world.stack.run().subfolder(&fresh("cli")).unwrap();
        let authority = authority(world, &home);
        Self {
            program: clients().await.cli(),
            environment: vec![("SSL_CERT_FILE".to_owned(), authority.to_str().unwrap().to_owned())],
            home,
        }
    }

    /// With client credentials, by environment alone: nothing is stored.
    pub async fn of_client(world: &World, (id, secret): (&str, &str)) -> Self {
        let mut cli = Self::new(world).await;
        let port = world.port().to_string();
        let settings = [
            ("THY_TENANT", "127.0.0"),
            ("THY_DOMAIN", "1"),
            ("THY_PORT", &port),
            ("THY_STORE_TYPE", "none"),
            ("THY_AUTH_TYPE", "clientcred"),
            ("THY_AUTH_CLIENT_ID", id),
            ("THY_AUTH_CLIENT_SECRET", secret),
        ];
        cli.environment
            .extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        cli
    }

    /// Sets a variable for all commands that follow.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A file in the home, as an argument that means its text.
    pub fn file(&self, text: &str) -> String {
        let path = self.home.join(fresh("file"));
        fs::write(&path, text).unwrap();
        format!("@{}", path.display())
    }

    /// Runs one command.
    pub async fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.home)
            .env_clear()
            .env("HOME", &self.home)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        Said {
            asked: arguments.join(" "),
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Words with blanks between them, for commands without quotes.
    pub async fn dsv(&self, command: &str) -> Said {
        let words: Vec<&str> = command.split_whitespace().collect();
        self.run(&words).await
    }
}

impl Said {
    fn is_well(&self) {
        assert_eq!(self.code, Some(0), "dsv {}: {}{}", self.asked, self.out, self.err);
    }

    /// What was printed, after it was found that all went well.
    pub fn text(self) -> String {
        self.is_well();
        self.out.trim().to_owned()
    }

    /// The same as JSON.
    pub fn json(self) -> Value {
        self.is_well();
        let read = serde_json::from_str(&self.out);
        read.unwrap_or_else(|_| panic!("dsv {} printed no JSON: {}{}", self.asked, self.out, self.err))
    }

    /// All went well, and there was nothing to say.
    pub fn silent(self) {
        let asked = self.asked.clone();
        assert_eq!(self.text(), "", "dsv {asked}");
    }

    /// It failed, and this was told.
    pub fn fails(self, message: &str) {
        let said = format!("{}{}", self.out, self.err);
        assert_ne!(self.code, Some(0), "dsv {}: {said}", self.asked);
        assert!(
            said.contains(message),
            "dsv {}: {said} does not say {message:?}",
            self.asked
        );
    }
}
