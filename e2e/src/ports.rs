//! Free loopback ports that stay free.
//!
//! Taken below the range from which the kernel serves outgoing connections, so that a server which was killed finds its port
//! free when it starts again.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use rand::RngExt;

const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;
const TRIES: usize = 200;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port on 127.0.0.1 that nobody listens on now and that this process has not given out before.
pub fn free() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashSet::new);
    for _ in 0..TRIES {
        let port = rand::rng().random_range(FIRST..LAST);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between {FIRST} and {LAST} after {TRIES} tries")
}
