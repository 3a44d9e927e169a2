//! Searching and listing, from memory: only what the caller may list, page by page.

use super::item::Item;
use super::kept::plain;
use super::{Asked, Listed};
use crate::vault::Vault;
use crate::vault::page::{Page, Sorting};
use crate::vault::reply::{Refusal, Reply};
use serde_json::{Value, json};
use std::cmp::Ordering;

/// Most paths that a completion shows.
const MAX_PATHS: usize = 1000;

/// What is searched for.
struct Query<'a> {
    term: &'a str,
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
        Ok(Self {
            term,
            field: call.asked("search.field").unwrap_or("path"),
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
        let Some(value) = self.value(item) else { return false };
        if let Some(number) = self.number {
            let have = value.as_f64().or_else(|| value.as_str()?.parse().ok());
            return have.is_some_and(|have| have.total_cmp(&number) == Ordering::Equal);
        }
        let (have, term) = (plain(&value).to_lowercase(), self.term.to_lowercase());
        let term = if self.field == "path" {
            term.replace('/', ":")
        } else {
            term
        };
        match self.comparison {
            Comparison::Contains => have.contains(&term),
            Comparison::Equal => have == term,
            Comparison::BeginsWith => have.starts_with(&term),
        }
    }

    fn value(&self, item: &Item) -> Option<Value> {
        match self.field {
            "path" => Some(json!(item.path)),
            "description" => Some(json!(item.description)),
            "id" => Some(json!(item.id)),
            other => {
                let pointer = other.strip_prefix("attributes.")?.replace('.', "/");
                Value::Object(item.attributes.clone())
                    .pointer(&format!("/{pointer}"))
                    .cloned()
            }
        }
    }
}

impl Vault {
    /// What the caller may list in this space.
    fn visible(&self, asked: &Asked<'_>) -> Vec<Item> {
        let namespace = &asked.call.tenant.namespace;
        let kept = self.secrets.all(namespace).into_iter();
        let all = kept.chain(self.dynamic.all(namespace));
        let here = |listed: &Listed| listed.kind == asked.space.kind() && !listed.item.is_marked();
        all.filter(|entry| here(&entry.value) && self.permits(asked, "list", &entry.value.item.path))
            .map(|entry| match &entry.value.dynamic {
                Some(object) => self.dynamic_item(object),
                None => entry.value.item.clone(),
            })
            .collect()
    }

    pub(super) fn search(&self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let query = Query::read(asked)?;
        let page = Page::read(asked.call)?;
        let sorting = Sorting::read(asked.call)?;
        let mut found = self.visible(asked);
        found.retain(|item| query.fits(item));
        sorting.sort(&mut found, |item| (item.record.last_modified, item.path.clone()));
        let (items, mut envelope) = page.cut(found, sorting);
        let data: Vec<Value> = items.iter().map(|item| Value::Object(item.description())).collect();
        envelope.insert("data".to_owned(), json!(data));
        Ok(Reply::ok(envelope.into()))
    }

    pub(super) fn list_paths(&self, asked: &Asked<'_>, prefix: &str) -> Result<Reply, Refusal> {
        let limit = Page::read(asked.call)?.limit_or(MAX_PATHS);
        let prefix = prefix.replace('/', ":");
        let prefix = prefix.trim_start_matches(':');
        let mut paths: Vec<String> = self.visible(asked).into_iter().map(|item| item.path).collect();
        paths.retain(|path| path.starts_with(prefix));
        paths.sort();
        paths.truncate(limit);
        Ok(Reply::ok(json!({"data": paths})))
    }
}
