//! A line of the audit stream, with the hash of the one before it, and whether a stream is whole. Where lines come from and
//! where they are kept is not known here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What stands before the first line.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts from 1 in each start of a replica.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// Which start of which replica: each has a chain of its own.
    pub replica: String,
    /// Namespace of the tenant.
    pub tenant: String,
    /// Who called; empty before a login.
    pub principal: String,
    /// Where from.
    pub remote: String,
    /// Method.
    pub action: String,
    /// Path, without query.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// Of an account that was issued or taken back: its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// The same: the dynamic secret that it belongs to.
    #[serde(default, rename = "dynamicSecret", skip_serializing_if = "String::is_empty")]
    pub dynamic_secret: String,
    /// Hash of the line before.
    pub previous: String,
    /// SHA-256 of this line with this field empty.
    #[serde(default)]
    pub hash: String,
}

impl Line {
    /// With its hash.
    pub fn sealed(mut self) -> Self {
        self.hash = self.digest();
        self
    }

    fn digest(&self) -> String {
        let bare = Self {
            hash: String::new(),
            ..self.clone()
        };
        let text = serde_json::to_vec(&bare).unwrap_or_default();
        data_encoding::HEXLOWER.encode(&Sha256::digest(text))
    }
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A line is none.
    #[error("line {0} is no line of an audit stream")]
    Unreadable(usize),
    /// A line was changed.
    #[error("line {0} was changed: its hash is another one")]
    Changed(usize),
    /// A line was taken out, put in or moved.
    #[error("line {0} does not follow the one before it: one was taken out, put in or moved")]
    Missing(usize),
}

/// Checks a stream, which may hold the chains of several replicas. Returns how many lines it has.
pub fn verify(text: &str) -> Result<usize, ChainError> {
    let mut last: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut count = 0;
    for (at, text) in text.lines().enumerate() {
        let line: Line = serde_json::from_str(text).map_err(|_| ChainError::Unreadable(at + 1))?;
        if line.digest() != line.hash {
            return Err(ChainError::Changed(at + 1));
        }
        let before = last.get(&line.replica).cloned();
        let (number, hash) = before.unwrap_or_else(|| (0, BEGINNING.to_owned()));
        if line.number != number + 1 || line.previous != hash {
            return Err(ChainError::Missing(at + 1));
        }
        last.insert(line.replica.clone(), (line.number, line.hash.clone()));
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, previous: &str) -> Line {
        Line {
            number,
            time: Timestamp::UNIX_EPOCH,
            replica: "r".into(),
            tenant: "t".into(),
            principal: "users:a".into(),
            remote: String::new(),
            action: "GET".into(),
            path: format!("secrets/{number}"),
            status: 200,
            account: String::new(),
            dynamic_secret: String::new(),
            previous: previous.into(),
            hash: String::new(),
        }
        .sealed()
    }

    fn stream() -> Vec<Line> {
        let mut all = vec![line(1, BEGINNING)];
        for number in 2..=4 {
            let previous = all[all.len() - 1].hash.clone();
            all.push(line(number, &previous));
        }
        all
    }

    fn text(lines: &[Line]) -> String {
        lines
            .iter()
            .map(|line| serde_json::to_string(line).unwrap() + "\n")
            .collect()
    }

    #[test]
    fn an_untouched_stream_holds_and_every_touch_shows() {
        let all = stream();
        assert_eq!(verify(&text(&all)), Ok(4));
        let mut changed = all.clone();
        changed[1].status = 403;
        assert_eq!(verify(&text(&changed)), Err(ChainError::Changed(2)));
        let mut cut = all.clone();
        cut.remove(2);
        assert_eq!(verify(&text(&cut)), Err(ChainError::Missing(3)));
        let mut moved = all.clone();
        moved.swap(1, 2);
        assert_eq!(verify(&text(&moved)), Err(ChainError::Missing(2)));
        assert_eq!(verify("nothing"), Err(ChainError::Unreadable(1)));
    }
}
