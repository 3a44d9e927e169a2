//! The stream of what was asked and how it ended: a line for each call, and for each account that was issued or taken back;
//! never a value. What a line is and how lines hold together is in `chain`, what the API shows of them in `answers`.

mod answers;
mod chain;

use super::bootstrap;
use super::call::Call;
use super::reply::{Refusal, Reply};
use super::time;
use crate::api::names::OPERATOR;
use crate::telemetry::ledger::Entry;
use chain::{BEGINNING, Line};
pub use chain::{ChainError, verify};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Lines that the endpoint can show: some megabytes of memory.
const KEPT: usize = 10_000;
/// Status of a call whose reader went away before it was answered.
const GONE: u16 = 499;

/// The stream of this replica.
pub struct Audit {
    replica: String,
    inner: Mutex<Inner>,
}

struct Inner {
    number: u64,
    previous: String,
    kept: VecDeque<Line>,
    file: Option<std::fs::File>,
    /// What the file did not take yet. Nothing is left out of it: a chain with a gap could not be told from a cut one.
    pending: Vec<u8>,
    /// Calls by tenant and day.
    usage: BTreeMap<(String, String), u64>,
}

impl Inner {
    /// A write that ends in the middle of a line goes on there.
    fn flush(&mut self) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        while !self.pending.is_empty() {
            match file.write(&self.pending) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A call that is being answered. Its line is written in any case: where nobody waits for the answer any more, when this is
/// dropped.
pub struct Noting<'a> {
    audit: &'a Audit,
    call: &'a Call,
    /// Who calls, as soon as it is known.
    pub principal: String,
    is_noted: bool,
}

impl<'a> Noting<'a> {
    /// From now on.
    pub fn new(audit: &'a Audit, call: &'a Call) -> Self {
        Self {
            audit,
            call,
            principal: String::new(),
            is_noted: false,
        }
    }

    /// It ended.
    pub fn ended(mut self, outcome: &Result<Reply, Refusal>) {
        let status = match outcome {
            Ok(reply) => reply.status.as_u16(),
            Err(refusal) => refusal.code,
        };
        self.is_noted = true;
        self.audit.note(self.call, &self.principal, status);
    }
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        if !self.is_noted {
            self.audit.note(self.call, &self.principal, GONE);
        }
    }
}

/// No path: it is the installer's.
impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Audit({})", self.replica)
    }
}

impl Audit {
    /// A new chain; with a file its lines are appended there.
    pub fn new(file: Option<&Path>) -> std::io::Result<Self> {
        let open = |path| std::fs::OpenOptions::new().create(true).append(true).open(path);
        Ok(Self {
            replica: uuid::Uuid::new_v4().to_string(),
            inner: Mutex::new(Inner {
                number: 0,
                previous: BEGINNING.to_owned(),
                kept: VecDeque::new(),
                file: file.map(open).transpose()?,
                pending: Vec::new(),
                usage: BTreeMap::new(),
            }),
        })
    }

