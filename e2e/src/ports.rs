//! Free loopback ports that stay free.
//!
//! Taken below the range from which the kernel serves outgoing connections, so that a server which was killed finds its port
//! free when it starts again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rand::RngExt;

use crate::places;

const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;
const TRIES: usize = 200;

/// The ports of this process, each with the lock that keeps other processes from taking it while its server is down.
static GIVEN: Mutex<Option<HashMap<u16, File>>> = Mutex::new(None);

/// A port on 127.0.0.1 that nobody listens on now, and that neither this process nor another living one of this workspace
/// was given before.
pub fn free() -> Result<u16> {
    let locks = places::target_dir()?.join("ports");
    fs::create_dir_all(&locks).with_context(|| format!("cannot make {}", locks.display()))?;
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashMap::new);
    for _ in 0..TRIES {
        let port = rand::rng().random_range(FIRST..LAST);
        if given.contains_key(&port) {
            continue;
        }
        let lock = File::create(locks.join(port.to_string())).context("cannot reserve a port")?;
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port, lock);
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between {FIRST} and {LAST} after {TRIES} tries")
}
