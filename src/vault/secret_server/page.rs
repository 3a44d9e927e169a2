//! Pages of lists in Secret Server's form.

use crate::vault::call::Call;
use crate::vault::reply::Refusal;
use serde_json::{Map, Value, json};

/// Records of a page where nothing else is said.
const DEFAULT: usize = 10;
/// Most records of a page.
const MOST: usize = 1000;

/// Which part of a list, in which order.
pub struct Page {
    skip: usize,
    take: usize,
    by: Option<(String, bool)>,
}

impl Page {
    /// From `skip`, `take` and `sortBy[0]`.
    pub fn read(call: &Call) -> Result<Self, Refusal> {
        let number = |name: &str, default: usize| match call.asked(name).map(str::parse::<usize>) {
            None => Ok(default),
            Some(Ok(number)) => Ok(number),
            Some(Err(_)) => Err(Refusal::bad(format!("{name} must be a whole number"))),
        };
        let by = call.asked("sortBy[0].name").map(|name| {
            let down = call
                .asked("sortBy[0].direction")
                .is_some_and(|word| word.eq_ignore_ascii_case("desc"));
            (name.to_owned(), down)
        });
        Ok(Self {
            skip: number("skip", 0)?,
            take: number("take", DEFAULT)?.clamp(1, MOST),
            by,
        })
    }

    /// The reply.
    pub fn of(self, mut all: Vec<Map<String, Value>>) -> Value {
        if let Some((name, down)) = &self.by {
            all.sort_by_cached_key(|record| record.get(name).map(key).unwrap_or_default());
            if *down {
                all.reverse();
            }
        }
        let (total, skip, take) = (all.len(), self.skip, self.take);
        let records: Vec<_> = all.into_iter().skip(skip).take(take).collect();
        let next = skip.saturating_add(take);
        let sorted = self.by.map(|(name, down)| {
            let direction = if down { "Desc" } else { "Asc" };
            json!({"name": name, "direction": direction, "priority": 0})
        });
        let sorted: Vec<Value> = sorted.into_iter().collect();
        json!({
            "records": records,
            "skip": skip,
            "take": take,
            "total": total,
            "hasNext": next < total,
            "hasPrev": skip > 0,
            "nextSkip": if next < total { next } else { 0 },
            "prevSkip": skip.saturating_sub(take),
            "currentPage": skip / take + 1,
            "pageCount": total.div_ceil(take),
            "batchCount": records.len(),
            "sortBy": sorted,
            "success": true,
            "severity": "None",
        })
    }
}

/// Numbers by their size, everything else as text.
fn key(value: &Value) -> (i64, String) {
    match value {
        Value::Number(number) => (number.as_i64().unwrap_or_default(), String::new()),
        Value::String(text) => (0, text.to_lowercase()),
        other => (0, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_it_is() {
        let all: Vec<Map<String, Value>> = (0..7)
            .map(|n| {
                json!({"id": n, "name": format!("n{}", 9 - n)})
                    .as_object()
                    .unwrap()
                    .clone()
            })
            .collect();
        let page = |skip, by: Option<(&str, bool)>| {
            let by = by.map(|(name, down)| (name.to_owned(), down));
            Page { skip, take: 3, by }.of(all.clone())
        };
        let first = page(0, None);
        assert_eq!(
            (first["total"].clone(), first["hasNext"].clone()),
            (json!(7), json!(true))
        );
        assert_eq!(
            (first["pageCount"].clone(), first["nextSkip"].clone()),
            (json!(3), json!(3))
        );
        let last = page(6, Some(("name", false)));
        assert_eq!(last["records"][0]["id"], 0);
        assert_eq!(
            (last["hasNext"].clone(), last["hasPrev"].clone()),
            (json!(false), json!(true))
        );
        assert_eq!(page(0, Some(("id", true)))["records"][0]["id"], 6);
    }
}
