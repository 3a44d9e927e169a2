//! Users: people who log in with a password.

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::ids::Kind;
use super::path::{Suffix, split};
use super::policies::{listed, versions};
use super::records::{Live, Record};
use super::reply::{Refusal, Reply};
use super::time;
use crate::keys::SecretText;
use http::Method;
use serde_json::{Map, Value, json};

/// What is said where the name of a user, role or group is taken.
pub const TAKEN: &str = "a security principal with this name already exists";

/// The fields of a user's record.
pub fn fields(name: &str, display: &str, provider: &str, external: &str) -> Map<String, Value> {
    let all = json!({
        "userName": name,
        "displayName": display,
        "provider": provider,
        "externalId": external,
        "passwordChanged": time::text(time::now()),
    });
    match all {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Names of users, roles and groups.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '+' | '.' | '_' | '-');
    let length = (3..=100).contains(&name.chars().count());
    if length && name.chars().all(fits) {
        return Ok(());
    }
    let fault = "must be 3 to 100 letters, numbers and the signs @ + . _ -";
    Err(Refusal::fields(vec![("name".to_owned(), fault.to_owned())]))
}

/// Passwords.
pub fn check_password(password: &str) -> Result<(), Refusal> {
    if (8..=100).contains(&password.chars().count()) {
        return Ok(());
    }
    let fault = "must be 8 to 100 characters long";
    Err(Refusal::fields(vec![("password".to_owned(), fault.to_owned())]))
}

impl Vault {
    /// Everything below `/v1/users`.
    pub(super) async fn users(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let (text, suffix) = split(call.rest.trim_matches('/'), &call.method, call.has_body());
        let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
        let (tenant, kind) = (&call.tenant, Kind::User);
        match (&call.method, segments.as_slice(), suffix) {
            (&Method::POST, [], _) => self.create_user(call, caller).await,
            (&Method::GET, [], _) => self.list_users(call, caller),
            (&Method::POST, [name, "password"], _) => self.change_password(call, caller, name).await,
            (&Method::GET, [name, "groups"], _) => {
                self.require(call, caller, "read", &format!("users:{name}"))?;
                self.live_record(tenant, kind, name).await?;
                Ok(Reply::ok(json!({"groups": self.groups_with(tenant, name)})))
            }
            (&Method::GET, [name], Suffix::None) => {
                self.require(call, caller, "read", &format!("users:{name}"))?;
                let live = self.live_record(tenant, kind, name).await?;
                Ok(Reply::ok(shown(&live.id, &live.record).into()))
            }
            (&Method::GET, [name], Suffix::Version(count)) => {
                self.require(call, caller, "read", &format!("users:{name}"))?;
                Ok(versions(&self.live_record(tenant, kind, name).await?, count, shown))
            }
            (&Method::PUT, [name], Suffix::Restore) => {
                self.require(call, caller, "update", &format!("users:{name}"))?;
                self.restore_record(tenant, kind, name).await
            }
            (&Method::PUT, [name], Suffix::None) => {
                self.require(call, caller, "update", &format!("users:{name}"))?;
                self.update_user(call, caller, name).await
            }
            (&Method::DELETE, [name], _) => {
                self.require(call, caller, "delete", &format!("users:{name}"))?;
                self.delete_record(tenant, kind, name, call.flag("force")).await
            }
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    async fn create_user(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let body = call.fields()?;
        let name = body.text("username")?.or(body.text("name")?);
        let name = name.ok_or_else(|| Refusal::fields(vec![("userName".into(), "is required".into())]))?;
        check_name(name)?;
        self.require(call, caller, "create", &format!("users:{name}"))?;
        let provider = body.text("provider")?;
        if provider.is_none() && body.text("externalid")?.is_some() {
            return Err(Refusal::bad("provider is required when externalId is given"));
        }
        if let Some(provider) = provider {
            return Err(Refusal::bad(format!(
                "unable to find authentication provider {provider}"
            )));
        }
        let password = body.required("password")?;
        check_password(password)?;
        let hash = self.hash_password(SecretText::new(password)).await?;
        let display = body.text("displayname")?.unwrap_or_default();
        let fields = fields(name, display, "", "");
        let made = self
            .make_record(&call.tenant, Kind::User, name, fields, (Some(&hash), &caller.subject))
            .await?;
        let made = made.ok_or_else(|| Refusal::bad(TAKEN))?;
        Ok(Reply::created(shown(&made.id, &made.record).into()))
    }

    fn list_users(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let term = call.asked("searchTerm").unwrap_or_default().to_lowercase();
        let mut found = self.records(&call.tenant, Kind::User);
        found.retain(|(_, record)| {
            record.name.to_lowercase().contains(&term)
                && self.may(call, caller, "list", &format!("users:{}", record.name))
        });
        listed(call, found, shown)
    }

    async fn update_user(&self, call: &Call, caller: &Caller, name: &str) -> Result<Reply, Refusal> {
        let body = call.fields()?;
        let live = self.live_record(&call.tenant, Kind::User, name).await?;
        let mut fields = live.record.fields.clone();
        if let Some(display) = body.text("displayname")? {
            fields.insert("displayName".into(), json!(display));
        }
        let by = &caller.subject;
        let written = if let Some(password) = body.text("password")? {
            self.set_password(call, caller, live, (fields, password)).await?
        } else {
            self.next_version(&call.tenant, live, (fields, None), by).await?
        };
        Ok(Reply::ok(shown(&written.id, &written.record).into()))
    }

    /// Another password ends all tokens that the one before gave, and a lock.
    async fn set_password(
        &self,
        call: &Call,
        caller: &Caller,
        live: Live,
        (mut fields, password): (Map<String, Value>, &str),
    ) -> Result<Live, Refusal> {
        check_password(password)?;
        let hash = self.hash_password(SecretText::new(password)).await?;
        fields.insert("passwordChanged".into(), json!(time::text(time::now())));
        fields.remove("failures");
        fields.remove("lockedUntil");
        let by = &caller.subject;
        self.next_version(&call.tenant, live, (fields, Some(&hash)), by).await
    }

    /// Everybody may change his own password, who knows it.
    async fn change_password(&self, call: &Call, caller: &Caller, name: &str) -> Result<Reply, Refusal> {
        if caller.user() != Some(name) {
            return Err(Refusal::forbidden());
        }
        let body = call.fields()?;
        let (old, new) = (body.required("currentpassword")?, body.required("newpassword")?);
        let live = self.live_record(&call.tenant, Kind::User, name).await?;
        if !self.password_fits(SecretText::new(old), live.hash()).await? {
            return Err(Refusal::bad("the current password is another one"));
        }
        let fields = live.record.fields.clone();
        self.set_password(call, caller, live, (fields, new)).await?;
        Ok(Reply::nothing())
    }
}

fn shown(id: &str, record: &Record) -> Map<String, Value> {
    let mut all = record.common(id);
    for key in ["userName", "displayName", "provider", "externalId"] {
        all.insert(key.into(), json!(record.text(key)));
    }
    all
}
