//! Roles, and the client credentials that act as them.

use super::Vault;
use super::bootstrap;
use super::call::Call;
use super::caller::Caller;
use super::ids::Kind;
use super::path::{Suffix, split};
use super::policies::{listed, versions};
use super::records::Record;
use super::reply::{Refusal, Reply};
use super::time;
use super::users::{TAKEN, check_name};
use crate::keys::{keyed_hash, random_secret};
use http::Method;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

impl Vault {
    /// Everything below `/v1/roles`.
    pub(super) async fn roles(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let (text, suffix) = split(call.rest.trim_matches('/'), &call.method, call.has_body());
        let (tenant, kind) = (&call.tenant, Kind::Role);
        let need = |action: &str| self.require(call, caller, action, &format!("roles:{text}"));
        match (&call.method, text, suffix) {
            (&Method::POST, "", _) => self.create_role(call, caller).await,
            (&Method::GET, "", _) => {
                let term = call.asked("searchTerm").unwrap_or_default().to_lowercase();
                let mut found = self.records(tenant, kind);
                found.retain(|(_, record)| {
                    record.name.to_lowercase().contains(&term)
                        && self.may(call, caller, "list", &format!("roles:{}", record.name))
                });
                listed(call, found, |id, record| self.shown_role(call, id, record))
            }
            (&Method::GET, name, Suffix::None) => {
                need("read")?;
                let live = self.live_record(tenant, kind, name).await?;
                Ok(Reply::ok(self.shown_role(call, &live.id, &live.record).into()))
            }
            (&Method::GET, name, Suffix::Version(count)) => {
                need("read")?;
                let live = self.live_record(tenant, kind, name).await?;
                Ok(versions(&live, count, |id, record| self.shown_role(call, id, record)))
            }
            (&Method::PUT, name, Suffix::Restore) => {
                need("update")?;
                self.restore_record(tenant, kind, name).await
            }
            (&Method::PUT, name, Suffix::None) => {
                need("update")?;
                let live = self.live_record(tenant, kind, name).await?;
                let mut fields = live.record.fields.clone();
                let description = call.fields()?.text("description")?.unwrap_or_default().to_owned();
                fields.insert("description".into(), json!(description));
                let written = self.next_version(tenant, live, (fields, None), &caller.subject).await?;
                Ok(Reply::ok(self.shown_role(call, &written.id, &written.record).into()))
            }
            (&Method::DELETE, name, _) => {
                need("delete")?;
                self.nobody_acts_as(call, name)?;
                self.delete_record(tenant, kind, name, call.flag("force")).await
            }
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    /// Whoever makes a role of this name later must not find clients of somebody else acting as it.
    fn nobody_acts_as(&self, call: &Call, role: &str) -> Result<(), Refusal> {
        let clients = self.records(&call.tenant, Kind::Client);
        let acting: Vec<&str> = clients
            .iter()
            .filter(|(_, client)| client.text("role") == role)
            .map(|(_, client)| client.name.as_str())
            .collect();
        if acting.is_empty() {
            return Ok(());
        }
        let message = format!("cannot delete role {role}: clients act as it, delete them first");
        Err(Refusal::bad(message).with("clients", acting.join(", ")))
    }

    async fn create_role(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let body = call.fields()?;
        let name = body.required("name")?;
        check_name(name)?;
        self.require(call, caller, "create", &format!("roles:{name}"))?;
        if body.text("provider")?.is_none() && body.text("externalid")?.is_some() {
            return Err(Refusal::bad("provider is required when externalId is given"));
        }
        if let Some(provider) = body.text("provider")? {
            return Err(Refusal::bad(format!(
                "unable to find authentication provider {provider}"
            )));
        }
        let description = body.text("description")?.unwrap_or_default();
        let fields = json!({"description": description, "provider": "", "externalId": ""});
        let fields = fields.as_object().cloned().unwrap_or_default();
        let made = self
            .make_record(&call.tenant, Kind::Role, name, fields, (None, &caller.subject))
            .await?;
        let made = made.ok_or_else(|| Refusal::bad(TAKEN))?;
        Ok(Reply::created(self.shown_role(call, &made.id, &made.record).into()))
    }

    fn shown_role(&self, call: &Call, id: &str, record: &Record) -> Map<String, Value> {
        let mut all = record.common(id);
        all.insert("name".into(), json!(record.name));
        for key in ["description", "provider", "externalId"] {
            all.insert(key.into(), json!(record.text(key)));
        }
        let groups = self.groups_with(&call.tenant, &format!("roles:{}", record.name));
        all.insert("groups".into(), json!(groups));
        all
    }

    /// Everything below `/v1/clients`.
    pub(super) async fn clients(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let (text, suffix) = split(call.rest.trim_matches('/'), &call.method, call.has_body());
        let (tenant, kind) = (&call.tenant, Kind::Client);
        let need = |action: &str| self.require(call, caller, action, &format!("clients:{text}"));
        match (&call.method, text, suffix) {
            (&Method::POST, "", _) => self.create_client(call, caller).await,
            (&Method::GET, "", _) => {
                let role = call.asked("role");
                let mut found = self.records(tenant, kind);
                found.retain(|(_, record)| {
                    role.is_none_or(|role| record.text("role") == role)
                        && self.may(call, caller, "list", &format!("clients:{}", record.name))
                });
                listed(call, found, shown_client)
            }
            (&Method::GET, id, Suffix::None) if !id.contains('/') => {
                need("read")?;
                let live = self.live_record(tenant, kind, id).await?;
                Ok(Reply::ok(shown_client(&live.id, &live.record).into()))
            }
            (&Method::PUT, id, Suffix::Restore) => {
                need("update")?;
                self.restore_record(tenant, kind, id).await
            }
            (&Method::DELETE, id, _) => {
                need("delete")?;
                self.delete_record(tenant, kind, id, call.flag("force")).await
            }
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    /// The secret is shown here and never again. Who makes one acts as its role from then on, so he must be allowed to
    /// assign it.
    async fn create_client(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let body = call.fields()?;
        let role = body.required("role")?;
        let id = uuid::Uuid::new_v4().to_string();
        self.require(call, caller, "create", &format!("clients:{id}"))?;
        self.require(call, caller, "assign", &format!("roles:{role}"))?;
        if self.known(&call.tenant, Kind::Role, role).is_none() {
            return Err(Refusal::bad("unable to find item with specified identifier").with("role", "does not exist"));
        }
        let number = |key: &str| body.get(key).and_then(Value::as_i64).filter(|number| *number > 0);
        let mut fields = Map::new();
        fields.insert("role".into(), json!(role));
        fields.insert(
            "description".into(),
            json!(body.text("description")?.unwrap_or_default()),
        );
        if let Some(ttl) = number("ttl") {
            let end = time::now()
                .saturating_add(SignedDuration::from_secs(ttl))
                .unwrap_or_default();
            fields.insert("ttl".into(), json!(ttl));
            fields.insert("expires".into(), json!(time::text(end)));
        }
        if let Some(limit) = number("useslimit") {
            fields.insert("usesLimit".into(), json!(limit));
        }
        let secret = random_secret();
        let hash = keyed_hash(&self.tokens.hash_key(), &secret);
        let by_url = body.flag("url");
        if by_url {
            // What is kept is the hash of the URL's secret part. The client's own is made when the URL is used.
            bootstrap::offer(&mut fields, number("urlttl"));
        }
        let made = self
            .make_record(&call.tenant, Kind::Client, &id, fields, (Some(&hash), &caller.subject))
            .await?;
        let made = made.ok_or_else(|| Refusal::new(409, "try again"))?;
        let mut shown = shown_client(&made.id, &made.record);
        if by_url {
            let path = bootstrap::path(&made.record.name, &secret);
            shown.insert("url".into(), json!(call.url_of(&path)));
            shown.insert("urlPath".into(), json!(path));
        } else {
            shown.insert("clientSecret".into(), json!(secret.reveal()));
        }
        Ok(Reply::created(shown.into()))
    }
}

pub(super) fn shown_client(id: &str, record: &Record) -> Map<String, Value> {
    let mut all = record.common(id);
    all.insert("clientId".into(), json!(record.name));
    for key in ["role", "description"] {
        all.insert(key.into(), json!(record.text(key)));
    }
    all.insert("TTL".into(), json!(record.number("ttl")));
    all.insert("expiredAt".into(), json!(record.text("expires")));
    all.insert("usesLimit".into(), json!(record.number("usesLimit")));
    all.insert("usedCount".into(), json!(record.number("usedCount")));
    bootstrap::shown(record, &mut all);
    all
}
