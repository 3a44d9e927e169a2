//! A proxy on the way to the tenant that wants a login.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::setup::{Setup, message, peace, says};

/// `pusher:by the proxy`, as RFC 7617 writes it.
const LOGIN: &str = "Basic cHVzaGVyOmJ5IHRoZSBwcm94eQ==";

/// A proxy that opens tunnels (RFC 9110, CONNECT) for whoever logs in.
struct Proxy {
    url: String,
    tunnels: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tunnels = Arc::new(AtomicUsize::new(0));
        let opened = Arc::clone(&tunnels);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let opened = Arc::clone(&opened);
                // The end of one tunnel is no end of the others.
                tokio::spawn(async move { drop(tunnel(stream, &opened).await) });
            }
        });
        Self { url, tunnels }
    }
}

async fn tunnel(mut client: TcpStream, opened: &AtomicUsize) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let value = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    };
    if value("proxy-authorization") != Some(LOGIN) {
        let refusal =
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"way out\"\r\n\r\n";
        return Ok(client.write_all(refusal.as_bytes()).await?);
    }
    let target = head.split(' ').nth(1).context("a request names its target")?;
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    opened.fetch_add(1, Ordering::Relaxed);
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[tokio::test]
async fn a_push_goes_through_a_proxy_with_its_login() {
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    let proxy = Proxy::start().await;
    setup.tenant("tenant", "login", &json!({"proxy": proxy.url}));
    setup.sync("app", &json!({}));
    let refused = setup.until("DsvTenant", "tenant", "the proxy's refusal is told", |tenant| {
        says(tenant) == "CredentialsInvalid"
    });
    assert!(message(&refused.await).contains("proxy-username"));
    assert_eq!(proxy.tunnels.load(Ordering::Relaxed), 0);

    setup.secret(
        "login",
        &json!({"proxy-username": "pusher", "proxy-password": "by the proxy"}),
    );
    setup.says("app", "Synced").await;
    setup.version("app", "0").await;
    assert!(
        proxy.tunnels.load(Ordering::Relaxed) > 0,
        "nothing went through the proxy"
    );
    let tenant = setup
        .objects
        .get("DsvTenant", &setup.namespace, "tenant")
        .await
        .unwrap();
    assert!(!tenant.unwrap().to_string().contains("by the proxy"));
}
