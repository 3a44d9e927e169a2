//! `/v1/token`: from a password, a client secret or a refresh token to an access token. `kubernetes` has the other way.

use super::Vault;
use super::body::Fields;
use super::bootstrap;
use super::call::Call;
use super::ids::Kind;
use super::records::Live;
use super::reply::{Refusal, Reply};
use super::tenants::Tenant;
use super::time;
use crate::keys::{Claims, SecretText, hash_password, keyed_hash, keyed_hash_fits, password_fits, random_secret};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

/// How long an access token lives, in seconds.
const ACCESS_SECONDS: i64 = 3600;
/// How long a refresh token lives. The stock CLI takes its own for good that long.
const REFRESH_LIFE: SignedDuration = SignedDuration::from_hours(720);
/// Wrong passwords in a row until the login is locked.
const MAX_FAILURES: i64 = 5;
/// How long it stays locked.
const LOCKED: SignedDuration = SignedDuration::from_mins(15);

impl Vault {
    /// `POST /v1/token`.
    pub(super) async fn token(&self, call: &Call) -> Result<Reply, Refusal> {
        let fields = call.fields_or_form()?;
        match fields.required("grant_type")? {
            "password" => self.by_password(&call.tenant, &fields).await,
            "client_credentials" => self.by_client(&call.tenant, &fields).await,
            "refresh_token" => self.by_refresh(&call.tenant, &fields).await,
            "kubernetes" => self.by_kubernetes(&call.tenant, &fields).await,
            "certificate" | "oidc" | "aws_iam" | "azure" | "gcp" => Err(Refusal::new(
                501,
                "this way to log in is not served; use a password or client credentials",
            )),
            _ => Err(Refusal::bad(
                "grant_type must be password, client_credentials, refresh_token or kubernetes",
            )),
        }
    }

    async fn by_password(&self, tenant: &Tenant, fields: &Fields) -> Result<Reply, Refusal> {
        let (name, password) = (fields.required("username")?, fields.required("password")?);
        let user = self.user_by_password(tenant, name, SecretText::new(password)).await?;
        let subject = format!("users:{}", user.record.name);
        self.grant(tenant, subject, user.id, true).await
    }

    /// The user of that name, if that is the password. Wrong ones are counted, and too many of them lock the login.
    pub(super) async fn user_by_password(
        &self,
        tenant: &Tenant,
        name: &str,
        password: SecretText,
    ) -> Result<Live, Refusal> {
        let user = self.record(tenant, Kind::User, name).await?;
        let user = user.filter(|user| user.record.is_live());
        if let Some(until) = user.as_ref().and_then(|user| user.record.time("lockedUntil"))
            && time::now() < until
        {
            return Err(Refusal::new(
                401,
                "this user is locked out after too many failed logins; try again in 15 minutes",
            ));
        }
        let hash = user.as_ref().and_then(Live::hash);
        // Somebody who does not exist costs as much as a wrong password, so that nobody can tell them apart.
        let known = hash.is_some();
        let fits = self.password_fits(password, hash).await?;
        match user {
            Some(user) if known && fits => self.forget_failures(tenant, user).await,
            Some(user) => {
                self.count_failure(tenant, user).await;
                Err(Refusal::unauthenticated())
            }
            None => Err(Refusal::unauthenticated()),
        }
    }

    /// Compares with the hash, or with one that fits nothing. Two at a time: each takes 19 MiB and a core.
    pub(super) async fn password_fits(&self, password: SecretText, hash: Option<SecretText>) -> Result<bool, Refusal> {
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        self.hashing(move || password_fits(&password, &hash)).await
    }

