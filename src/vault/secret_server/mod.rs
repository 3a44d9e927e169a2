//! The calls of Secret Server by which secrets are kept in step at DSV tenants: tenants and syncs, which are the custom
//! resources, and just enough of its secrets to begin with nothing but this API.
//!
//! Nothing is pushed here: the leader sees the objects. Values are shown by the call that reads one secret, and nowhere else.

mod form;
mod page;
mod secrets;
mod syncs;
mod tenants;

pub use tenants::given_name;

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::reply::{Refusal, Reply};
use crate::cluster::numbers::{self, Numbers};
use serde_json::{Map, Value, json};

/// Area of the calls.
pub const API: &str = "api";
/// Area of the login.
pub const LOGIN: &str = "oauth2";
/// What their addresses may begin with.
const PREFIX: &str = "/secretserver";

/// Area and rest of one of Secret Server's calls; none for another address.
pub fn path(decoded: &str) -> Option<String> {
    let bare = match decoded.get(..PREFIX.len()) {
        Some(start) if start.eq_ignore_ascii_case(PREFIX) => decoded.get(PREFIX.len()..)?,
        _ => decoded,
    };
    if let Some(rest) = bare.strip_prefix("/api/v1/") {
        return Some(format!("{API}/{rest}"));
    }
    (bare == "/oauth2/token").then(|| format!("{LOGIN}/token"))
}

/// A refusal in Secret Server's form.
pub fn shown(refusal: Refusal) -> Reply {
    let mut body = json!({"message": refusal.message});
    if refusal.code == 400 {
        let model: Map<String, Value> = refusal
            .errors
            .into_iter()
            .map(|(field, faults)| (field, json!(faults)))
            .collect();
        body = json!({
            "message": refusal.message,
            "messageDetail": null,
            "errorCode": "API_InvalidRequest",
            "modelState": model,
        });
    }
    Reply {
        status: super::status_of_code(refusal.code),
        body: Some(body),
    }
}

impl Vault {
    /// `POST /oauth2/token`: a form with a user's name and password.
    pub(super) async fn secret_server_token(&self, call: &Call) -> Result<Reply, Refusal> {
        let granted = match self.token(call).await {
            Ok(reply) => reply.body.unwrap_or_default(),
            Err(refusal) if refusal.code == 401 => return Err(Refusal::bad("Login failed.")),
            Err(refusal) => return Err(refusal),
        };
        let of = |name: &str| granted.get(name).cloned().unwrap_or_default();
        Ok(Reply::ok(json!({
            "access_token": of("accessToken"),
            "token_type": "bearer",
            "expires_in": of("expiresIn"),
            "refresh_token": of("refreshToken"),
        })))
    }

    /// Everything below `/api/v1/`.
    pub(super) async fn secret_server(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let method = call.method.as_str();
        match call.segments().as_slice() {
            ["devops-secrets-vault", rest @ ..] => match (method, rest) {
                ("POST", ["tenant"]) => self.add_tenant(call, caller).await,
                ("GET", ["tenant"]) => self.list_tenants(call, caller).await,
                ("GET", ["tenant", "stub"]) => Ok(Reply::ok(tenants::stub())),
                ("GET", ["tenant", "audits"]) => self.tenant_audits(call, caller).await,
                ("GET", ["tenant", id]) => self.show_tenant(call, caller, id).await,
                ("PUT", ["tenant", id]) => self.change_tenant(call, caller, id).await,
                ("POST", ["add-sync"]) => self.add_sync(call, caller).await,
                ("POST", ["sync"]) => self.push_syncs(call, caller).await,
                ("GET", ["sync", "status"]) => self.list_syncs(call, caller).await,
                ("GET", ["sync", "status", id]) => self.show_sync(call, caller, id).await,
                ("PUT", ["sync", id]) => self.change_sync(call, caller, id).await,
                _ => Err(Refusal::not_found()),
            },
            ["secrets", rest @ ..] => match (method, rest) {
                ("POST", []) => self.add_source(call, caller).await,
                ("GET", []) => self.list_sources(call, caller).await,
                ("GET", [id]) => self.show_source(call, caller, id).await,
                _ => Err(Refusal::not_found()),
            },
            ["secret-templates", rest @ ..] if method == "GET" => secrets::templates(call, rest),
            _ => Err(Refusal::not_found()),
        }
    }

    async fn numbers(&self, call: &Call) -> Result<Numbers, Refusal> {
        let home = &self.settings.home;
        Ok(numbers::read(&self.client, home, &call.tenant.namespace).await?)
    }
}

/// A number in an address.
fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| Refusal::not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_served_with_and_without_the_prefix() {
        for (address, expected) in [
            (
                "/api/v1/devops-secrets-vault/tenant",
                Some("api/devops-secrets-vault/tenant"),
            ),
            ("/SecretServer/api/v1/secrets", Some("api/secrets")),
            ("/secretserver/oauth2/token", Some("oauth2/token")),
            ("/oauth2/token", Some("oauth2/token")),
            ("/v1/token", None),
            ("/SecretServerX/api/v1/secrets", None),
            ("/oauth2/token/x", None),
            ("/ä", None),
        ] {
            assert_eq!(path(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn refusals_have_secret_servers_form() {
        let reply = shown(Refusal::fields(vec![("syncInterval".into(), "is too short".into())]));
        let body = reply.body.unwrap();
        assert_eq!(reply.status, 400);
        assert_eq!(body["modelState"]["syncInterval"][0], "is too short");
        assert_eq!(body["message"], "syncInterval is too short");
        assert_eq!(
            shown(Refusal::forbidden()).body.unwrap(),
            json!({"message": "Invalid permissions"})
        );
    }
}
