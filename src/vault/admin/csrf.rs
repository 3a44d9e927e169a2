//! Forms that nobody else's page can send: each holds a text that only we can make, of the cookie that comes with it.

use crate::keys::{SecretText, keyed_hash, keyed_hash_fits};
use crate::vault::Vault;
use crate::vault::body::Fields;
use crate::vault::reply::Refusal;
use http::HeaderMap;

/// Name of the form's field.
pub const FIELD: &str = "csrf";
/// Set by browsers, and by no page.
const SITE: &str = "sec-fetch-site";

/// What a form that is shown to the owner of this cookie must hold.
pub fn text(vault: &Vault, cookie: &SecretText) -> SecretText {
    keyed_hash(&vault.tokens.hash_key(), &bound(cookie))
}

/// Refuses a form that was not shown to the owner of the cookie.
pub fn check(vault: &Vault, cookie: Option<&SecretText>, fields: &Fields, is_foreign: bool) -> Result<(), Refusal> {
    let given = fields.text(FIELD)?.map(SecretText::new);
    let fits = match (cookie, given) {
        (Some(cookie), Some(given)) => keyed_hash_fits(&vault.tokens.hash_key(), &bound(cookie), &given),
        _ => false,
    };
    if fits && !is_foreign {
        return Ok(());
    }
    Err(Refusal::new(
        403,
        "this form is too old, or was not shown by this page; go back, load the page again and repeat what you did",
    ))
}

/// Whether the browser says that another site's page sends this.
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get(SITE).and_then(|value| value.to_str().ok());
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

/// Longer than any cookie, so this is never the name of a session.
fn bound(cookie: &SecretText) -> SecretText {
    SecretText::new(format!("form:{}", cookie.reveal()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_site_sends_is_foreign() {
        let of = |site: &str| {
            is_foreign(&HeaderMap::from_iter([(
                http::HeaderName::from_static(SITE),
                site.parse().unwrap(),
            )]))
        };
        assert!(of("cross-site") && of("same-site"));
        assert!(!of("same-origin") && !of("none") && !is_foreign(&HeaderMap::new()));
    }
}