    /// Hashes a password.
    pub(super) async fn hash_password(&self, password: SecretText) -> Result<SecretText, Refusal> {
        let hashed = self.hashing(move || hash_password(&password)).await?;
        hashed.map_err(|error| Refusal::new(500, error.to_string()))
    }

    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let busy = || Refusal::new(503, "logins take too long at the moment; try again");
        let wait = tokio::time::timeout(super::HASHING_WAIT, self.hashing.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = wait else { return Err(busy()) };
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| busy())
    }

    async fn forget_failures(&self, tenant: &Tenant, mut user: Live) -> Result<Live, Refusal> {
        if user.record.number("failures") == 0 {
            return Ok(user);
        }
        user.record.fields.remove("failures");
        user.record.fields.remove("lockedUntil");
        self.write(tenant, user).await
    }

    /// Two failures in the same moment may count as one; they cannot unlock anything.
    async fn count_failure(&self, tenant: &Tenant, mut user: Live) {
        let failures = user.record.number("failures") + 1;
        let fields = &mut user.record.fields;
        fields.insert("failures".into(), json!(failures));
        if failures >= MAX_FAILURES {
            let until = time::now().saturating_add(LOCKED).unwrap_or(Timestamp::MAX);
            fields.insert("lockedUntil".into(), json!(time::text(until)));
            // After that time the count begins anew.
            fields.insert("failures".into(), json!(0));
        }
        if let Err(refusal) = self.write(tenant, user).await {
            tracing::warn!(refusal.message, "a failed login could not be counted");
        }
    }

    async fn by_client(&self, tenant: &Tenant, fields: &Fields) -> Result<Reply, Refusal> {
        let (id, secret) = (fields.required("client_id")?, fields.required("client_secret")?);
        let client = self.record(tenant, Kind::Client, id).await?;
        let client = client.filter(|client| client.record.is_live());
        let client = client.ok_or_else(Refusal::unauthenticated)?;
        let hash = client.hash().ok_or_else(Refusal::unauthenticated)?;
        // Until its URL is used, the hash is the URL's.
        if bootstrap::waits(&client.record) {
            return Err(Refusal::unauthenticated());
        }
        let ended = client.record.time("expires").is_some_and(|end| time::now() >= end);
        if ended || !keyed_hash_fits(&self.tokens.hash_key(), &SecretText::new(secret), &hash) {
            return Err(Refusal::unauthenticated());
        }
        let client = self.count_use(tenant, client).await?;
        let role = client.record.text("role").to_owned();
        if self.known(tenant, Kind::Role, &role).is_none() {
            return Err(Refusal::unauthenticated());
        }
        self.grant(tenant, format!("roles:{role}"), client.id, false).await
    }

    /// Uses are written down only where they are limited: old SDKs log in before every call.
    async fn count_use(&self, tenant: &Tenant, mut client: Live) -> Result<Live, Refusal> {
        let limit = client.record.number("usesLimit");
        if limit == 0 {
            return Ok(client);
        }
        let used = client.record.number("usedCount");
        if used >= limit {
            return Err(Refusal::unauthenticated());
        }
        client.record.fields.insert("usedCount".into(), json!(used + 1));
        self.write(tenant, client).await
    }

    async fn by_refresh(&self, tenant: &Tenant, fields: &Fields) -> Result<Reply, Refusal> {
        let token = SecretText::new(fields.required("refresh_token")?);
        let live = self
            .refresh_record(tenant, &token)
            .await?
            .ok_or_else(Refusal::unauthenticated)?;
        let record = &live.record;
        let ended = record.time("expires").is_none_or(|end| time::now() >= end);
        let (subject, via) = (record.text("subject").to_owned(), record.text("via").to_owned());
        let login = self
            .records
            .get(&tenant.uid, &via)
            .filter(|entry| entry.value.record.is_live());
        let changed = login
            .as_ref()
            .and_then(|entry| entry.value.record.time("passwordChanged"));
        if ended || login.is_none() || changed.is_some_and(|at| record.created < at) {
            return Err(Refusal::unauthenticated());
        }
        let access = self.access_token(tenant, subject, (via, None), ACCESS_SECONDS).await?;
        Ok(Reply::ok(answer(&access, token.reveal(), ACCESS_SECONDS)))
    }

    /// The record of a refresh token: its name is the token's keyed hash, so who reads the records has no token.
    async fn refresh_record(&self, tenant: &Tenant, token: &SecretText) -> Result<Option<Live>, Refusal> {
        let name = keyed_hash(&self.tokens.hash_key(), token);
        self.record(tenant, Kind::Refresh, name.reveal()).await
    }

    /// `POST /v1/revoke/{refreshToken}`.
    pub(super) async fn revoke_token(&self, call: &Call) -> Result<Reply, Refusal> {
        let [token] = call.segments()[..] else {
            return Err(Refusal::not_found());
        };
        if let Some(found) = self.refresh_record(&call.tenant, &SecretText::new(token)).await? {
            self.remove(&call.tenant, &found).await?;
        }
        Ok(Reply::nothing())
    }

    async fn grant(&self, tenant: &Tenant, subject: String, via: String, refreshable: bool) -> Result<Reply, Refusal> {
        let mut refresh = String::new();
        if refreshable {
            let token = random_secret();
            let until = time::now().saturating_add(REFRESH_LIFE).unwrap_or(Timestamp::MAX);
            let mut fields = Map::new();
            fields.insert("subject".into(), json!(subject));
            fields.insert("via".into(), json!(via));
            fields.insert("expires".into(), json!(time::text(until)));
            let name = keyed_hash(&self.tokens.hash_key(), &token);
            self.make_record(tenant, Kind::Refresh, name.reveal(), fields, (None, &subject))
                .await?;
            token.reveal().clone_into(&mut refresh);
        }
        let access = self.access_token(tenant, subject, (via, None), ACCESS_SECONDS).await?;
        Ok(Reply::ok(answer(&access, &refresh, ACCESS_SECONDS)))
    }

    /// An access token for somebody else's token, which has `left` seconds to live.
    pub(super) async fn grant_for(
        &self,
        tenant: &Tenant,
        subject: String,
        login: (String, Option<String>),
        left: i64,
    ) -> Result<Reply, Refusal> {
        let life = left.min(ACCESS_SECONDS);
        if life < 1 {
            return Err(Refusal::unauthenticated());
        }
        let access = self.access_token(tenant, subject, login, life).await?;
        Ok(Reply::ok(answer(&access, "", life)))
    }

    async fn access_token(
        &self,
        tenant: &Tenant,
        subject: String,
        (via, sealed): (String, Option<String>),
        life: i64,
    ) -> Result<SecretText, Refusal> {
        let now = time::now().as_second();
        let claims = Claims {
            sub: subject,
            iss: self.issuer.clone(),
            aud: tenant.uid.clone(),
            iat: now,
            exp: now + life,
            jti: uuid::Uuid::new_v4().to_string(),
            via,
            sealed,
        };
        self.sign(&claims).await
    }
}

fn answer(access: &SecretText, refresh: &str, life: i64) -> Value {
    json!({
        "accessToken": access.reveal(),
        "tokenType": "bearer",
        "expiresIn": life,
        "refreshToken": refresh,
    })
}
