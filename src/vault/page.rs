//! Pages of lists: how many, from where, in which order.

use super::call::Call;
use super::reply::Refusal;
use data_encoding::BASE64;
use serde_json::{Map, Value, json};

/// Items of a page where nothing else is said.
const DEFAULT: usize = 25;
/// Most items of a page.
const MOST: usize = 1000;

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    limit: Option<usize>,
    offset: usize,
}

impl Page {
    /// From `limit` and `cursor`. A cursor is a place in the list and nothing else, so it opens nobody else's list.
    pub fn read(call: &Call) -> Result<Self, Refusal> {
        Self::of(call.asked("limit"), call.asked("cursor"))
    }

    fn of(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, Refusal> {
        let limit = match limit.map(str::parse::<usize>) {
            None | Some(Ok(0)) => None,
            Some(Ok(limit)) => Some(limit.min(MOST)),
            Some(Err(_)) => return Err(Refusal::bad("limit must be a number")),
        };
        let wrong = || Refusal::bad("cursor is none of ours; begin without one");
        let offset = match cursor {
            None => 0,
            Some(cursor) => {
                let bytes = BASE64.decode(cursor.as_bytes()).map_err(|_| wrong())?;
                let text = String::from_utf8(bytes).map_err(|_| wrong())?;
                text.parse().map_err(|_| wrong())?
            }
        };
        Ok(Self { limit, offset })
    }

    /// The limit, or another default.
    pub fn limit_or(self, default: usize) -> usize {
        self.limit.unwrap_or(default)
    }

    /// The page of all, and its envelope without the items.
    pub fn cut<T>(self, all: Vec<T>, sorting: Sorting) -> (Vec<T>, Map<String, Value>) {
        let (total, limit) = (all.len(), self.limit_or(DEFAULT));
        let items: Vec<T> = all.into_iter().skip(self.offset).take(limit).collect();
        let next = self.offset.saturating_add(items.len());
        let cursor = if next < total && !items.is_empty() {
            BASE64.encode(next.to_string().as_bytes())
        } else {
            String::new()
        };
        let envelope = json!({
            "cursor": cursor,
            "length": items.len(),
            "limit": limit,
            "sort": sorting.word(),
            "total": total,
        });
        match envelope {
            Value::Object(map) => (items, map),
            _ => (items, Map::new()),
        }
    }
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sorting {
    ascending: bool,
    /// By name instead of by time.
    pub by_name: bool,
}

impl Sorting {
    /// From `sort` and `sortedBy`; without them the newest come first.
    pub fn read(call: &Call) -> Result<Self, Refusal> {
        let ascending = match call.asked("sort").map(str::to_ascii_lowercase).as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(Refusal::bad("sort must be asc or desc")),
        };
        let by_name = match call.asked("sortedBy").unwrap_or("created") {
            "name" => true,
            "created" | "lastModified" => false,
            _ => return Err(Refusal::bad("sortedBy must be name or created")),
        };
        Ok(Self { ascending, by_name })
    }

    /// Sorts by a key.
    pub fn sort<T, K: Ord>(self, all: &mut [T], key: impl Fn(&T) -> K) {
        all.sort_by_cached_key(key);
        if !self.ascending {
            all.reverse();
        }
    }

    fn word(self) -> &'static str {
        if self.ascending { "asc" } else { "desc" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Sorting = Sorting {
        ascending: false,
        by_name: false,
    };

    #[test]
    fn pages_follow_each_other_and_the_last_has_no_cursor() {
        let all: Vec<u32> = (0..7).collect();
        let (mut cursor, mut seen) = (None::<String>, Vec::new());
        for _ in 0..3 {
            let page = Page::of(Some("3"), cursor.as_deref()).unwrap();
            let (items, envelope) = page.cut(all.clone(), DOWN);
            assert_eq!(envelope["length"], items.len());
            assert_eq!(
                (envelope["limit"].clone(), envelope["total"].clone()),
                (json!(3), json!(7))
            );
            seen.extend(items);
            cursor = envelope["cursor"].as_str().map(str::to_owned);
        }
        assert_eq!((seen, cursor.as_deref()), (all, Some("")));
    }

    #[test]
    fn foreign_cursors_and_limits_are_refused() {
        for (limit, cursor) in [(Some("many"), None), (None, Some("///")), (None, Some("eyJhIjoxfQ=="))] {
            assert_eq!(Page::of(limit, cursor).unwrap_err().code, 400);
        }
        assert_eq!(Page::of(None, None).unwrap().cut(vec![0; 30], DOWN).0.len(), DEFAULT);
        assert_eq!(Page::of(Some("5000"), None).unwrap().limit, Some(MOST));
    }
}
