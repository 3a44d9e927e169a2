//! Small pieces that pages are made of: states, times, lists of facts, fields of forms.

use crate::api::conditions::{self, READY, Reason, ReasonKind};
use crate::vault::call::Call;
use crate::vault::reply::Refusal;
use crate::vault::time;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use maud::{Markup, Render, html};
use serde_json::Value;

/// How a state is coloured. The word beside says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// It goes on by itself.
    Waits,
    /// Somebody has to act.
    Bad,
    /// Switched off, or of no interest.
    Off,
}

impl Tone {
    /// The tone of a reason.
    pub fn of(reason: &str) -> Self {
        let known = Reason::EVERY.iter().find(|known| known.as_str() == reason);
        match known.map(|known| (*known, known.kind())) {
            Some((Reason::Inactive | Reason::Suspended | Reason::Expired, _)) => Self::Off,
            Some((Reason::Blocked, _) | (_, ReasonKind::Refused)) => Self::Bad,
            Some((_, ReasonKind::Good)) => Self::Good,
            _ => Self::Waits,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Waits => "waits",
            Self::Bad => "bad",
            Self::Off => "off",
        }
    }
}

/// A state: a word, with a colour that says the same.
pub fn state(tone: Tone, word: &str) -> Markup {
    html! { span class={ "state " (tone.word()) } { (word) } }
}

/// What an object's condition `Ready` says: tone, word and sentence.
pub fn ready(conditions: &[Condition]) -> (Tone, String, String) {
    match conditions::find(conditions, READY) {
        Some(ready) => (Tone::of(&ready.reason), spaced(&ready.reason), ready.message.clone()),
        None => (Tone::Waits, "Pending".to_owned(), String::new()),
    }
}

/// `WaitingForEngine` as `Waiting for engine`.
pub fn spaced(word: &str) -> String {
    let mut text = String::new();
    for (at, c) in word.chars().enumerate() {
        if at > 0 && c.is_uppercase() {
            text.push(' ');
            text.extend(c.to_lowercase());
        } else {
            text.push(c);
        }
    }
    text
}

/// A length of time for people, in at most two units.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    let two = |(many, unit): (i64, &str), (few, small): (i64, &str)| match few {
        0 => format!("{many} {unit}"),
        _ => format!("{many} {unit} {few} {small}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => two((minutes, "min"), (rest, "s")),
        (0, _, _) => two((hours, "h"), (minutes, "min")),
        _ => two((days, "d"), (hours, "h")),
    }
}

/// A time in the past, as how long ago that was.
pub fn ago(then: Option<Timestamp>) -> Markup {
    let Some(then) = then else {
        return html! { span.none { "never" } };
    };
    let past = time::now().duration_since(time::whole(then)).as_secs();
    let text = match past {
        ..0 => format!("in {}", span(-past)),
        0..3 => "just now".to_owned(),
        _ => format!("{} ago", span(past)),
    };
    stamp(then, &text)
}

/// A time in the future, as how long it is until then.
pub fn left(end: Option<Timestamp>) -> Markup {
    let Some(end) = end else {
        return html! { span.none { "–" } };
    };
    let left = time::whole(end).duration_since(time::now()).as_secs();
    let text = if left > 0 {
        span(left)
    } else {
        format!("ended {} ago", span(-left))
    };
    stamp(end, &text)
}

/// A time of day, in UTC.
pub fn at(then: Option<Timestamp>) -> Markup {
    then.map_or_else(none, |then| stamp(then, &format!("{} UTC", clock_text(then))))
}

/// The same where the head of the column says UTC.
pub fn moment(then: Option<Timestamp>) -> Markup {
    then.map_or_else(none, |then| stamp(then, &clock_text(then)))
}

fn clock_text(then: Timestamp) -> String {
    time::text(then).replace('T', " ").replace('Z', "")
}

fn none() -> Markup {
    html! { span.none { "–" } }
}

fn stamp(then: Timestamp, text: &str) -> Markup {
    let exact = time::text(then);
    html! { time datetime=(exact) title=(exact) { (text) } }
}

/// A time in a model of the API.
pub fn time_in(model: &Value, name: &str) -> Option<Timestamp> {
    model.get(name)?.as_str()?.parse().ok()
}

/// A text in a model of the API; a number as text.
pub fn text_in(model: &Value, name: &str) -> String {
    match model.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// The records of a page of a list.
pub fn records(page: &Value) -> &[Value] {
    page.get("records").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Names and what they stand for.
pub fn facts<'a>(all: impl IntoIterator<Item = (&'a str, Markup)>) -> Markup {
    html! {
        dl.facts {
            @for (name, fact) in all { div { dt { (name) } dd { (fact) } } }
        }
    }
}

/// A path, which may be broken where its parts meet.
pub fn path(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('/').enumerate() {
            @if at > 0 { "/" wbr; }
            (part)
        }
    }
}

/// A text, or a dash where it is empty.
pub fn or_dash(text: &str) -> Markup {
    if text.is_empty() {
        return html! { span.none { "–" } };
    }
    text.render()
}

