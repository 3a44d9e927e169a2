//! A length of time as users write it: `1000`, `"1000"` (seconds, as DSV does) or `1h30m` (as Kubernetes does).

use kube::core::Duration as GoDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Duration;

/// Shortest ttl of an account in seconds. Below it an account would often end before it is delivered.
pub const MIN_TTL_SECONDS: i64 = 10;
/// Longest span in seconds: 10 years.
pub const MAX_SECONDS: i64 = 10 * 365 * 24 * 3600;

/// A length of time in the form that the user chose. Kept as written, so that reading and writing changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Span {
    /// Seconds.
    Seconds(i64),
    /// Seconds as digits, or Go's duration syntax.
    Text(String),
}

impl Span {
    /// The length; None where the text is no duration or the value is negative or beyond [`MAX_SECONDS`].
    pub fn length(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Seconds(seconds) => *seconds,
            Self::Text(text) => match text.parse::<i64>() {
                Ok(seconds) => seconds,
                Err(_) => return go_duration(text),
            },
        };
        let seconds = (seconds <= MAX_SECONDS).then_some(seconds)?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    /// CEL: this value in seconds, for a field expression such as `self.ttl`.
    pub fn cel_seconds(field: &str) -> String {
        format!(
            "(type({field}) == int ? int({field}) : (string({field}).matches('^[0-9]+$') ? int(string({field})) : \
             duration(string({field})).getSeconds()))"
        )
    }
}

impl From<Duration> for Span {
    fn from(length: Duration) -> Self {
        Self::Seconds(i64::try_from(length.as_secs()).unwrap_or(MAX_SECONDS))
    }
}

fn go_duration(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None; // the parser takes nothing for zero
    }
    let parsed: GoDuration = text.parse().ok()?;
    if parsed.is_negative() {
        return None;
    }
    let length: Duration = parsed.into();
    (length.as_secs() <= u64::try_from(MAX_SECONDS).ok()?).then_some(length)
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": format!(
                    "type(self) == int ? (int(self) >= 0 && int(self) <= {MAX_SECONDS}) : \
                     string(self).matches('^([0-9]{{1,9}}|([0-9]{{1,9}}([.][0-9]{{1,9}})?(h|m|s|ms))+)$') && \
                     {} <= {MAX_SECONDS}",
                    Self::cel_seconds("self")
                ),
                "message": "a length of time is seconds (1000 or \"1000\") or a duration such as 1h30m, at most 10 years"
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Span;
    use std::time::Duration;

    #[test]
    fn all_three_forms_mean_the_same() {
        for json in ["5400", "\"5400\"", "\"1h30m\"", "\"90m\""] {
            let span: Span = serde_json::from_str(json).unwrap();
            assert_eq!(span.length(), Some(Duration::from_mins(90)), "{json}");
            assert_eq!(serde_json::to_string(&span).unwrap(), json);
        }
    }

    #[test]
    fn nonsense_has_no_length() {
        for text in ["", "soon", "-1h", "1d", "99999999999999999999", "9999999999"] {
            assert_eq!(Span::Text(text.into()).length(), None, "{text}");
        }
        assert_eq!(Span::Seconds(-1).length(), None);
    }
}
