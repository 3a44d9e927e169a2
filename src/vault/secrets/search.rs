//! Searching and listing, from memory: only what the caller may list, page by page.

use super::item::Item;
use super::kept::plain;
use super::{Asked, Listed};
use crate::vault::Vault;
use crate::vault::index::Entry;
use crate::vault::kubernetes::Thing;
use crate::vault::page::{Page, Sorting};
use crate::vault::reply::{Refusal, Reply};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

/// Most paths that a completion shows.
const MAX_PATHS: usize = 1000;

/// What is searched for.
struct Query<'a> {
    term: &'a str,
    /// The same as it is compared.
    wanted: String,
    field: &'a str,
    comparison: Comparison,
    number: Option<f64>,
    links: bool,
}

#[derive(Clone, Copy)]
enum Comparison {
    Contains,
    Equal,
    BeginsWith,
}

impl<'a> Query<'a> {
    fn read(asked: &Asked<'a>) -> Result<Self, Refusal> {
        let call = asked.call;
        let term = call.asked("searchTerm").unwrap_or_default();
        let wrong = |text: &str| Refusal::bad(text.to_owned());
        let comparison = match call.asked("search.comparison").unwrap_or("contains") {
            "contains" => Comparison::Contains,
            "equal" => Comparison::Equal,
            "begins_with" => Comparison::BeginsWith,
            _ => return Err(wrong("search.comparison must be contains, equal or begins_with")),
        };
        let number = match call.asked("search.type").unwrap_or("string") {
            "string" => None,
            "number" => Some(term.parse::<f64>().map_err(|_| wrong("searchTerm must be a number"))?),
            _ => return Err(wrong("search.type must be string or number")),
        };
        let field = call.asked("search.field").unwrap_or("path");
        let lower = term.to_lowercase();
        Ok(Self {
            term,
            wanted: if field == "path" {
                lower.replace('/', ":")
            } else {
                lower
            },
            field,
            comparison,
            number,
            links: call.flag("search.links"),
        })
    }

    fn fits(&self, item: &Item) -> bool {
        if self.links {
            let linked = item
                .attributes
                .get("linkConfig")
                .and_then(|link| link.get("linkedSecret"));
            let term = self.term.replace('/', ":");
            return linked.and_then(Value::as_str).is_some_and(|linked| linked == term);
        }
        if self.term.is_empty() {
            return true;
        }
        if self.field == "path" && self.number.is_none() {
            return self.compares(&item.path.to_lowercase());
        }
        let Some(value) = self.value(item) else { return false };
        if let Some(number) = self.number {
            let have = value.as_f64().or_else(|| value.as_str()?.parse().ok());
            return have.is_some_and(|have| have.total_cmp(&number) == Ordering::Equal);
        }
        self.compares(&plain(&value).to_lowercase())
    }

    fn compares(&self, have: &str) -> bool {
        let term = self.wanted.as_str();
        match self.comparison {
            Comparison::Contains => have.contains(term),
            Comparison::Equal => have == term,
            Comparison::BeginsWith => have.starts_with(term),
        }
    }

    fn value(&self, item: &Item) -> Option<Value> {
        match self.field {
            "path" => Some(json!(item.path)),
            "description" => Some(json!(item.description)),
            "id" => Some(json!(item.id)),
            other => {
                let mut segments = other.strip_prefix("attributes.")?.split('.');
                let first = item.attributes.get(segments.next()?)?;
                segments.try_fold(first, |value, segment| value.get(segment)).cloned()
            }
        }
    }
}

type Found = Arc<Entry<Listed>>;

impl Vault {
    /// What the caller may list in this space and fits. Ten thousand are looked at for each search, so nothing is copied.
    fn visible(&self, asked: &Asked<'_>, fits: impl Fn(&Item) -> bool) -> Vec<Found> {
        let namespace = &asked.call.tenant.namespace;
        let kept = self.secrets.all(namespace).into_iter();
        let mut all: Vec<Found> = kept.chain(self.dynamic.all(namespace)).collect();
        all.retain(|entry| {
            let listed = &entry.value;
            let thing = if listed.dynamic.is_some() {
                Thing::Dynamic
            } else {
                Thing::Secret
            };
            asked.caller.holds("list", thing)
                && listed.kind == asked.space.kind()
                && !listed.item.is_marked()
                && fits(&self.item_of(listed))
        });
        let lists = self.permitted(asked, "list");
        all.retain(|entry| lists(&entry.value.item.path));
        all
    }

    fn item_of<'a>(&self, listed: &'a Listed) -> Cow<'a, Item> {
        match &listed.dynamic {
            Some(object) => Cow::Owned(self.dynamic_item(object)),
            None => Cow::Borrowed(&listed.item),
        }
    }

    pub(super) fn search(&self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let query = Query::read(asked)?;
        let page = Page::read(asked.call)?;
        let sorting = Sorting::read(asked.call)?;
        let mut found = self.visible(asked, |item| query.fits(item));
        let key = |found: &Found| (found.value.item.record.last_modified, found.value.item.path.clone());
        sorting.sort(&mut found, key);
        let (items, mut envelope) = page.cut(found, sorting);
        let data = items
            .iter()
            .map(|found| Value::Object(self.item_of(&found.value).description()));
        envelope.insert("data".to_owned(), Value::Array(data.collect()));
        Ok(Reply::ok(envelope.into()))
    }

    pub(super) fn list_paths(&self, asked: &Asked<'_>, prefix: &str) -> Result<Reply, Refusal> {
        let limit = Page::read(asked.call)?.limit_or(MAX_PATHS);
        let prefix = prefix.replace('/', ":");
        let prefix = prefix.trim_start_matches(':');
        let found = self.visible(asked, |item| item.path.starts_with(prefix));
        let mut paths: Vec<&str> = found.iter().map(|found| found.value.item.path.as_str()).collect();
        paths.sort_unstable();
        paths.truncate(limit);
        Ok(Reply::ok(json!({"data": paths})))
    }
}