/// A table with a name, or a sentence where it has no rows.
pub fn table(name: &str, heads: &[&str], rows: &[Markup], empty: &str) -> Markup {
    if rows.is_empty() {
        return html! { p.empty { (empty) } };
    }
    html! {
        div.table role="region" aria-label=(name) tabindex="0" {
            table {
                caption.hidden { (name) }
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { @for row in rows { (row) } }
            }
        }
    }
}

/// Which part of a long list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Rows before it.
    pub skip: usize,
    /// Rows of all.
    pub total: usize,
}

impl Part {
    /// Rows of one page.
    pub const TAKE: usize = 50;

    /// From the number of rows before it that the address names.
    pub fn asked(call: &Call) -> usize {
        call.asked("skip").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Of a list of the API.
    pub fn of(page: &Value) -> Self {
        let number = |name: &str| {
            page.get(name)
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok())
        };
        Self {
            skip: number("skip").unwrap_or(0),
            total: number("total").unwrap_or(0),
        }
    }

    /// Links to what is before and after, where there is something. `query` is what else the address holds.
    pub fn links(self, path: &str, query: &[(&str, &str)]) -> Markup {
        let (next, end) = (self.skip.saturating_add(Self::TAKE), self.total);
        let link = |skip: usize| {
            let mut text = form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
            if skip > 0 {
                text.append_pair("skip", &skip.to_string());
            }
            format!("{path}?{}", text.finish())
        };
        html! {
            @if self.skip > 0 || next < end {
                nav.pager aria-label="Pages" {
                    @if self.skip > 0 { a href=(link(self.skip.saturating_sub(Self::TAKE))) { "Previous" } }
                    span { (self.skip.saturating_add(1).min(end)) " to " (next.min(end)) " of " (end) }
                    @if next < end { a href=(link(next)) { "Next" } }
                }
            }
        }
    }
}

/// A field of a form with its label, what is to know of it, and what is wrong with it.
pub struct Field<'a> {
    /// Its name in the form.
    pub name: &'a str,
    /// Its name for people.
    pub label: &'a str,
    /// What is to know.
    pub hint: Markup,
    /// Names under which the API tells faults.
    pub fault: &'a str,
}

impl Field<'_> {
    /// With an input that is given its attributes: id, what describes it, and whether it is wrong.
    pub fn with(&self, refusal: Option<&Refusal>, input: impl FnOnce(&str, &str, Option<&str>) -> Markup) -> Markup {
        let faults = refusal.and_then(|refusal| refusal.errors.get(self.fault));
        let (hint, fault) = (format!("{}-hint", self.name), format!("{}-fault", self.name));
        let described = if faults.is_some() {
            format!("{fault} {hint}")
        } else {
            hint.clone()
        };
        html! {
            div.field {
                label for=(self.name) { (self.label) }
                (input(self.name, &described, faults.map(|_| "true")))
                @if let Some(faults) = faults { p.fault id=(fault) { (self.label) ": " (faults.join("; ")) } }
                p.hint id=(hint) { (self.hint) }
            }
        }
    }
}

/// What a form did, on the page that follows. Only these words: the address is somebody's input.
pub fn done(call: &Call) -> Markup {
    let text = match call.asked("done") {
        Some("made") => "It is registered.",
        Some("saved") => "The changes are saved.",
        Some("on") => "It is active.",
        Some("off") => "It is paused: nothing is pushed.",
        Some("pushed") => "A push was asked for; reload the page to see what came of it.",
        Some("left") => "It is paused, so nothing was pushed.",
        _ => return Markup::default(),
    };
    html! { p.notice.good role="status" { (text) } }
}

/// What was refused, in place of a page.
pub fn refused(refusal: &Refusal) -> Markup {
    let told = if *refusal == Refusal::forbidden() {
        "The policies of this tenant do not let you see or do this."
    } else {
        refusal.message.as_str()
    };
    html! { p.notice.bad role="alert" { (told) } }
}

/// The same above a form, whose fields tell what they are about themselves.
pub fn refused_form(refusal: Option<&Refusal>, fields: &[&str]) -> Markup {
    let Some(refusal) = refusal else {
        return Markup::default();
    };
    let is_told = !refusal.errors.is_empty() && refusal.errors.keys().all(|name| fields.contains(&name.as_str()));
    if is_told {
        return html! { p.notice.bad role="alert" { "Nothing was saved: see what is wrong below." } };
    }
    refused(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_two_units_at_most() {
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (754, "12 min 34 s"),
            (3600, "1 h"),
            (3725, "1 h 2 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn tones_follow_the_reasons() {
        assert_eq!(Tone::of("Synced"), Tone::Good);
        assert_eq!(Tone::of("Blocked"), Tone::Bad);
        assert_eq!(Tone::of("LoginRefused"), Tone::Bad);
        assert_eq!(Tone::of("NotConnected"), Tone::Waits);
        assert_eq!(Tone::of("Inactive"), Tone::Off);
        assert_eq!(Tone::of("Somebody else's"), Tone::Waits);
        assert_eq!(spaced("WaitingForEngine"), "Waiting for engine");
    }
}
