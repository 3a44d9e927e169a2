//! Who may do what: policies as DSV has them. What no policy allows is denied, and one that denies wins over all that allow.

use ipnet::IpNet;
use jiff::Timestamp;
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::net::IpAddr;

/// Most memory that one compiled pattern may take: a pattern is somebody's input.
const PATTERN_LIMIT: usize = 64 * 1024;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The caller's names: himself, and his groups.
    pub subjects: &'a [String],
    /// `create`, `read`, `update`, `delete`, `list` or `assign`.
    pub action: &'a str,
    /// Such as `secrets:a:b`.
    pub resource: &'a str,
    /// Where the call comes from.
    pub remote: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// A policy document that cannot be used: what is wrong, field by field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentError(pub String);

/// One statement of a permission document.
#[derive(Debug, Clone)]
pub struct Rule {
    subjects: Vec<Regex>,
    actions: Vec<Regex>,
    resources: Vec<Regex>,
    denies: bool,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
enum Condition {
    From(Vec<IpNet>),
    Between(Option<Timestamp>, Option<Timestamp>),
    /// One that is not known here: never fulfilled where it would allow, always where it would deny.
    Unknown,
}

/// Whether the rules allow it.
pub fn allows<'a>(rules: impl IntoIterator<Item = &'a Rule>, ask: &Ask<'_>) -> bool {
    let mut allowed = false;
    for rule in rules.into_iter().filter(|rule| rule.is_about(ask)) {
        if rule.denies {
            return false;
        }
        allowed = true;
    }
    allowed
}

impl Rule {
    /// Reads the statements of a document. `path` is the policy's own, which is meant where a statement names no resource.
    pub fn read(document: &[Value], path: &str) -> Result<Vec<Self>, DocumentError> {
        document.iter().map(|statement| Self::of(statement, path)).collect()
    }

    fn of(statement: &Value, path: &str) -> Result<Self, DocumentError> {
        let denies = match statement.get("effect").and_then(Value::as_str) {
            Some("allow") => false,
            Some("deny") => true,
            _ => return Err(DocumentError("effect must be allow or deny".into())),
        };
        let mut resources = words(statement, "resources")?;
        if resources.is_empty() {
            resources = vec![path.to_owned(), format!("{path}:<.*>")];
        }
        let (subjects, actions) = (words(statement, "subjects")?, words(statement, "actions")?);
        for (list, name) in [(&subjects, "subjects"), (&actions, "actions")] {
            if list.is_empty() {
                return Err(DocumentError(format!("{name} must name at least one")));
            }
        }
        let conditions = match statement.get("conditions") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(all)) => all.values().map(Condition::read).collect::<Result<_, _>>()?,
            Some(_) => return Err(DocumentError("conditions must be an object".into())),
        };
        Ok(Self {
            subjects: compile(&subjects)?,
            actions: compile(&actions)?,
            resources: compile(&resources)?,
            denies,
            conditions,
        })
    }

    fn is_about(&self, ask: &Ask<'_>) -> bool {
        let any = |patterns: &[Regex], text: &str| patterns.iter().any(|pattern| pattern.is_match(text));
        ask.subjects.iter().any(|subject| any(&self.subjects, subject))
            && any(&self.actions, ask.action)
            && any(&self.resources, ask.resource)
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(ask, self.denies))
    }
}

impl Condition {
    fn read(value: &Value) -> Result<Self, DocumentError> {
        let option = |name: &str| value.pointer(&format!("/options/{name}")).and_then(Value::as_str);
        match value.get("type").and_then(Value::as_str) {
            Some("CIDRCondition") => {
                let text = option("cidr").unwrap_or_default();
                let networks = text.split(',').map(|one| one.trim().parse::<IpNet>());
                let networks = networks.collect::<Result<Vec<_>, _>>();
                networks
                    .map(Self::From)
                    .map_err(|_| DocumentError("conditions: options.cidr must be networks such as 10.0.0.0/8".into()))
            }
            Some("TimeCondition") => {
                let time = |name: &str| option(name).map(str::parse::<Timestamp>).transpose();
                match (time("after"), time("before")) {
                    (Ok(after), Ok(before)) if after.is_some() || before.is_some() => Ok(Self::Between(after, before)),
                    _ => Err(DocumentError(
                        "conditions: options.after and options.before must be times such as 2027-01-01T00:00:00Z"
                            .into(),
                    )),
                }
            }
            Some(_) => Ok(Self::Unknown),
            None => Err(DocumentError("conditions: each needs a type and options".into())),
        }
    }