    /// Whether a line can be written, as far as it is known before it is. What the file did not take is tried again first.
    pub fn check(&self) -> std::io::Result<()> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }

    /// Notes a call and the status that it ended with.
    pub fn note(&self, call: &Call, principal: &str, status: u16) {
        let line = self.line(&call.tenant.namespace, principal);
        let line = Line {
            remote: call.remote.map(|address| address.to_string()).unwrap_or_default(),
            action: call.method.to_string(),
            path: path_of(call),
            status,
            ..line
        };
        self.append(line, true);
    }

    /// Notes what the leader did with an account, whoever asked for it and however.
    pub fn account(&self, entry: &Entry) {
        let line = self.line(&entry.namespace, OPERATOR);
        let line = Line {
            action: entry.deed.word().to_owned(),
            path: format!("credentialleases/{}", entry.lease),
            status: 200,
            account: entry.account.clone(),
            dynamic_secret: entry.dynamic_secret.clone(),
            ..line
        };
        self.append(line, false);
    }

    fn line(&self, tenant: &str, principal: &str) -> Line {
        Line {
            number: 0,
            time: time::now(),
            replica: self.replica.clone(),
            tenant: tenant.to_owned(),
            principal: principal.to_owned(),
            remote: String::new(),
            action: String::new(),
            path: String::new(),
            status: 0,
            account: String::new(),
            dynamic_secret: String::new(),
            previous: String::new(),
            hash: String::new(),
        }
    }

    fn append(&self, mut line: Line, is_call: bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.number += 1;
        line.number = inner.number;
        line.previous.clone_from(&inner.previous);
        let line = line.sealed();
        inner.previous.clone_from(&line.hash);
        if is_call {
            let day = line.time.to_string().chars().take(10).collect();
            *inner.usage.entry((line.tenant.clone(), day)).or_default() += 1;
        }
        if inner.file.is_some()
            && let Ok(text) = serde_json::to_string(&line)
        {
            inner.pending.extend(text.into_bytes());
            inner.pending.push(b'\n');
            if let Err(error) = inner.flush() {
                tracing::error!(%error, "an audit line could not be written to its file; calls are refused until it can");
            }
        }
        inner.kept.push_back(line);
        if inner.kept.len() > KEPT {
            inner.kept.pop_front();
        }
    }

    /// The lines of a tenant that are kept, newest first.
    pub fn lines(&self, tenant: &str) -> Vec<Line> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner
            .kept
            .iter()
            .rev()
            .filter(|line| line.tenant == tenant)
            .cloned()
            .collect()
    }

    /// Calls of a tenant by day, both ends included.
    pub fn usage(&self, tenant: &str, from: &str, to: &str) -> BTreeMap<String, u64> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let days = inner
            .usage
            .iter()
            .filter(|((name, day), _)| name == tenant && day.as_str() >= from && day.as_str() <= to);
        days.map(|((_, day), count)| (day.clone(), *count)).collect()
    }
}

/// A refresh token stands in the path of its revocation, a secret in that of a bootstrap URL.
fn path_of(call: &Call) -> String {
    if call.path.starts_with(bootstrap::AREA) {
        return format!("{}…", bootstrap::AREA);
    }
    if call.area == "revoke" {
        return "revoke/…".to_owned();
    }
    call.path.chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ledger::Deed;

    fn text(lines: &[Line]) -> String {
        lines
            .iter()
            .map(|line| serde_json::to_string(line).unwrap() + "\n")
            .collect()
    }

    fn entry(deed: Deed) -> Entry {
        Entry {
            deed,
            namespace: "shop".into(),
            dynamic_secret: "orders".into(),
            lease: "orders-1".into(),
            account: "shop_orders_x".into(),
        }
    }

    #[test]
    fn accounts_are_lines_of_the_same_chain_and_no_calls() {
        let audit = Audit::new(None).unwrap();
        for deed in [Deed::Issue, Deed::Revoke, Deed::Abandon] {
            audit.account(&entry(deed));
        }
        let mut lines = audit.lines("shop");
        lines.reverse();
        assert_eq!(verify(&text(&lines)), Ok(3));
        let words: Vec<&str> = lines.iter().map(|line| line.action.as_str()).collect();
        assert_eq!(words, ["ISSUE", "REVOKE", "ABANDON"]);
        assert_eq!(
            (
                lines[0].account.as_str(),
                lines[0].dynamic_secret.as_str(),
                lines[0].path.as_str()
            ),
            ("shop_orders_x", "orders", "credentialleases/orders-1")
        );
        assert!(audit.lines("other").is_empty() && audit.usage("shop", "", "9999").is_empty());
        let mut touched = lines;
        touched[1].account = "somebody".into();
        assert_eq!(verify(&text(&touched)), Err(ChainError::Changed(2)));
    }

    #[test]
    fn a_file_that_takes_nothing_is_known_before_the_next_call() {
        let audit = Audit::new(Some(Path::new("/dev/full"))).unwrap();
        assert!(audit.check().is_ok(), "nothing is known yet");
        audit.account(&entry(Deed::Issue));
        assert!(audit.check().is_err(), "the line is not in the file");
        assert_eq!(audit.lines("shop").len(), 1);
        // As if the disk had room again.
        let folder = std::env::temp_dir().join(format!("dsv-audit-{}", uuid::Uuid::new_v4()));
        audit.inner.lock().unwrap().file = std::fs::File::create(&folder).ok();
        audit.account(&entry(Deed::Revoke));
        assert!(audit.check().is_ok());
        assert_eq!(
            verify(&std::fs::read_to_string(&folder).unwrap()),
            Ok(2),
            "nothing is missing"
        );
        std::fs::remove_file(folder).unwrap();
    }
}
