//! Server records as they were read a moment ago. One lease needs its record several times within a second, and so do the
//! leases beside it; each read would be a request. Whoever decides by what a record says of a server's history reads it anew.

use crate::cluster::server_record::Record;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a record counts as just read. One that somebody changed or deleted by hand is noticed this much later; what the
/// operator itself writes, at once.
const JUST_NOW: Duration = Duration::from_secs(1);

/// Records by name, each with the time at which it was asked for; none: what was asked for before that time counts no more.
#[derive(Default)]
pub struct RecentRecords(Mutex<HashMap<String, (Option<Record>, Instant)>>);

impl RecentRecords {
    /// The record, if it was read just now.
    pub fn of(&self, name: &str, now: Instant) -> Option<Record> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (record, asked) = all.get(name)?;
        record
            .clone()
            .filter(|_| now.saturating_duration_since(*asked) < JUST_NOW)
    }

    /// The record was read; `asked` is when that was asked for.
    pub fn note(&self, record: &Record, asked: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &record.login.record;
        // An answer that was under way while the record was written or removed shows what it was before.
        if all.get(name).is_none_or(|(_, before)| *before <= asked) {
            all.insert(name.clone(), (Some(record.clone()), asked));
        }
    }

    /// The record was written or removed just now.
    pub fn forget(&self, name: &str, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), (None, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::frames::{ServerLogin, SslMode};
    use crate::keys::SecretText;

    fn record() -> Record {
        Record::seen(ServerLogin {
            record: "server-1".to_owned(),
            host: "db.test".to_owned(),
            port: 5432,
            ports: Vec::new(),
            username: "issuer".to_owned(),
            password: SecretText::new("unseen"),
            database: "orders".to_owned(),
            sslmode: SslMode::VerifyFull,
            ca: None,
            client_certificate: None,
            client_key: None,
        })
    }

    #[test]
    fn a_record_counts_for_a_moment() {
        let (records, read) = (RecentRecords::default(), Instant::now());
        assert!(records.of("server-1", read).is_none());
        records.note(&record(), read);
        assert!(records.of("server-1", read + JUST_NOW / 2).is_some());
        assert!(records.of("server-1", read + JUST_NOW).is_none());
    }

    #[test]
    fn what_was_asked_for_before_a_write_is_not_believed_after_it() {
        let (records, asked) = (RecentRecords::default(), Instant::now());
        let written = asked + Duration::from_millis(5);
        records.forget("server-1", written);
        records.note(&record(), asked);
        assert!(records.of("server-1", written).is_none());
        records.note(&record(), written + Duration::from_millis(1));
        assert!(records.of("server-1", written + Duration::from_millis(2)).is_some());
    }
}
