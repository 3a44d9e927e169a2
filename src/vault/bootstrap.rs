//! Bootstrap URLs: whoever asks one first gets the secret of a client, without a token. The secret is made at that moment,
//! so it was nowhere before, and the same write uses the URL up.

use super::Vault;
use super::call::Call;
use super::ids::Kind;
use super::records::Record;
use super::reply::{Refusal, Reply};
use super::roles::shown_client;
use super::time;
use crate::keys::{SecretText, keyed_hash, keyed_hash_fits, random_secret};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

/// Address below `/v1/`; the part that gives the client away follows.
pub const AREA: &str = "clients/bootstrap/";
/// How long a URL can be used where nobody says.
const LIFE: i64 = 3600;
/// Until when the URL can be used.
const EXPIRES: &str = "urlExpires";
/// For how many seconds it was made.
const TTL: &str = "urlTTL";
/// When it was used.
const USED: &str = "urlUsed";
/// A client's id is a UUID.
const ID: usize = 36;

/// Notes on a new client that it waits for its URL to be used.
pub fn offer(fields: &mut Map<String, Value>, ttl: Option<i64>) {
    let ttl = ttl.unwrap_or(LIFE);
    let end = time::now().saturating_add(SignedDuration::from_secs(ttl));
    fields.insert(TTL.into(), json!(ttl));
    fields.insert(EXPIRES.into(), json!(time::text(end.unwrap_or(Timestamp::MAX))));
}

/// The path of the URL. It ends with a secret.
pub fn path(client: &str, secret: &SecretText) -> String {
    format!("/v1/{AREA}{client}-{}", secret.reveal())
}

/// What a client shows of its URL: nothing of the secret.
pub fn shown(record: &Record, all: &mut Map<String, Value>) {
    if record.text(EXPIRES).is_empty() {
        return;
    }
    let is_used = !record.text(USED).is_empty();
    all.insert(TTL.into(), json!(record.number(TTL)));
    all.insert(EXPIRES.into(), json!(record.text(EXPIRES)));
    all.insert("accessed".into(), json!(record.text(USED)));
    all.insert("status".into(), json!(if is_used { "used" } else { "waiting" }));
}

/// Whether the client has no secret yet that logs in.
pub fn waits(record: &Record) -> bool {
    !record.text(EXPIRES).is_empty() && record.text(USED).is_empty()
}

impl Vault {
    /// `GET /v1/clients/bootstrap/{id}`.
    pub(super) async fn bootstrap(&self, call: &Call) -> Result<Reply, Refusal> {
        let given = call.path.strip_prefix(AREA).unwrap_or_default();
        let (client, secret) = split(given).ok_or_else(Refusal::not_found)?;
        let found = self.record(&call.tenant, Kind::Client, client).await?;
        let found = found.filter(|found| found.record.is_live());
        let live = found.ok_or_else(Refusal::not_found)?;
        if live.record.text(EXPIRES).is_empty() {
            return Err(Refusal::not_found());
        }
        let hash_key = self.tokens.hash_key();
        let offered = SecretText::new(live.record.text("urlHash"));
        let offered = if offered.is_empty() { live.hash() } else { Some(offered) };
        let fits = offered.is_some_and(|hash| keyed_hash_fits(&hash_key, &SecretText::new(secret), &hash));
        if !fits {
            return Err(Refusal::not_found());
        }
        if !waits(&live.record) {
            return Err(Refusal::bad("url has already used"));
        }
        if live.record.time(EXPIRES).is_none_or(|end| time::now() >= end) {
            return Err(Refusal::bad("url has expired"));
        }
        let made = random_secret();
        let mut fields = live.record.fields.clone();
        fields.insert(USED.into(), json!(time::text(time::now())));
        // Kept, so that the second one who asks is told that somebody was first.
        fields.insert(
            "urlHash".into(),
            json!(live.hash().map(|hash| hash.reveal().to_owned())),
        );
        let hash = keyed_hash(&hash_key, &made);
        let by = live.record.created_by.clone();
        let written = self.next_version(&call.tenant, live, (fields, Some(&hash)), &by).await;
        let written = written.map_err(|refusal| match refusal.code {
            // Of two at once one was first.
            409 => Refusal::bad("url has already used"),
            _ => refusal,
        })?;
        let mut all = shown_client(&written.id, &written.record);
        all.insert("clientSecret".into(), json!(made.reveal()));
        Ok(Reply::ok(all.into()))
    }
}

/// The client's id and the secret part.
fn split(text: &str) -> Option<(&str, &str)> {
    let (client, rest) = (text.get(..ID)?, text.get(ID..)?);
    rest.strip_prefix('-').map(|secret| (client, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_as_it_was_put_together() {
        let id = uuid::Uuid::new_v4().to_string();
        let secret = random_secret();
        let path = path(&id, &secret);
        let given = path.strip_prefix("/v1/").unwrap().strip_prefix(AREA).unwrap();
        assert_eq!(split(given), Some((id.as_str(), secret.reveal())));
        for wrong in ["", "short", id.as_str(), &"ä".repeat(40)] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
