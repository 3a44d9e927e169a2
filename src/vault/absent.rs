//! What DSV has and this API does not: told as such, so that no client takes it for a mistake of its own.

use super::call::Call;
use super::openapi;
use super::reply::Refusal;

/// Areas of DSV that are not served, and what is said of them.
const AREAS: &[(&str, &str)] = &[
    ("config/siem", "forwarding events to a SIEM is not served"),
    (
        "config/auth",
        "authentication providers are not served; use passwords or client credentials",
    ),
    ("config/keys", "bring-your-own-key is not served"),
    (
        "config",
        "changing the configuration document is not served; change the policies, below /v1/config/policies",
    ),
    ("siem", "forwarding events to a SIEM is not served"),
    ("pki", "PKI is not served"),
    ("crypto", "encryption as a service is not served"),
    ("breakglass", "break glass is not served"),
    ("report", "reports are not served"),
    (
        "certificate",
        "logging in with a certificate is not served; use a password or client credentials",
    ),
    (
        "oidc",
        "logging in through OIDC is not served; use a password or client credentials",
    ),
    ("task", "tasks of cloud providers are not served"),
    ("download", "downloads are not served; read /v1/audit"),
];

/// 501 for what DSV has, 405 for what is served otherwise, 404 for all else.
pub fn refusal(call: &Call) -> Refusal {
    let is_policy = below(&call.path, "config/policies");
    let known = is_policy || (call.area != "config" && openapi::knows(&call.area));
    if known && !call.is_secret_server() {
        return Refusal::new(405, "this method is not served here");
    }
    of(&call.path)
}

/// The same before anybody has logged in: these calls are the way to do so.
pub fn is_login(path: &str) -> bool {
    ["certificate", "oidc"].iter().any(|area| below(path, area))
}

fn of(path: &str) -> Refusal {
    let known = AREAS.iter().find(|(area, _)| below(path, area));
    known.map_or_else(Refusal::not_found, |(_, text)| Refusal::new(501, *text))
}

fn below(path: &str, area: &str) -> bool {
    path.strip_prefix(area)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dsv_has_is_501_and_the_rest_404() {
        for path in [
            "config/siem/x",
            "config/auth",
            "config/auth/x",
            "config/keys",
            "config",
            "pki/root",
            "crypto/key",
            "breakglass",
            "report/me",
            "certificate/auth",
            "oidc/auth",
            "task/status/1",
            "siem",
        ] {
            assert_eq!(of(path).code, 501, "{path}");
        }
        assert_eq!(of("cryptography").code, 404);
        assert!(is_login("certificate/auth") && !is_login("pki"));
    }
}
