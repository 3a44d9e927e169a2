//! What the API shows of the audit stream: its lines, and how many calls there were.

use super::Line;
use crate::vault::Vault;
use crate::vault::call::Call;
use crate::vault::page::{Page, Sorting};
use crate::vault::reply::{Refusal, Reply};
use crate::vault::time;
use jiff::SignedDuration;
use jiff::civil::Date;
use serde_json::{Value, json};

/// The clocks of some islands are that far ahead of ours.
const FIRST_TO_SEE_A_DAY: SignedDuration = SignedDuration::from_hours(14);

impl Vault {
    /// `GET /v1/audit`.
    pub(in crate::vault) fn audit_lines(&self, call: &Call) -> Result<Reply, Refusal> {
        let mut found = self.settings.audit.lines(&call.tenant.namespace);
        let day = |line: &Line| line.time.to_string().chars().take(10).collect::<String>();
        let date = |key: &str| call.asked(key).map(|text| text.chars().take(10).collect::<String>());
        let (from, to) = (date("startDate"), date("endDate"));
        found.retain(|line| {
            from.as_ref().is_none_or(|from| day(line) >= *from)
                && to.as_ref().is_none_or(|to| day(line) <= *to)
                && call.asked("principal").is_none_or(|who| line.principal.contains(who))
                && call.asked("path").is_none_or(|path| line.path.contains(path))
                && call
                    .asked("action")
                    .is_none_or(|action| line.action.eq_ignore_ascii_case(action))
        });
        if call.asked("sort") == Some("asc") {
            found.reverse();
        }
        let sorting = Sorting::read(call)?;
        let (items, mut envelope) = Page::read(call)?.cut(found, sorting);
        envelope.insert("data".to_owned(), json!(items));
        Ok(Reply::ok(envelope.into()))
    }

    /// `GET /v1/usage`: what this replica counted since it started.
    pub(in crate::vault) fn usage(&self, call: &Call) -> Result<Reply, Refusal> {
        let (from, to) = (
            call.asked("startDate").unwrap_or_default(),
            call.asked("endDate").unwrap_or_default(),
        );
        let until: String = if to.is_empty() {
            "9999".to_owned()
        } else {
            to.chars().take(10).collect()
        };
        let from_day: String = from.chars().take(10).collect();
        // Days are the callers' own, and where they are it may be tomorrow already.
        let latest = time::now().saturating_add(FIRST_TO_SEE_A_DAY).unwrap_or_default();
        if from_day.parse::<Date>().is_ok() && from_day > time::text(latest) {
            return Err(Refusal::bad("Usage start date cannot be in the future"));
        }
        let days = self.settings.audit.usage(&call.tenant.namespace, &from_day, &until);
        let total: u64 = days.values().sum();
        let namespace = &call.tenant.namespace;
        let secrets = self.secrets.all(namespace).len() + self.dynamic.all(namespace).len();
        Ok(Reply::ok(json!({
            "startDate": from,
            "endDate": to,
            "totalSecrets": secrets,
            "totalKeys": 0,
            "requestsUsed": Value::Object(days.into_iter().map(|(day, count)| (day, json!(count))).collect()),
            "totalRequestsUsed": total,
        })))
    }
}
