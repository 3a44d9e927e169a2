//! What was asked of the database, read from its own log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Result;
use e2e::postgres::Server;

/// The log of a server that logs all statements.
pub struct StatementLog {
    path: PathBuf,
    /// As the log's lines name the login that is counted.
    login: String,
}

impl StatementLog {
    /// Of what this login asks.
    pub fn of(server: &Server, user: &str) -> Self {
        Self {
            path: server.log_path().to_path_buf(),
            login: format!(" {user}@"),
        }
    }

    /// Where it ends now.
    pub fn end(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.path)?.len())
    }

    /// The texts of the login since then, one for each round trip.
    pub fn since(&self, from: u64) -> Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(round_trips(&String::from_utf8_lossy(&bytes), &self.login))
    }
}

/// Further lines of a text begin with a tab, so each of these lines is one text.
fn round_trips(log: &str, login: &str) -> Vec<String> {
    let text = |line: &str| {
        let (prefix, message) = line.split_once("LOG:  ")?;
        let asked = message.starts_with("statement: ") || message.starts_with("execute ");
        (asked && prefix.contains(login)).then(|| message.to_owned())
    };
    log.lines().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_of_one_login_are_counted() {
        let log = "2026-01-01 10:00:00.000 UTC [7] dsv_issuer@orders LOG:  statement: SET a = 1; SELECT 1\n\
                   \tFROM b\n\
                   2026-01-01 10:00:00.000 UTC [7] dsv_issuer@orders LOG:  execute s1: SELECT 2\n\
                   2026-01-01 10:00:00.000 UTC [8] postgres@orders LOG:  statement: SELECT 3\n\
                   2026-01-01 10:00:00.000 UTC [7] dsv_issuer@orders LOG:  disconnection: session time\n\
                   2026-01-01 10:00:00.000 UTC [7] dsv_issuer@orders ERROR:  it says LOG:  nothing\n";
        assert_eq!(round_trips(log, " dsv_issuer@").len(), 2);
        assert_eq!(round_trips(log, " nobody@").len(), 0);
    }
}