    fn holds(&self, ask: &Ask<'_>, denies: bool) -> bool {
        match self {
            Self::From(networks) => match ask.remote {
                Some(remote) => networks.iter().any(|network| network.contains(&remote.to_canonical())),
                None => denies,
            },
            Self::Between(after, before) => {
                after.is_none_or(|after| ask.now >= after) && before.is_none_or(|before| ask.now < before)
            }
            Self::Unknown => denies,
        }
    }
}

/// A list of texts; a single text counts as a list of one, and nothing as an empty one.
fn words(statement: &Value, name: &str) -> Result<Vec<String>, DocumentError> {
    let wrong = || DocumentError(format!("{name} must be a list of texts"));
    match statement.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(all)) => all
            .iter()
            .map(|word| word.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

fn compile(patterns: &[String]) -> Result<Vec<Regex>, DocumentError> {
    patterns.iter().map(|pattern| expression(pattern)).collect()
}

/// Literal text with regular expressions in `<...>`; a bare `*` or `.*` means `<.*>`.
fn expression(pattern: &str) -> Result<Regex, DocumentError> {
    let wrong = || {
        DocumentError(format!(
            "{pattern:?} is not a pattern: write text, with <...> around a regular expression"
        ))
    };
    let mut text = String::from("^(?:");
    let mut rest = pattern;
    while let Some((literal, tail)) = rest.split_once('<') {
        let end = closing(tail).ok_or_else(wrong)?;
        let (inner, after) = tail.split_at(end);
        // By itself, or an unbalanced bracket would close our own and lift the anchors.
        Regex::new(inner).map_err(|_| wrong())?;
        text.push_str(&normalised(literal));
        text.extend(["(?:", inner, ")"]);
        rest = after.strip_prefix('>').ok_or_else(wrong)?;
    }
    if rest.contains('>') {
        return Err(wrong());
    }
    text.push_str(&normalised(rest));
    text.push_str(")$");
    RegexBuilder::new(&text)
        .size_limit(PATTERN_LIMIT)
        .dot_matches_new_line(true)
        .build()
        .map_err(|_| wrong())
}

/// Where the bracket that was opened before `text` closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if depth == 0 => return Some(at),
            '>' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn normalised(literal: &str) -> String {
    let pieces = literal.replace(".*", "*");
    let pieces: Vec<String> = pieces.split('*').map(regex::escape).collect();
    pieces.join(".*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rules(documents: &[Value]) -> Vec<Rule> {
        Rule::read(documents, "secrets:own").unwrap()
    }

    fn may(rules: &[Rule], subject: &str, action: &str, resource: &str) -> bool {
        let ask = Ask {
            subjects: &[subject.to_owned(), "groups:devs".to_owned()],
            action,
            resource,
            remote: "10.1.2.3".parse().ok(),
            now: Timestamp::UNIX_EPOCH,
        };
        allows(rules, &ask)
    }

    #[test]
    fn what_nobody_allows_is_denied_and_one_denial_wins() {
        assert!(!may(&[], "users:admin", "read", "secrets:a"));
        let allow = json!({"subjects": ["users:<a|b>"], "actions": ["read", "list"], "resources": ["secrets:<.*>"], "effect": "allow"});
        let deny = json!({"subjects": ["groups:devs"], "actions": ["*"], "resources": ["secrets:hidden:.*"], "effect": "deny"});
        let both = rules(&[allow, deny]);
        assert!(may(&both, "users:a", "read", "secrets:x:y"));
        assert!(!may(&both, "users:c", "read", "secrets:x:y"));
        assert!(!may(&both, "users:a", "delete", "secrets:x:y"));
        assert!(!may(&both, "users:a", "read", "secrets:hidden:y"));
        assert!(may(&both, "users:a", "read", "secrets:hiddenaway"));
        assert!(
            !may(&both, "users:ab", "read", "secrets:x"),
            "a pattern is about the whole text"
        );
    }

    #[test]
    fn without_resources_the_policys_own_path_is_meant() {
        let own = rules(&[json!({"subjects": ["users:a"], "actions": ["<.*>"], "resources": null, "effect": "allow"})]);
        assert!(may(&own, "users:a", "read", "secrets:own") && may(&own, "users:a", "read", "secrets:own:x"));
        assert!(!may(&own, "users:a", "read", "secrets:owner"));
    }

    #[test]
    fn conditions_narrow_what_is_allowed_and_unknown_ones_never_widen() {
        let with = |effect: &str, condition: Value| {
            let base = json!({"subjects": ["users:a"], "actions": ["read"], "resources": ["s"], "effect": "allow"});
            let mut narrowed = base.clone();
            narrowed["effect"] = json!(effect);
            narrowed["conditions"] = json!({"c": condition});
            let all = if effect == "deny" {
                vec![base, narrowed]
            } else {
                vec![narrowed]
            };
            may(&rules(&all), "users:a", "read", "s")
        };
        let cidr = |net: &str| json!({"type": "CIDRCondition", "options": {"cidr": net}});
        assert!(with("allow", cidr("10.0.0.0/8")) && !with("allow", cidr("192.168.0.0/16")));
        assert!(!with("deny", cidr("10.0.0.0/8")) && with("deny", cidr("192.168.0.0/16")));
        let before = |time: &str| json!({"type": "TimeCondition", "options": {"before": time}});
        assert!(with("allow", before("1980-01-01T00:00:00Z")) && !with("allow", before("1960-01-01T00:00:00Z")));
        let unknown = json!({"type": "MoonCondition", "options": {}});
        assert!(!with("allow", unknown.clone()) && !with("deny", unknown));
    }

    #[test]
    fn a_document_that_cannot_be_meant_is_refused() {
        for wrong in [
            json!({"subjects": ["a"], "actions": ["b"], "effect": "maybe"}),
            json!({"subjects": [], "actions": ["b"], "effect": "allow"}),
            json!({"subjects": ["<("], "actions": ["b"], "effect": "allow"}),
            json!({"subjects": ["<a))|(?:(?:b>"], "actions": ["b"], "effect": "allow"}),
            json!({"subjects": ["<a"], "actions": ["b"], "effect": "allow"}),
            json!({"subjects": ["a>"], "actions": ["b"], "effect": "allow"}),
            json!({"subjects": [1], "actions": ["b"], "effect": "allow"}),
            json!({"subjects": ["<a{1000}{1000}>"], "actions": ["b"], "effect": "allow"}),
            json!({"subjects": ["a"], "actions": ["b"], "effect": "allow", "conditions": {"c": {"type": "CIDRCondition", "options": {"cidr": "here"}}}}),
        ] {
            assert!(Rule::read(std::slice::from_ref(&wrong), "p").is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn literal_text_matches_itself_only(text in "[a-z:.+@_-]{1,12}", other in "[a-z:.+@_-]{1,12}") {
            prop_assume!(!text.contains(".*") && !text.contains('*'));
            let pattern = expression(&text).unwrap();
            prop_assert!(pattern.is_match(&text));
            prop_assert_eq!(pattern.is_match(&other), text == other);
        }

        #[test]
        fn no_pattern_makes_the_compiler_panic(text in ".{0,30}") {
            let _ = expression(&text);
        }
    }
}
