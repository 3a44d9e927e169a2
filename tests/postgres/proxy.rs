//! A TCP proxy that loses connections on purpose.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Forwards to a server until it is told to lose what comes back.
pub struct Proxy {
    pub address: SocketAddr,
    losing: Arc<AtomicBool>,
}

impl Proxy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let losing = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&losing);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&flag)));
            }
        });
        Self { address, losing }
    }

    /// From now on: what the client says is forwarded, then both sides are cut before the answer comes back.
    pub fn lose_answers(&self, lose: bool) {
        self.losing.store(lose, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, server: TcpStream, losing: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from_client.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                if losing.load(Ordering::SeqCst) {
                    // Nobody reads the answer any more, but the server has the question, and time to act on it.
                    back.abort();
                    let _ = to_server.write_all(&buffer[..length]).await;
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    return;
                }
                if to_server.write_all(&buffer[..length]).await.is_err() {
                    break;
                }
            }
        }
    }
    back.abort();
}
