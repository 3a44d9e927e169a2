//! Text with placeholders, filled with the keys of a credential.
//!
//! There is no logic in it on purpose: what a tenant writes must not be able to run for long in the operator.

use data_encoding::BASE64;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Longest filled text in bytes: a short template that names a long key a thousand times must not eat the operator's memory.
const LONGEST: usize = 64 << 10;

/// What is wrong with a template. Its text is shown to the user; it holds names and never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// `{{` without its end.
    #[error("a placeholder that begins with `{{{{` has no `}}}}`")]
    Open,
    /// A name that is no key of the Secret.
    #[error("`{{{{ {name} }}}}` names no key; there are {known}")]
    Unknown {
        /// What was written.
        name: String,
        /// All there are.
        known: String,
    },
    /// Filled, it is too long.
    #[error("filled, it is longer than {} KiB", LONGEST >> 10)]
    TooLong,
    /// A filter that does not exist.
    #[error("there is no filter `{0}`; there are urlencode, json and base64")]
    Filter(String),
}

/// Fills the placeholders: `{{ name }}` or `{{ name | filter }}`, any number of filters one after the other. Everything else
/// stays as it is.
pub fn fill(template: &str, values: &BTreeMap<&str, Cow<'_, str>>) -> Result<String, Unfit> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, inside)) = rest.split_once("{{") {
        let (placeholder, after) = inside.split_once("}}").ok_or(Unfit::Open)?;
        filled.push_str(before);
        filled.push_str(&value(placeholder, values)?);
        if filled.len() > LONGEST {
            return Err(Unfit::TooLong);
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(placeholder: &str, values: &BTreeMap<&str, Cow<'_, str>>) -> Result<String, Unfit> {
    let mut parts = placeholder.split('|').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let found = values.get(name).ok_or_else(|| Unfit::Unknown {
        name: name.chars().take(64).collect(),
        known: values.keys().copied().collect::<Vec<_>>().join(", "),
    })?;
    parts.try_fold(found.clone().into_owned(), |text, filter| filtered(&text, filter))
}

fn filtered(text: &str, filter: &str) -> Result<String, Unfit> {
    match filter {
        "urlencode" => Ok(urlencode(text)),
        "json" => Ok(serde_json::Value::from(text).to_string()),
        "base64" => Ok(BASE64.encode(text.as_bytes())),
        other => Err(Unfit::Filter(other.chars().take(64).collect())),
    }
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
pub fn urlencode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> Result<String, Unfit> {
        let values = [("username", "u"), ("password", "a/b\"c")].map(|(name, value)| (name, Cow::Borrowed(value)));
        fill(template, &values.into())
    }

    #[test]
    fn placeholders_are_filled_and_everything_else_stays() {
        for (template, text) in [
            ("", ""),
            ("no placeholder, } and { stay", "no placeholder, } and { stay"),
            ("{{username}}:{{ password }}!", "u:a/b\"c!"),
            ("{{ password | urlencode }}", "a%2Fb%22c"),
            ("{{ password|json }}", r#""a/b\"c""#),
            ("{{ username | base64 | urlencode }}", "dQ%3D%3D"),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_there_is() {
        for (template, said) in [
            ("{{ username", "a placeholder that begins with `{{` has no `}}`"),
            ("{{ user }}", "`{{ user }}` names no key; there are password, username"),
            ("{{ }}", "`{{  }}` names no key; there are password, username"),
            (
                "{{ username | upper }}",
                "there is no filter `upper`; there are urlencode, json and base64",
            ),
        ] {
            assert_eq!(filled(template).unwrap_err().to_string(), said, "{template}");
        }
    }

    #[test]
    fn a_long_key_named_often_is_refused_before_it_is_long() {
        let long = "x".repeat(LONGEST / 2);
        let values = [("a", Cow::Borrowed(long.as_str()))];
        assert_eq!(fill(&"{{a}}".repeat(3000), &values.into()), Err(Unfit::TooLong));
    }

    #[test]
    fn a_value_is_never_taken_for_a_placeholder() {
        let values = [("a", Cow::Borrowed("{{ b }}")), ("b", Cow::Borrowed("secret"))];
        assert_eq!(fill("{{ a }}", &values.into()).as_deref(), Ok("{{ b }}"));
    }
}
