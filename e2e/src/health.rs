//! Asking a program of ours over its health address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::service::Service;

const ASK_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// Status code and body of `GET path`. HTTP/1.0, so that the answer ends with the connection.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(ASK_LIMIT, ask)
        .await
        .with_context(|| format!("no answer from {address} within {ASK_LIMIT:?}"))??;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of its head")?;
    let code = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("the answer has no status code")?;
    Ok((code, body.to_owned()))
}

/// Waits until `/readyz` answers 200; fails at once if the program ends.
pub async fn wait_ready(service: &Service, address: SocketAddr, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = get(address, "/readyz").await;
        if matches!(answer, Ok((200, _))) {
            return Ok(());
        }
        service.check()?;
        if start.elapsed() > limit {
            let why = match answer {
                Ok((code, body)) => format!("it answers {code} {}", body.trim()),
                Err(error) => format!("{error:#}"),
            };
            bail!(
                "{} is not ready after {limit:?}: {why}; the end of its log:\n{}",
                service.name(),
                service.log_tail(40)
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
