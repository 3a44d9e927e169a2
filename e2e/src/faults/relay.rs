//! A TCP relay that can be told to misbehave: in front of the channel, and of PostgreSQL.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What the relay does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Passes everything on.
    Honest,
    /// Takes no connection, as if nobody listened.
    Closed,
    /// Packets vanish in both directions and nobody is told: neither data nor the end of a connection gets through.
    HalfOpen,
    /// What is said to the server arrives, and no answer comes back.
    NoReplies,
    /// Every piece of data waits this long.
    Slow(Duration),
    /// Connections over which nothing went for this long are ended.
    EndsIdle(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    manner: Manner,
    /// Connections of an older generation end.
    generation: u64,
}

/// A relay to one address. Dropping it stops taking connections and ends those there are.
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Listens on loopback.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = watch::Sender::new(State {
            manner: Manner::Honest,
            generation: 0,
        });
        let seen = state.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let state = seen.subscribe();
                // The end of one connection is no end of the others.
                tokio::spawn(async move { drop(relay(stream, upstream, state).await) });
            }
        });
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it behaves like this, with the connections that there are as well.
    pub fn behave(&self, manner: Manner) {
        self.state.send_modify(|state| state.manner = manner);
    }

    /// Ends all connections at once; new ones are taken.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn relay(client: TcpStream, upstream: SocketAddr, mut state: watch::Receiver<State>) -> io::Result<()> {
    let ours = *state.borrow_and_update();
    if ours.manner == Manner::Closed {
        return Ok(());
    }
    let generation = ours.generation;
    let mut ended = state.clone();
    let talk = async {
        wait_passable(&mut state, Way::There).await;
        let server = TcpStream::connect(upstream).await?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Either end is the end of both, as with a proxy that closes what is half closed.
        tokio::select! {
            result = pump(from_client, to_server, state.clone(), Way::There) => result,
            result = pump(from_server, to_client, state.clone(), Way::Back) => result,
        }
    };
    let over = async {
        let over = |now: &State| now.generation != generation || now.manner == Manner::Closed;
        let _ = ended.wait_for(over).await;
    };
    tokio::select! {
        result = talk => result,
        () = over => Ok(()),
    }
}

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

async fn wait_passable(state: &mut watch::Receiver<State>, way: Way) {
    let held = |manner| manner == Manner::HalfOpen || (manner == Manner::NoReplies && way == Way::Back);
    let _ = state.wait_for(|now| !held(now.manner)).await;
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    way: Way,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let manner = state.borrow().manner;
        let read = match manner {
            Manner::EndsIdle(limit) => match timeout(limit, from.read(&mut buffer)).await {
                Ok(read) => read,
                Err(_) => return Ok(()),
            },
            // A manner that comes later counts for what comes next: engines and servers say something every few seconds.
            _ => from.read(&mut buffer).await,
        };
        // Held back, as TCP's own repetition would bring it later.
        wait_passable(&mut state, way).await;
        let manner = state.borrow().manner;
        if let Manner::Slow(pause) = manner {
            sleep(pause).await;
        }
        match read? {
            0 => return Ok(()),
            length => to.write_all(buffer.get(..length).unwrap_or_default()).await?,
        }
    }
}
